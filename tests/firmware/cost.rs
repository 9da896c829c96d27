//! Flash, memory, stack and instructions, against what the firmware may cost at most.

use std::path::Path;

use anyhow::Context as _;
use forebay_tests::board::{build, emulator, run_to_end};
use serde_json::Value;

/// What a device may add to the flash of a Cortex-M0 program.
const FLASH_BYTES_MAX: u64 = 8 * 1024;

/// What one may add whose ring outlives a reset.
const RESUMABLE_FLASH_BYTES_MAX: u64 = 12 * 1024;

/// What a device of four channels may take beside its ring.
const BESIDE_THE_RING_BYTES_MAX: u64 = 384;

/// The same where the ring outlives a reset, with what is kept for that.
const RESUMABLE_BESIDE_THE_RING_BYTES_MAX: u64 = 592;

/// What a row of one channel may take, from its recording to its release.
const INSTRUCTIONS_MAX: u64 = 1000;

#[test]
fn a_device_adds_little_to_a_programs_flash() -> anyhow::Result<()> {
    let build = |features| build("measure", "flash", "thumbv6m-none-eabi", features);
    let without = flash_bytes(&build("")?)?;
    let with = flash_bytes(&build("device")?)?;
    eprintln!("flash on thumbv6m: {with} bytes with a device, {without} without: {} for it", with - without);
    assert!(without > 0, "an empty program");
    assert!(with - without <= FLASH_BYTES_MAX);
    let resumable = flash_bytes(&build("resume")?)?;
    eprintln!("with a ring that outlives a reset: {}", resumable - without);
    assert!(resumable - without <= RESUMABLE_FLASH_BYTES_MAX);
    Ok(())
}

#[test]
fn a_device_needs_little_memory_and_few_instructions() -> anyhow::Result<()> {
    let program = build("measure", "cost", "thumbv7m-none-eabi", "")?;
    let mut emulator = emulator("mps2-an385", &program, &[])?;
    emulator.args(["-icount", "shift=0"]);
    let said = run_to_end(emulator)?;
    let report: Value = serde_json::from_str(&said).with_context(|| format!("no report: {said}"))?;
    eprintln!("on thumbv7m: {report}");
    let figure = |name: &str| report.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
    let (one, four) = (figure("instructions_1_channel")?, figure("instructions_4_channels")?);
    let recording = figure("to_record_1_channel")?;
    assert!(recording > 100 && one > recording && four > one, "nothing was measured");
    assert!(figure("stack_bytes")? > 100, "no stack was measured");
    let resumable = figure("resumable_instructions_1_channel")?;
    assert!(one <= INSTRUCTIONS_MAX, "{one} instructions a row");
    assert!(one < resumable && resumable <= INSTRUCTIONS_MAX, "{resumable} instructions a resumable row");
    let bytes = figure("beside_the_ring_bytes")?;
    assert!(bytes <= BESIDE_THE_RING_BYTES_MAX, "{bytes} bytes beside the ring");
    let bytes = figure("resumable_beside_the_ring_bytes")?;
    assert!(
        bytes <= RESUMABLE_BESIDE_THE_RING_BYTES_MAX,
        "{bytes} bytes beside a ring that outlives a reset"
    );
    Ok(())
}

/// What a 32-bit ELF file puts into flash: the bytes of all segments that are loaded.
fn flash_bytes(program: &Path) -> anyhow::Result<u64> {
    let file = std::fs::read(program)?;
    let bytes = |at: usize, count: usize| file.get(at..at + count).context("the file is cut off");
    let half = |at| bytes(at, 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let word = |at| bytes(at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    anyhow::ensure!(file.starts_with(b"\x7fELF\x01\x01"), "no 32-bit ELF file");
    let (table, entry_bytes, entries) = (usize::try_from(word(28)?)?, half(42)?, half(44)?);
    let mut total = 0;
    for entry in 0..entries {
        let at = table + entry * entry_bytes;
        // The kind 1 is loaded; the size in the file follows four words later.
        total += if word(at)? == 1 { u64::from(word(at + 16)?) } else { 0 };
    }
    Ok(total)
}
