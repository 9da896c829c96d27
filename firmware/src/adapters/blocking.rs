//! Joins a device with a serial port that blocks: any `embedded-io` port that can say whether bytes have
//! arrived.
//!
//! One call reads what is there and writes once, so that a slow line holds the firmware's own loop up for
//! no longer than the port's `write` does.

use embedded_io::{Read, ReadReady, Write};
use forebay_shared::ids::{Millis, Tick};

use crate::Device;

/// Most reads in one call, so that a noisy line cannot keep the firmware from sampling.
const READS_MAX: usize = 4;

/// Reads what has arrived, decides, and writes once. Gives the time at which to call again at the latest,
/// if the port is quiet and nothing is recorded before; it is `now` where there is more to write.
///
/// # Errors
///
/// Those of the port. The device goes on from where it was at the next call.
pub fn service<const RING: usize, P: Read + ReadReady + Write>(
    device: &mut Device<RING>,
    port: &mut P,
    now: Millis,
    tick: Tick,
) -> Result<Option<Millis>, P::Error> {
    let mut buffer = [0; 64];
    for _ in 0..READS_MAX {
        if !port.read_ready()? {
            break;
        }
        let count = port.read(&mut buffer)?;
        device.receive(now, buffer.get(..count).unwrap_or_default());
    }
    let deadline = device.poll(now, tick);
    let waiting = device.transmit();
    if !waiting.is_empty() {
        let count = port.write(waiting)?;
        device.sent(count);
    }
    Ok(deadline)
}
