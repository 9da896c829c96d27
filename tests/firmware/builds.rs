//! The chips that the firmware builds for, and the file for the Raspberry Pi Pico.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use forebay_tests::seed::long;

/// Chips of another kind altogether, with a floating-point unit, and without compare-and-swap.
const TARGETS: [&str; 3] = ["riscv32imc-unknown-none-elf", "thumbv7em-none-eabihf", "thumbv6m-none-eabi"];

fn cross(target: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in no checkout")?;
    let mut command = Command::new(root.join("firmware/boards/cross"));
    command.current_dir(root).arg(target).args(arguments).arg("--locked");
    let status = command.status().context("running firmware/boards/cross")?;
    anyhow::ensure!(status.success(), "for {target}: {status}");
    Ok(())
}

#[test]
fn the_core_crate_builds_for_other_chips() -> anyhow::Result<()> {
    // What the costs are measured on, a Cortex-M0 and an M3, is built for in every run.
    for target in if long() { &TARGETS[..] } else { &TARGETS[..1] } {
        cross(target, &["build", "--release", "-p", "forebay-firmware", "--features", "sensor"])?;
    }
    Ok(())
}

fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let status =
        Command::new(program).args(arguments).status().context("running a script of firmware/boards")?;
    anyhow::ensure!(status.success(), "{} {arguments:?}: {status}", program.display());
    Ok(())
}

/// The flash that a UF2 file fills: each block's address and content.
fn blocks(file: &[u8]) -> anyhow::Result<Vec<(u32, &[u8])>> {
    let word = |block: &[u8], at: usize| {
        let bytes = block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).context("a block is cut off")
    };
    let mut blocks = Vec::new();
    for block in file.chunks(512) {
        let known = (word(block, 0)?, word(block, 4)?, word(block, 8)?, word(block, 28)?, word(block, 508)?);
        anyhow::ensure!(known == (0x0a32_4655, 0x9e5d_5157, 0x2000, 0xe48b_ff56, 0x0ab1_6f30), "{known:x?}");
        blocks.push((word(block, 12)?, block.get(32..288).context("a block is cut off")?));
    }
    Ok(blocks)
}

#[test]
fn the_picos_file_is_what_its_boot_rom_takes() -> anyhow::Result<()> {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/boards");
    let variants: &[&[&str]] =
        if long() { &[&["uart", "climate"], &["climate"], &["uart"], &[]] } else { &[&[]] };
    for features in variants {
        run(&boards.join("build-pico"), features)?;
    }
    let file = std::fs::read(boards.join("rp2040/forebay-pico.uf2"))?;
    let blocks = blocks(&file)?;
    let addresses: Vec<u32> = blocks.iter().map(|(address, _)| *address).collect();
    let expected: Vec<u32> = (0x1000_0000..).step_by(256).take(blocks.len()).collect();
    assert_eq!(addresses, expected, "page by page from the start of the flash");
    // The boot ROM checks the second stage, and that ends in its checksum; behind it is the vector table, with the
    // stack's end in the chip's 264 KiB of memory, and then the code's start in its flash.
    let (second_stage, vectors) = (blocks[0].1, blocks[1].1);
    assert!(second_stage[252..].iter().any(|byte| *byte != 0), "a second stage without a checksum");
    let vector =
        |at: usize| u32::from_le_bytes([vectors[at], vectors[at + 1], vectors[at + 2], vectors[at + 3]]);
    assert!((0x2000_0000..=0x2004_2000).contains(&vector(0)), "{:x}", vector(0));
    assert!((0x1000_01c0..0x1000_0000 + 256 * blocks.len() as u32).contains(&vector(4)), "{:x}", vector(4));
    Ok(())
}
