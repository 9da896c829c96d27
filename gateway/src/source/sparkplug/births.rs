//! What births told, and the file in which that outlives the gateway.
//!
//! In: the births and deaths of one broker's edge nodes. Out: names and types of metrics that come by their number.
//!
//! Format: the magic `FOREBAYS`, a version byte, the CRC-32C of what follows, and in postcard a list of group, edge
//! node and [`Node`]. The file is written anew under another name, synced, and put in the place of the old one.
//!
//! **Failure.** Nothing here is needed for a promise: without the file, births are asked for again, and what comes
//! before them by number alone is kept among the dead letters. So a damaged file is passed over, and one of a newer version
//! is set aside under another name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::{Metric, Payload};
use super::topic::NodeId;

/// Longest name of a metric, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1_024;

/// Edge nodes of one broker that are alive.
pub(super) const NODES_MAX: usize = 4_096;

/// Devices of one edge node that are alive.
pub(super) const DEVICES_MAX: usize = 1_024;

/// What the births of one broker's nodes may take all in all.
pub(super) const BIRTHS_BYTES_MAX: usize = 16 << 20;

/// What a metric or a device takes beside its name.
const METRIC_BYTES: usize = 48;

/// A file beyond this is none of ours.
const FILE_BYTES_MAX: u64 = 4 * BIRTHS_BYTES_MAX as u64;

const MAGIC: [u8; 8] = *b"FOREBAYS";
const VERSION: u8 = 1;

/// What the name of a file of a newer version ends in, once it is set aside.
const ASIDE: &str = "newer";

/// Why nothing is known from an earlier life.
#[derive(Debug, Error)]
pub(super) enum Unread {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error(
        "it has format {version}, which this version does not know, and is kept as {} for the version that wrote it", aside.display()
    )]
    Newer { version: u8, aside: PathBuf },
}

/// Edge nodes by group and name.
pub(super) type Nodes = BTreeMap<NodeId, Node>;

/// An edge node as its last birth has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Node {
    /// What its death will have too.
    pub(super) bd_seq: Option<u64>,
    /// When it was born, in milliseconds since 1970, by its own word.
    pub(super) born_ms: Option<u64>,
    /// Not dead. The dead have no tables, for the next birth may number anew.
    pub(super) is_alive: bool,
    pub(super) table: Table,
    pub(super) devices: BTreeMap<String, Device>,
    /// Of the last message; not known after a start.
    #[serde(skip)]
    pub(super) seq: Option<u8>,
    /// Why its births are to be asked for, as soon as that is allowed.
    #[serde(skip)]
    pub(super) wanted: Option<String>,
}

/// A device as its last birth has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) is_alive: bool,
    pub(super) table: Table,
}

/// The metrics of a birth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Table {
    names: BTreeMap<u64, String>,
    types: BTreeMap<String, u32>,
    /// What it takes in memory, about.
    pub(super) bytes: usize,
}

impl Table {
    /// What a birth tells; names that are too long are left out.
    pub(super) fn of(payload: &Payload<'_>) -> Table {
        let mut table = Table::default();
        for metric in &payload.metrics {
            let Metric { name: Some(name), alias, datatype, .. } = metric else { continue };
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                continue;
            }
            if let Some(alias) = alias {
                table.names.insert(*alias, (*name).to_owned());
                table.bytes += name.len() + METRIC_BYTES;
            }
            table.types.insert((*name).to_owned(), datatype.unwrap_or_default());
            table.bytes += name.len() + METRIC_BYTES;
        }
        table
    }

    pub(super) fn name(&self, alias: u64) -> Option<&str> {
        self.names.get(&alias).map(String::as_str)
    }

    pub(super) fn datatype(&self, name: &str) -> Option<u32> {
        self.types.get(name).copied().filter(|datatype| *datatype != 0)
    }
}

impl Node {
    pub(super) fn bytes(&self) -> usize {
        let devices =
            self.devices.iter().map(|(name, device)| name.len() + METRIC_BYTES + device.table.bytes);
        self.table.bytes + devices.sum::<usize>()
    }
}

/// Reads what an earlier life left. A file of a newer version is set aside under another name, for whoever goes back to that.
pub(super) fn load(path: &Path) -> Result<Nodes, Unread> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Nodes::new()),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX), &mut bytes)?;
    if let Some(version) = newer(&bytes) {
        let aside = path.with_added_extension(ASIDE);
        std::fs::rename(path, &aside)?;
        return Err(Unread::Newer { version, aside });
    }
    parse(&bytes).ok_or(Unread::Damaged)
}

/// The version of an intact file, if it is a newer one. The checksum has the same place in every version.
fn newer(bytes: &[u8]) -> Option<u8> {
    let (version, rest) = bytes.strip_prefix(&MAGIC)?.split_first()?;
    let (checksum, body) = rest.split_first_chunk()?;
    let is_intact = u32::from_le_bytes(*checksum) == crc32c::crc32c(body);
    Some(*version).filter(|version| is_intact && *version > VERSION)
}

fn parse(bytes: &[u8]) -> Option<Nodes> {
    let (version, rest) = bytes.strip_prefix(&MAGIC)?.split_first()?;
    let (checksum, body) = rest.split_first_chunk()?;
    if *version != VERSION {
        return None;
    }
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(body) {
        return None;
    }
    postcard::from_bytes::<Vec<(NodeId, Node)>>(body).ok().map(|nodes| nodes.into_iter().collect())
}

/// Puts the nodes in the place of those that are in the file.
pub(super) fn save(path: &Path, nodes: &Nodes) -> io::Result<()> {
    let bytes = written(nodes)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.exists() {
        std::fs::create_dir_all(directory)?;
        directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
    }
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

fn written(nodes: &Nodes) -> io::Result<Vec<u8>> {
    let listed: Vec<(&NodeId, &Node)> = nodes.iter().collect();
    let body = postcard::to_allocvec(&listed).map_err(io::Error::other)?;
    Ok([&MAGIC[..], &[VERSION], &crc32c::crc32c(&body).to_le_bytes(), &body].concat())
}

/// What is written is read again, but for what a start does not know. See `crate::fuzzing`.
pub(super) fn hold(nodes: &Nodes) {
    let mut kept = nodes.clone();
    kept.values_mut().for_each(|node| (node.seq, node.wanted) = (None, None));
    let read = written(nodes).ok().and_then(|bytes| parse(&bytes));
    assert_eq!(read, Some(kept));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sparkplug::message::Raw;

    fn nodes() -> Nodes {
        let metric = |name, alias, datatype| Metric {
            name: Some(name),
            alias: Some(alias),
            datatype: Some(datatype),
            value: Some(Raw::Int(1)),
            ..Metric::default()
        };
        let table = Table::of(&Payload {
            metrics: vec![metric("Supply", 3, 3), metric("a/b", u64::MAX, 0)],
            ..Payload::default()
        });
        let device = Device { is_alive: true, table: table.clone() };
        let node = Node {
            bd_seq: Some(7),
            born_ms: Some(1_700_000_000_000),
            is_alive: true,
            table,
            devices: BTreeMap::from([("motor".to_owned(), device)]),
            ..Node::default()
        };
        Nodes::from([(("plant".to_owned(), "line".to_owned()), node)])
    }

    #[test]
    fn a_table_knows_names_by_number_and_types_by_name() {
        let nodes = nodes();
        let table = &nodes.values().next().unwrap().table;
        assert_eq!((table.name(3), table.name(4), table.name(u64::MAX)), (Some("Supply"), None, Some("a/b")));
        assert_eq!(
            (table.datatype("Supply"), table.datatype("a/b"), table.datatype("c")),
            (Some(3), None, None)
        );
    }

    #[test]
    fn births_come_back_as_they_went_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparkplug/1f");
        assert_eq!(load(&path).unwrap(), Nodes::new());
        for nodes in [Nodes::new(), nodes()] {
            save(&path, &nodes).unwrap();
            assert_eq!(load(&path).unwrap(), nodes);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            // Upwards, the version would be a newer one.
            damaged[at] ^= if at == MAGIC.len() { 1 } else { 0x10 };
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(load(&path).unwrap_err().to_string(), "it is damaged");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(load(&path).is_err());
        }
    }

    #[test]
    fn the_file_of_version_1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1f");
        std::fs::write(&path, include_bytes!("../../../tests/fixtures/sparkplug-1")).unwrap();
        assert_eq!(load(&path).unwrap(), nodes());
        save(&path, &nodes()).unwrap();
        let same = std::fs::read(&path).unwrap() == include_bytes!("../../../tests/fixtures/sparkplug-1");
        assert!(same, "what is written has changed; a new version has a new number and a file of its own");
    }

    #[test]
    fn the_file_of_a_newer_version_is_set_aside_and_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1f");
        save(&path, &nodes()).unwrap();
        let mut newer = std::fs::read(&path).unwrap();
        newer[MAGIC.len()] = 2;
        std::fs::write(&path, &newer).unwrap();
        let said = load(&path).unwrap_err().to_string();
        assert!(said.contains("format 2") && said.contains("1f.newer"), "{said}");
        assert_eq!(load(&path).unwrap(), Nodes::new());
        save(&path, &nodes()).unwrap();
        assert_eq!(std::fs::read(directory.path().join("1f.newer")).unwrap(), newer);
    }
}
