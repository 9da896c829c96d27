//! What one wrong byte costs: the frames of a device are read again with a byte changed, lost or added anywhere.

use anyhow::{Result, ensure};
use forebay_shared::frame::Decoder;

use super::line::Random;

/// The most messages that one damaged byte cost, in so many trials.
pub(super) fn frames_lost_max(wire: &[u8], trials: u64) -> Result<usize> {
    let sent = messages(wire);
    ensure!(sent.len() > 2, "there are too few frames to lose any");
    let mut random = Random::new(5);
    let mut worst = 0;
    for trial in 0..trials {
        let mut damaged = wire.to_vec();
        let at = random.below(wire.len() as u64) as usize;
        let byte = random.below(256) as u8;
        match trial % 3 {
            0 => damaged[at] ^= byte.max(1),
            1 => drop(damaged.remove(at)),
            _ => damaged.insert(at, byte),
        }
        let came = messages(&damaged);
        // What came is what was sent with one stretch missing.
        let front = sent.iter().zip(&came).take_while(|(a, b)| a == b).count();
        let back = sent.iter().rev().zip(came.iter().rev()).take_while(|(a, b)| a == b).count();
        ensure!(front + back >= came.len(), "a message came that was never sent");
        worst = worst.max(sent.len() - came.len());
    }
    Ok(worst)
}

fn messages(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::<{ Decoder::MAX }>::new();
    let mut found = Vec::new();
    while let Some(frame) = decoder.next(&mut wire) {
        found.extend(frame.ok().map(<[u8]>::to_vec));
    }
    found
}
