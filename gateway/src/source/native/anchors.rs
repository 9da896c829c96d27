//! Where the clocks of native devices stood, in a file, for the next life of the gateway.
//!
//! In: an anchor a device, taken once a minute and at the end. Out: the same anchors at a start, so that the rows of an
//! outage in which the gateway restarted are interpolated between its two ends, and the rate of each chip is known.
//!
//! Constraint: nothing here is needed for a promise. What is missing or damaged costs accuracy alone: the rows of that
//! outage are dated backward from its end. So it is no part of the journal, and is written a minute late.
//!
//! Format: a device a line: chip id, boot, ticks a second, tick, nanoseconds of the steady clock, the boot of the machine that
//! this counts in, what makes them those since 1970 or `-` if the gateway's clock was not believed, rate and how well it
//! is known in ns per second, and the CRC-32C of all that, in hex. A line that does not fit is passed over. If its checksum
//! is right all the same, a newer version has written it, and the file is kept under another name.
//!
//! Operation: the file is written anew under another name, synced, and put in the place of the old one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use forebay_shared::ids::{Boot, Tick};

use crate::ingest::clock_map::{Anchor, Rate};
use crate::record::MachineBoot;

/// Devices that are kept; of others the clock is not known after a restart.
const DEVICES_MAX: usize = 16_384;

/// Where the clock of a device stood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Saved {
    pub(super) boot: Boot,
    pub(super) tick_hz: u32,
    /// In nanoseconds of the steady clock.
    pub(super) anchor: Anchor,
    /// The boot of the machine that these count in.
    pub(super) machine: MachineBoot,
    /// What makes them those since 1970, if the gateway's clock was believed.
    pub(super) offset_ns: Option<i64>,
}

impl Saved {
    /// The anchor on the steady clock of a boot of the machine, in which that is off those since 1970 by `offset_ns`;
    /// none if it cannot be told where it lies there.
    pub(super) fn anchor_in(&self, machine: MachineBoot, offset_ns: Option<i64>) -> Option<Anchor> {
        let moved_ns = if machine == self.machine { 0 } else { self.offset_ns?.saturating_sub(offset_ns?) };
        Some(Anchor { ns: self.anchor.ns.saturating_add(moved_ns), ..self.anchor })
    }
}

/// Anchors by device.
pub(super) type Anchors = BTreeMap<String, Saved>;

/// What the name of a file ends in that a newer version has written, once it is kept.
const ASIDE: &str = "newer";

/// Reads what an earlier life left. A file of a newer version is kept under another name, for whoever goes back to that.
pub(super) fn load(path: &Path) -> io::Result<Anchors> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Anchors::new()),
        Err(e) => return Err(e),
    };
    let text = String::from_utf8_lossy(&bytes);
    if text.lines().any(|line| intact(line).is_some() && parse(line).is_none()) {
        let aside = path.with_added_extension(ASIDE);
        let kept = match std::fs::rename(path, &aside) {
            Ok(()) => format!("is kept as {}", aside.display()),
            Err(error) => format!("cannot be kept as {}: {error}", aside.display()),
        };
        tracing::warn!(
            "{} was written by a newer version, and {kept}; rows of the time before may be dated less exactly",
            path.display()
        );
    }
    Ok(text.lines().take(DEVICES_MAX).filter_map(parse).collect())
}

/// Puts the anchors in the place of those that are there.
pub(super) fn save(path: &Path, anchors: &Anchors) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    let lines: String = anchors.iter().take(DEVICES_MAX).map(|(device, saved)| line(device, saved)).collect();
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn line(device: &str, saved: &Saved) -> String {
    let Saved { boot, tick_hz, anchor: Anchor { tick, ns, rate }, machine, offset_ns } = saved;
    let (boot, tick, Rate { ppb, sigma_ppb }) = (boot.get(), tick.0, rate);
    let offset = offset_ns.map_or("-".to_owned(), |ns| ns.to_string());
    let text = format!("{device} {boot} {tick_hz} {tick} {ns} {machine} {offset} {ppb:.0} {sigma_ppb:.0}");
    format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// What a line says, whoever wrote it.
fn intact(line: &str) -> Option<&str> {
    let (text, checksum) = line.rsplit_once(' ')?;
    (u32::from_str_radix(checksum, 16) == Ok(crc32c::crc32c(text.as_bytes()))).then_some(text)
}

fn parse(line: &str) -> Option<(String, Saved)> {
    let mut words = intact(line)?.split(' ');
    let device = words.next()?.to_owned();
    let boot = Boot::new(words.next()?.parse().ok()?)?;
    let tick_hz = words.next()?.parse().ok()?;
    let (tick, ns) = (Tick(words.next()?.parse().ok()?), words.next()?.parse().ok()?);
    let machine = MachineBoot(u64::from_str_radix(words.next()?, 16).ok()?);
    let offset_ns = match words.next()? {
        "-" => None,
        offset => Some(offset.parse().ok()?),
    };
    let rate = Rate { ppb: words.next()?.parse().ok()?, sigma_ppb: words.next()?.parse().ok()? };
    let saved = Saved { boot, tick_hz, anchor: Anchor { tick, ns, rate }, machine, offset_ns };
    words.next().is_none().then_some((device, saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors() -> Anchors {
        let rate = Rate { ppb: -499_812.0, sigma_ppb: 1_250.0 };
        let anchor = Anchor { tick: Tick(u64::MAX), ns: 5_000_000_000_001, rate };
        let (boot, tick_hz, machine) = (Boot::new(7).unwrap(), 1_000_000, MachineBoot(0xf0));
        let saved = Saved { boot, tick_hz, anchor, machine, offset_ns: Some(1_700_000_000_000_000_001) };
        let other = Saved { tick_hz: 1_000, anchor: Anchor { ns: -5, ..anchor }, offset_ns: None, ..saved };
        Anchors::from([("e661".to_owned(), saved), ("e662".to_owned(), other)])
    }

    #[test]
    fn anchors_come_back_as_they_went() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        assert_eq!(load(&path).unwrap(), Anchors::new());
        for anchors in [Anchors::new(), anchors()] {
            save(&path, &anchors).unwrap();
            assert_eq!(load(&path).unwrap(), anchors);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_flipped_bit_costs_its_line_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        save(&path, &anchors()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let found = load(&path).unwrap();
            assert!(
                found.len() < 2 && found.iter().all(|(device, saved)| anchors().get(device) == Some(saved))
            );
        }
    }

    #[test]
    fn the_file_of_the_first_version_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        let first = include_str!("../../../tests/fixtures/clocks-1");
        std::fs::write(&path, first).unwrap();
        assert_eq!(load(&path).unwrap(), anchors());
        save(&path, &anchors()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first, "what is written has changed");
    }

    #[test]
    fn the_file_of_a_newer_version_is_kept_and_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        save(&path, &anchors()).unwrap();
        let text = "e663 of another kind";
        let newer = format!(
            "{}{text} {:08x}\n",
            std::fs::read_to_string(&path).unwrap(),
            crc32c::crc32c(text.as_bytes())
        );
        std::fs::write(&path, &newer).unwrap();
        assert_eq!(load(&path).unwrap(), anchors(), "what is understood counts");
        assert_eq!(load(&path).unwrap(), Anchors::new());
        save(&path, &anchors()).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("clocks.newer")).unwrap(), newer);
    }
}
