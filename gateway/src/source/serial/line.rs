//! What is spoken on an open port: the link with a native device, or text. No IO here; the port's task does that.

use forebay_shared::frame::{self, DELIMITER, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::Millis;
use forebay_shared::link::Transport;
use forebay_shared::message::FromDevice;

use super::port::Chunk;
use super::text::Text;
use crate::config::{self, SerialSelector, Speech};
use crate::record::Offset;
use crate::source::native::{Now, Session};
use crate::source::{Context, Reporter};

/// How long a claimed port may bring nothing valid, in milliseconds.
pub(super) const PATIENCE_MS: u32 = 10_000;

/// So many bytes without a frame among them are no noise.
const UNFRAMED_BYTES: usize = 4 * FRAME_BYTES_MAX;

/// A conversation on one open port.
pub(super) struct Line {
    talk: Talk,
    valid: bool,
    /// From when on a port that brings nothing valid is suspect; `None` if it is not yet, or never.
    suspect_since: Option<Millis>,
    /// The port was claimed without being named, so it may be another program's.
    is_claimed: bool,
}

enum Talk {
    Native(Box<Native>),
    Text(Box<Text>),
}

struct Native {
    decoder: Decoder,
    session: Session,
    /// Bytes since the last one that was part of a frame.
    unframed: usize,
}

impl Line {
    /// Nothing has been said on the port that is called `name` and was opened just now.
    ///
    /// Native devices speak every few seconds, so that their silence makes a port suspect. A text device that was chosen
    /// by its USB identity may say a line a day; one that may be anything has to prove itself too.
    pub(super) fn new(config: &config::Serial, context: &Context, name: &str, now: Millis) -> Line {
        let silence_tells =
            config.speech == Speech::Native || matches!(config.selector, SerialSelector::Any(_));
        let speech = &config.speech;
        let talk = match speech {
            Speech::Native => {
                let session = Session::new(context.clone(), Transport::Serial);
                Talk::Native(Box::new(Native { decoder: Decoder::new(), session, unframed: 0 }))
            }
            Speech::Text(layout) => {
                Talk::Text(Box::new(Text::new(context.clone(), (**layout).clone(), name, now)))
            }
        };
        let is_claimed = config.selector.is_claim();
        let suspect_since = (is_claimed && silence_tells).then_some(now);
        Line { talk, valid: false, suspect_since, is_claimed }
    }

    /// Takes what came.
    pub(super) fn receive(&mut self, chunk: &Chunk, reporter: &Reporter) {
        if self.is_claimed {
            self.suspect_since.get_or_insert(chunk.at.ms);
        }
        match &mut self.talk {
            Talk::Native(native) => self.valid |= native.receive(chunk, reporter, !self.valid),
            Talk::Text(text) => self.valid |= text.receive(chunk, reporter),
        }
    }

    /// Time has passed, or everything below `durable` is on disk, or there is room.
    pub(super) fn tend(&mut self, now: Now, durable: Offset, reporter: &Reporter) {
        match &mut self.talk {
            Talk::Native(native) => native.session.tend(now, durable, reporter),
            Talk::Text(text) => text.tend(now, reporter),
        }
    }

    /// The port is gone.
    pub(super) fn finish(&mut self, now: Now, reporter: &Reporter) {
        if let Talk::Text(text) = &mut self.talk {
            text.finish(now, reporter);
        }
    }

    /// The frames that are to be written now, if there are any.
    pub(super) fn poll_burst(&mut self) -> Option<Vec<u8>> {
        let Talk::Native(native) = &mut self.talk else { return None };
        let mut burst = vec![DELIMITER];
        while let Some(message) = native.session.poll_transmit(Now::read()) {
            let mut bytes = [0; FRAME_BYTES_MAX];
            if let Ok(length) = frame::encode(&[&message], &mut bytes) {
                burst.extend_from_slice(&bytes[..length]);
            }
        }
        (burst.len() > 1).then_some(burst)
    }

    /// When [`Line::tend`] wants to be called, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        match &self.talk {
            Talk::Native(native) => native.session.poll_timeout(),
            Talk::Text(text) => text.poll_timeout(),
        }
    }

    /// Whether a durable offset would release something.
    pub(super) fn awaits_commit(&self) -> bool {
        matches!(&self.talk, Talk::Native(native) if native.session.awaits_commit())
    }

    /// Whether what came last waits for room, so that nothing more is to be taken.
    pub(super) fn is_full(&self) -> bool {
        matches!(&self.talk, Talk::Text(text) if text.is_full())
    }

    /// Whether something came that is what the configuration says.
    pub(super) fn is_valid(&self) -> bool {
        self.valid
    }

    /// When the port counts as another program's, unless something valid comes before.
    pub(super) fn foreign_at(&self) -> Option<Millis> {
        self.suspect_since.filter(|_| !self.valid).map(|since| since.plus(PATIENCE_MS))
    }
}

impl Native {
    /// Takes what came; if it `matters`, says whether there was a message of a device in it.
    fn receive(&mut self, chunk: &Chunk, reporter: &Reporter, matters: bool) -> bool {
        let (mut valid, mut bad, mut first_fault) = (false, 0, None);
        let mut input = chunk.bytes.as_slice();
        self.unframed += input.len();
        while let Some(frame) = self.decoder.next(&mut input) {
            reporter.stats().messages.add(1);
            match frame {
                Ok(message) => {
                    self.unframed = input.len();
                    valid |= matters && FromDevice::parse(message).is_ok();
                    self.session.handle(chunk.at, message, reporter);
                }
                Err(e) => {
                    bad += 1;
                    first_fault.get_or_insert(e);
                }
            }
        }
        let is_garbage = self.unframed >= UNFRAMED_BYTES;
        if is_garbage {
            self.unframed = 0;
            // What never ends is no frame either.
            bad = bad.max(1);
        }
        reporter.stats().bad_messages.add(bad);
        // Once a chunk: a babbling line has thousands of them.
        if is_garbage {
            reporter.trouble("garbage", likely_cause(&chunk.bytes));
        } else if let Some(e) = first_fault {
            reporter.trouble("frame", &format!("bytes on the line are no frame: {e}"));
        }
        valid
    }
}

/// Why a line brings bytes and no frames.
fn likely_cause(bytes: &[u8]) -> &'static str {
    if bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        "the line brings text, and no frame of a device; say with `format` what text it is"
    } else {
        "the line brings bytes, and no frame of a device; see whether `baud` is its line rate, and whether the device \
         runs Forebay's firmware"
    }
}

#[cfg(test)]
mod tests {
    use super::likely_cause;

    #[test]
    fn text_is_told_from_a_wrong_rate() {
        assert!(likely_cause(b"t=21.5 h=40\r\n").contains("`format`"));
        assert!(likely_cause(&[0xf8, 0x00, b'a', 0x80]).contains("`baud`"));
    }
}
