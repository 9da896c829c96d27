//! Reading back from the embedded store's file, read-only, past the gateway.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};

use super::{GAP_MEASUREMENT, Stored, StoredGap, StoredRow, whole};
use crate::truth::NUMBER_FIELD;

/// Reads every row that carries a number, and every gap.
///
/// # Errors
/// The file cannot be read, or its tables are not the documented ones.
pub fn read(file: &Path) -> anyhow::Result<Stored> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store =
        Connection::open_with_flags(file, flags).with_context(|| format!("opening {}", file.display()))?;
    store.busy_timeout(Duration::from_secs(10))?;
    let mut statement = store.prepare(
        "SELECT s.measurement, s.device, s.tags, p.ns, p.fields FROM points p JOIN series s ON s.id = p.series",
    )?;
    let mut stored = Stored { resolution_ns: 1, ..Stored::default() };
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (measurement, device, tags): (String, Option<String>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let (ns, fields): (i64, String) = (row.get(3)?, row.get(4)?);
        let (tags, fields) = (object(&tags)?, object(&fields)?);
        let device = device.unwrap_or_default();
        if measurement == GAP_MEASUREMENT {
            stored
                .gaps
                .push(gap(device, &tags, &fields).with_context(|| format!("an incomplete gap: {fields:?}"))?);
        } else if let Some(number) = count(&fields, NUMBER_FIELD) {
            let others = fields.into_iter().filter(|(name, _)| name != NUMBER_FIELD);
            let fields = others.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect();
            stored.rows.push(StoredRow { device, number, ns, fields });
        }
    }
    Ok(stored)
}

fn object(text: &str) -> anyhow::Result<Map<String, Value>> {
    serde_json::from_str(text).with_context(|| format!("a column that is no JSON object: {text:.100}"))
}

fn count(fields: &Map<String, Value>, name: &str) -> Option<u64> {
    let value = fields.get(name)?;
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn gap(device: String, tags: &Map<String, Value>, fields: &Map<String, Value>) -> Option<StoredGap> {
    Some(StoredGap {
        device,
        cause: tags.get("cause").and_then(Value::as_str).unwrap_or_default().to_owned(),
        boot: u32::try_from(count(fields, "boot")?).ok()?,
        from: count(fields, "from")?,
        to: count(fields, "to")?,
        count: count(fields, "count")?,
    })
}
