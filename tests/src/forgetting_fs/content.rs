//! One file's bytes twice over: as programs see them, and as the disk has them.
//!
//! What is written is live at once and durable after the next sync that succeeds. In between, its sectors are *unsynced*:
//! a power cut leaves each of them, whatever becomes of its neighbours, as it was before, as it is now, or garbled. The
//! length is unsynced in the same way, and comes out as any length that the file had or passed through.
//!
//! A sync that fails forgets the unsynced sectors, as a kernel does that has marked its pages clean: reads still show
//! them, a later sync says that all is well, and none of them is on the disk.

use std::collections::BTreeSet;

use crate::seed::Rng;

/// What the disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// The content of a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: BTreeSet<usize>,
    /// The shortest that the file has been since the last sync.
    shortest: usize,
    /// Whether it was ever synced.
    is_cared_for: bool,
}

/// What a power cut did to what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Sectors that are as they were before they were written.
    pub old_sectors: u64,
    /// Sectors that are as they were written.
    pub new_sectors: u64,
    /// Sectors that hold neither.
    pub garbled_sectors: u64,
    /// Creations, renames and removals that did not happen.
    pub lost_changes: u64,
}

impl Content {
    pub(super) fn length(&self) -> usize {
        self.live.len()
    }

    /// Whether everything that was written is on the disk, or was given up by a failed sync.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && self.live.len() == self.durable.len()
    }

    /// Whether a sync is to be expected: somebody syncs this file, and has written since.
    pub(super) fn awaits_sync(&self) -> bool {
        self.is_cared_for && !self.is_synced()
    }

    pub(super) fn read(&self, at: usize, length: usize) -> &[u8] {
        let from = at.min(self.live.len());
        self.live.get(from..at.saturating_add(length).min(self.live.len())).unwrap_or_default()
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.live.len() {
            self.resize(end);
        }
        if let Some(target) = self.live.get_mut(at..end) {
            target.copy_from_slice(bytes);
        }
        self.touch(at, end);
    }

    pub(super) fn resize(&mut self, length: usize) {
        let before = self.live.len();
        self.live.resize(length, 0);
        if length < before {
            self.shortest = self.shortest.min(length);
            self.unsynced.retain(|sector| sector * SECTOR_BYTES < length);
        } else {
            self.touch(before, length);
        }
    }

    /// Makes durable what is live, except for what an earlier sync has lost.
    pub(super) fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.unsynced) {
            copy_sector(&self.live, &mut self.durable, sector);
        }
        self.shortest = self.live.len();
        self.is_cared_for = true;
    }

    /// Fails as a disk does: what was to become durable never will, unless it is written again.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// Leaves what the disk has, and of what was not synced whatever `rng` says.
    pub(super) fn cut(&mut self, rng: &mut Rng, damage: &mut Damage) {
        let (live, durable) = (self.live.len(), self.durable.len());
        let (least, most) = (self.shortest.min(live).min(durable), live.max(durable));
        let length = match rng.in_range(0..4) {
            0 => durable,
            1 => live,
            2 => least,
            _ => least + usize::try_from(rng.in_range(0..as_u64(most - least) + 1)).unwrap_or(0),
        };
        self.durable.resize(length, 0);
        for &sector in self.unsynced.iter().filter(|sector| *sector * SECTOR_BYTES < length) {
            match rng.in_range(0..3) {
                0 => damage.old_sectors += 1,
                1 => {
                    damage.new_sectors += 1;
                    copy_sector(&self.live, &mut self.durable, sector);
                }
                _ => {
                    damage.garbled_sectors += 1;
                    garble_sector(&mut self.durable, sector, rng);
                }
            }
        }
        self.forget();
    }

    /// Leaves what the disk has, and nothing of what was not synced.
    pub(super) fn forget(&mut self) {
        self.unsynced.clear();
        self.live.clone_from(&self.durable);
        self.shortest = self.live.len();
    }

    fn touch(&mut self, from: usize, to: usize) {
        self.unsynced.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> std::ops::Range<usize> {
    let from = (sector * SECTOR_BYTES).min(bytes.len());
    from..(from + SECTOR_BYTES).min(bytes.len())
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let range = sector_of(from, sector);
    let end = range.end.min(to.len());
    if let (Some(to), Some(from)) = (to.get_mut(range.start..end), from.get(range.start..end)) {
        to.copy_from_slice(from);
    }
}

fn garble_sector(bytes: &mut [u8], sector: usize, rng: &mut Rng) {
    let range = sector_of(bytes, sector);
    for chunk in bytes.get_mut(range).unwrap_or_default().chunks_mut(8) {
        let random = rng.next_u64().to_le_bytes();
        chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Content, Damage, SECTOR_BYTES};
    use crate::seed::Rng;

    fn cut(content: &mut Content, seed: u64) -> Damage {
        let mut damage = Damage::default();
        content.cut(&mut Rng::new(seed), &mut damage);
        damage
    }

    #[test]
    fn what_was_synced_survives_every_cut_and_what_was_not_comes_in_three_kinds() {
        let mut seen = Damage::default();
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; 8 * SECTOR_BYTES]);
            content.sync();
            content.write(2 * SECTOR_BYTES, &[2; 3 * SECTOR_BYTES]);
            let damage = cut(&mut content, seed);
            assert_eq!(content.length(), 8 * SECTOR_BYTES);
            for sector in [0, 1, 5, 6, 7] {
                assert!(content.read(sector * SECTOR_BYTES, SECTOR_BYTES).iter().all(|&byte| byte == 1));
            }
            assert_eq!(damage.old_sectors + damage.new_sectors + damage.garbled_sectors, 3);
            seen.old_sectors += damage.old_sectors;
            seen.new_sectors += damage.new_sectors;
            seen.garbled_sectors += damage.garbled_sectors;
        }
        assert!(seen.old_sectors > 50 && seen.new_sectors > 50 && seen.garbled_sectors > 50, "{seen:?}");
    }

    #[test]
    fn a_length_that_was_not_synced_is_any_that_the_file_had() {
        let lengths: std::collections::BTreeSet<usize> = (0..200)
            .map(|seed| {
                let mut content = Content::default();
                content.write(0, &[1; 1000]);
                content.sync();
                content.resize(0);
                content.write(0, &[2; 3000]);
                cut(&mut content, seed);
                content.length()
            })
            .collect();
        assert!(lengths.contains(&0) && lengths.contains(&1000) && lengths.contains(&3000));
        assert!(lengths.iter().all(|&length| length <= 3000) && lengths.len() > 10);
    }

    #[test]
    fn a_failed_sync_forgets_what_reads_still_show_and_the_next_one_does_not_bring_it_back() {
        let mut content = Content::default();
        content.write(0, &[1; 2 * SECTOR_BYTES]);
        content.fail_sync();
        assert_eq!(content.read(0, 1), [1]);
        content.write(SECTOR_BYTES, &[2; SECTOR_BYTES]);
        content.sync();
        cut(&mut content, 1);
        assert!(content.read(0, SECTOR_BYTES).iter().all(|&byte| byte == 0), "the failed sync lost it");
        assert!(content.read(SECTOR_BYTES, SECTOR_BYTES).iter().all(|&byte| byte == 2), "written again");
    }
}
