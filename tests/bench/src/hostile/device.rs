//! Devices that send what nobody can read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use forebay_tests::pty::Line;

use crate::modes::broker::Session;
use crate::mqtt::load::{Load, PAYLOAD_BYTES};

/// Bytes a second of the serial line, which is what 1,000,000 baud carry.
pub(super) const LINE_BYTES_PER_S: u64 = 100_000;

/// Messages of the hostile device that are in flight.
pub(super) const IN_FLIGHT: u64 = 200;

/// Messages after which it looks whether it is over; a part of all.
const ROUND: u64 = 1_285;

/// Messages that are sent over and over; as many as there are packet ids.
const MESSAGES: u64 = 65_535;

/// How long a burst on the line is.
const BURST: Duration = Duration::from_millis(10);

/// How much an attacker gives way to others.
const NICE: i32 = 19;

/// Messages whose payloads are neither JSON nor text.
pub(super) fn garbage() -> Result<Load> {
    Load::with_payloads(1..=MESSAGES, |number| Ok(senseless(number, PAYLOAD_BYTES)))
}

/// Bytes that mean nothing, the same for the same seed (xorshift).
fn senseless(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| byte()).collect()
}

/// Sends bytes without sense along a line, at its rate; how many it took.
pub(super) fn on_line(line: Line, over: &Arc<AtomicBool>) -> Result<JoinHandle<Result<u64>>> {
    let over = Arc::clone(over);
    attacker(move || {
        let (began, mut sent, bytes) = (Instant::now(), 0, senseless(0, 1 << 16));
        while !over.load(Ordering::Relaxed) {
            let due = began.elapsed().as_millis() as u64 * LINE_BYTES_PER_S / 1_000;
            let from = (sent % bytes.len() as u64) as usize;
            let count = (due.saturating_sub(sent) as usize).min(bytes.len() - from);
            sent += line.write(&bytes[from..from + count])? as u64;
            // What the gateway says is not listened to, and must not fill the line.
            line.read(&mut [0; 4_096])?;
            thread::sleep(BURST);
        }
        Ok(sent)
    })
}

/// Publishes what nobody can read, as fast as it is acked; how many messages that were.
pub(super) fn at_broker(
    mut session: Session,
    garbage: &Load,
    over: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<u64>>> {
    let (garbage, over) = (garbage.clone(), Arc::clone(over));
    attacker(move || {
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            let first = sent % MESSAGES + 1;
            session.publish(&garbage, first..=first + ROUND - 1, None, IN_FLIGHT)?;
            sent += ROUND;
        }
        Ok(sent)
    })
}

fn attacker(attack: impl FnOnce() -> Result<u64> + Send + 'static) -> Result<JoinHandle<Result<u64>>> {
    let thread = thread::Builder::new().name("attack".to_owned());
    Ok(thread.spawn(move || {
        rustix::process::setpriority_process(None, NICE).context("giving way to others")?;
        attack()
    })?)
}
