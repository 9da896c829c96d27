//! The end mark's file: whether the mark that counts can be read.
//!
//! A mark goes into the slot of the one before the last. So where only one slot is intact, the other may have held a
//! newer mark, which is damage, or an older one, which nobody needs. Its number tells, as far as that is intact; and if
//! the number is what is damaged, the checksum tells which number makes it right. A slot that says nothing of the kind
//! was torn while it was written, or never was.

use super::finding::{Finding, Kind, Place};
use super::unreadable;
use crate::journal::end::{self, END_FILE, EndRead, MARK_BYTES, SLOT_BYTES};
use crate::journal::recovery::Survey;
use crate::journal::{JournalId, OpenError, Storage};

/// What is damaged in the file of the end mark. It is made before the first segment begins, so it must be there with one.
pub(super) fn examine(storage: &dyn Storage, survey: &Survey) -> Result<Vec<Finding>, OpenError> {
    let read = || {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let length = storage.open(END_FILE)?.read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(cause) if std::io::Error::kind(&cause) == std::io::ErrorKind::NotFound => {
            let begun = !survey.files.candidates.is_empty();
            return Ok(begun.then(missing).into_iter().collect());
        }
        Err(cause) => return Err(unreadable(END_FILE, cause)),
    };
    let length = bytes.len() as u64;
    let found = |kind, bytes| {
        let places = vec![Place { file: END_FILE.into(), bytes: Some(bytes) }];
        Finding { kind, places, offsets: None, rows: None, delivered: false }
    };
    let mut findings = Vec::new();
    if length < 2 * SLOT_BYTES as u64 && !survey.files.candidates.is_empty() {
        findings.push(found(Kind::Cut, (length, 2 * SLOT_BYTES as u64)));
    }
    let damaged = damaged_slot(&bytes, survey.folded.state.journal());
    findings.extend(damaged.map(|slot| {
        let from = (slot * SLOT_BYTES) as u64;
        found(Kind::EndMark, (from, from + MARK_BYTES as u64))
    }));
    Ok(findings)
}

fn missing() -> Finding {
    let places = vec![Place { file: END_FILE.into(), bytes: None }];
    Finding { kind: Kind::EndMark, places, offsets: None, rows: None, delivered: false }
}

/// The slot that held the current mark, if that cannot be read.
fn damaged_slot(bytes: &[u8], journal: JournalId) -> Option<usize> {
    let slot =
        |number: usize| bytes.get(number * SLOT_BYTES..).and_then(|rest| rest.first_chunk::<MARK_BYTES>());
    let latest = bytes.chunks(SLOT_BYTES).filter_map(end::parse).max_by_key(|read| read.number);
    let Some(latest) = latest else {
        return (0..2).find(|number| slot(*number).is_some_and(|head| looks_like_a_mark(head, journal)));
    };
    let other = usize::from(latest.number % 2 == 0);
    let head = slot(other).filter(|head| end::parse(&head[..]).is_none())?;
    let (older, newer) = (latest.number.wrapping_sub(1), latest.number + 1);
    let number = u64::from_le_bytes(*head[24..].first_chunk()?);
    let is_newer = if number == newer { !is_right_with(head, older) } else { is_right_with(head, newer) };
    (is_newer && looks_like_a_mark(head, journal)).then_some(other)
}

fn looks_like_a_mark(head: &[u8; MARK_BYTES], journal: JournalId) -> bool {
    let mark = EndRead { mark: end::EndMark::default(), journal, number: 0 }.encode();
    // A journal that has nothing yet has no identity either, and zeros are none.
    head[..16] == mark[..16] || head[16..24] == mark[16..24] && head[16..24] != [0; 8]
}

/// Whether only the number is wrong.
fn is_right_with(head: &[u8; MARK_BYTES], number: u64) -> bool {
    let mut head = *head;
    head[24..32].copy_from_slice(&number.to_le_bytes());
    end::parse(&head).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Offset;

    const JOURNAL: JournalId = JournalId(0xfeed);

    fn file(numbers: [u64; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        for number in numbers.into_iter().filter(|number| *number > 0) {
            let mark = end::EndMark { watermark: Offset(number * 10), learned: number };
            let slot = EndRead { mark, journal: JOURNAL, number }.encode();
            bytes[(number % 2) as usize * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&slot);
        }
        bytes
    }

    #[test]
    fn every_flipped_bit_of_the_current_mark_is_damage_and_no_other_is() {
        for numbers in [[0, 1], [1, 2], [2, 3], [255, 256], [256, 257]] {
            let current = (numbers[1] % 2) as usize * SLOT_BYTES;
            for bit in 0..2 * SLOT_BYTES * 8 {
                let mut bytes = file(numbers);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let expected = (current..current + MARK_BYTES).contains(&(bit / 8));
                let found = damaged_slot(&bytes, JOURNAL);
                assert_eq!(found, expected.then_some(current / SLOT_BYTES), "{numbers:?}, bit {bit}");
            }
            assert_eq!(damaged_slot(&file(numbers), JOURNAL), None);
        }
        for journal in [JOURNAL, JournalId(0)] {
            assert_eq!(damaged_slot(&file([0, 0]), journal), None, "never written");
        }
    }
}
