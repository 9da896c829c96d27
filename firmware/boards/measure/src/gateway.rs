//! The gateway's half of the link, which lets every device in, has all rows durable at once, and answers.

use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::{Boot, Epoch, Millis};
use forebay_shared::link::{Event, Receiver, Terms, WINDOW_BLOCKS};

/// A gateway of one device.
pub struct Gateway {
    receiver: Receiver,
    decoder: Decoder,
    frame: [u8; FRAME_BYTES_MAX],
    rows: u32,
}

impl Gateway {
    /// One that has heard nothing.
    pub fn new() -> Self {
        let (receiver, decoder) = (Receiver::new(Epoch(1)), Decoder::new());
        Self { receiver, decoder, frame: [0; FRAME_BYTES_MAX], rows: 0 }
    }

    /// Takes what the device has sent.
    pub fn receive(&mut self, now: Millis, mut bytes: &[u8]) {
        while let Some(Ok(message)) = self.decoder.next(&mut bytes) {
            // What is refused shows in the count of rows.
            let _ = self.receiver.handle(now, message);
            while let Some(event) = self.receiver.poll_event() {
                match event {
                    Event::Hello(_) => {
                        let Some(boot) = Boot::new(1) else { continue };
                        let terms = Terms { boot, known: None, wants_birth: false, credit: WINDOW_BLOCKS };
                        let _ = self.receiver.welcome(now, terms);
                    }
                    Event::Rows { from, to, .. } => {
                        self.rows += from.rows_until(to) as u32;
                        self.receiver.release(now, to);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A frame for the device, without waiting for company.
    pub fn answer(&mut self, now: Millis) -> Option<&[u8]> {
        let message = self.receiver.poll_transmit(now.plus(10))?;
        let len = frame::encode(&[&message], &mut self.frame).ok()?;
        self.frame.get(..len)
    }

    /// Rows that have arrived.
    pub fn rows(&self) -> u32 {
        self.rows
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}
