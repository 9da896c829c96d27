//! What a reading costs in bytes: as the device sends it, and in other ways to send the same.
//!
//! Bytes are counted as they are on the line, with everything that a frame or line of text takes. The device's are those
//! that [`Dut::transmit`] gives, whatever its messages are; what it says besides rows is counted apart.

use anyhow::{Context as _, Result, ensure};
use forebay_shared::block::Form;
use forebay_shared::frame::{self, DELIMITER, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::{Boot, GroupId, Millis, Seq};
use forebay_shared::message::Data;
use forebay_shared::plain::PlainWriter;
use forebay_shared::reading::{Physical, Value};
use serde::Serialize;
use serde_json::{Map, json};

use super::Dut;
use super::gateway::{Gateway, is_data};
use super::series::{Row, Series};

/// Room for whatever the window leaves waiting.
const RING_BYTES: usize = 16 << 10;

/// So long that blocks are filled: as on a line that is busy, or that comes back.
const PATIENT_MS: u32 = 3_600_000;

/// Bytes a reading.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sizes {
    pub(super) device: f64,
    /// Of the device, where each row is sent as soon as it is sampled.
    pub(super) device_row_a_frame: f64,
    pub(super) plain_blocks: f64,
    pub(super) plain_row_a_frame: f64,
    pub(super) json: f64,
    pub(super) line_protocol: f64,
    /// Rows in a frame of the device.
    pub(super) rows_a_frame: f64,
}

/// What came over the line from a device.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Bytes of frames with rows, with the delimiters before them.
    pub(super) data_bytes: usize,
    pub(super) data_frames: usize,
    /// Those frames without the delimiters, as in one burst.
    pub(super) wire: Vec<u8>,
}

/// Measures one series.
pub(super) fn measure(series: &Series) -> Result<Sizes> {
    let readings = series.readings() as f64;
    let full = by_device(series, PATIENT_MS)?;
    let single = by_device(series, 0)?;
    ensure!(single.data_frames == series.rows.len(), "a row a frame was asked for");
    Ok(Sizes {
        device: full.data_bytes as f64 / readings,
        device_row_a_frame: single.data_bytes as f64 / readings,
        plain_blocks: plain(series, usize::MAX)? as f64 / readings,
        plain_row_a_frame: plain(series, 1)? as f64 / readings,
        json: json_bytes(series)? as f64 / readings,
        line_protocol: line_protocol_bytes(series) as f64 / readings,
        rows_a_frame: series.rows.len() as f64 / full.data_frames as f64,
    })
}

/// Lets a device send a series over a line that takes no time.
pub(super) fn by_device(series: &Series, linger_ms: u32) -> Result<Sent> {
    let mut device = super::device::<RING_BYTES>(series, linger_ms)?;
    let mut gateway = Gateway::new(0);
    gateway.open();
    let mut meter = Meter::default();
    let mut now = Millis(0);
    let mut settle = |device: &mut Dut<RING_BYTES>, pause_ms: u32, rounds: u32| -> Result<()> {
        now = now.plus(pause_ms);
        for _ in 0..rounds {
            // An ack waits 5 ms for company.
            now = now.plus(5);
            device.poll(now, series.rows[0].tick);
            while !device.transmit().is_empty() {
                let bytes = device.transmit().to_vec();
                device.sent(bytes.len());
                meter.take(&bytes);
                gateway.receive(now, &bytes)?;
                device.poll(now, series.rows[0].tick);
            }
            gateway.tend(now)?;
            device.receive(now, &gateway.transmit(usize::MAX));
        }
        Ok(())
    };
    settle(&mut device, 0, 20)?;
    for Row { tick, values } in &series.rows {
        device.record(*tick, GroupId(0), values)?;
        settle(&mut device, 0, 2)?;
    }
    // The last block waits for company that does not come.
    settle(&mut device, linger_ms, 20)?;
    ensure!(device.released() == device.next_sequence(), "not everything was sent");
    let counters = device.counters();
    ensure!(
        counters.evicted_rows == 0 && counters.repeated_blocks == 0,
        "the line was not clean: {counters:?}"
    );
    Ok(meter.sent)
}

/// Reads along, and tells frames with rows from the others.
#[derive(Default)]
struct Meter {
    decoder: Decoder,
    frame: Vec<u8>,
    sent: Sent,
}

impl Meter {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.frame.push(*byte);
            if let Some(Ok(message)) = self.decoder.next(&mut [*byte].as_slice()) {
                if is_data(message) {
                    self.sent.data_bytes += self.frame.len();
                    self.sent.data_frames += 1;
                    self.sent.wire.extend(self.frame.iter().skip_while(|byte| **byte == DELIMITER));
                }
                self.frame.clear();
            }
        }
    }
}

/// Bytes of frames with plain rows, at most so many in each.
fn plain(series: &Series, rows_max: usize) -> Result<usize> {
    let head = Data::head(Form::Plain, Boot::new(u32::MAX).context("not zero")?);
    let mut total = 0;
    let mut block = PlainWriter::new();
    let mut flush = |block: &mut PlainWriter| -> Result<()> {
        let mut out = [0; FRAME_BYTES_MAX];
        total += frame::encode(&[&head, block.bytes()], &mut out)?;
        block.clear();
        Ok(())
    };
    for (seq, Row { tick, values }) in (0..).map(Seq).zip(&series.rows) {
        if usize::from(block.rows()) == rows_max || block.push(seq, *tick, GroupId(0), values).is_err() {
            flush(&mut block)?;
            block.push(seq, *tick, GroupId(0), values).ok().context("an empty block takes every row")?;
        }
    }
    flush(&mut block)?;
    Ok(total)
}

/// A line of JSON a row, as most sketches print it.
fn json_bytes(series: &Series) -> Result<usize> {
    let line = |row: &Row| {
        let mut object = Map::new();
        object.insert("tick".into(), json!(row.tick.0));
        for (name, value) in fields(series, row) {
            let value = match value {
                Physical::Bool(value) => json!(value),
                Physical::Integer(value) => json!(value),
                Physical::Float(value) => json!(value),
            };
            object.insert(name.into(), value);
        }
        Ok(serde_json::to_string(&object)?.len() + 1)
    };
    series.rows.iter().map(line).sum()
}

/// A line of line protocol a row, with a nanosecond timestamp of this century.
fn line_protocol_bytes(series: &Series) -> usize {
    let line = |row: &Row| {
        let fields: Vec<String> = fields(series, row)
            .map(|(name, value)| match value {
                Physical::Bool(value) => format!("{name}={value}"),
                Physical::Integer(value) => format!("{name}={value}i"),
                Physical::Float(value) => format!("{name}={value}"),
            })
            .collect();
        let ns = 1_767_225_600_000_000_000 + row.tick.0 * (1_000_000_000 / u64::from(series.tick_hz));
        format!("{},device=boiler {} {ns}\n", series.group.name, fields.join(",")).len()
    };
    series.rows.iter().map(line).sum()
}

fn fields<'a>(series: &Series, row: &'a Row) -> impl Iterator<Item = (&'static str, Physical)> + use<'a> {
    let channels = series.group.channels.iter();
    let field = |(channel, value): (&'static forebay_shared::reading::Channel, &Option<Value>)| {
        Some((channel.name, (*value)?.physical(channel.scale)))
    };
    channels.zip(&row.values).filter_map(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::series;

    #[test]
    fn the_others_are_what_they_are_called() {
        let slow = series::all().unwrap().remove(0).cut(1);
        // {"temperature":19.99,"tick":1000000} and room,device=boiler temperature=19.99 1767226600000000000
        assert_eq!(json_bytes(&slow).unwrap(), 37);
        assert_eq!(line_protocol_bytes(&slow), 57);
        // Kind 1, boot 4, first 1, base 3, count 1, group 1, ticks 1, present 1, value 2, check 4, stuffing 1, end 1.
        assert_eq!(plain(&slow, 1).unwrap(), 21);
    }
}
