//! Makes of a linked program for the RP2040 (ELF) the file that its boot ROM takes by drag and drop (UF2).
//!
//! A UF2 file is a row of blocks of 512 bytes. Each says where in the flash its 256 bytes belong, which block it is and
//! of how many, and for which chip. The boot ROM erases and writes page by page, so that each page of 256 bytes is in
//! one block, filled up with zeros.
//!
//! Failure: what is no such program, or would not lie in the flash, is refused with the reason, and nothing is written.

use std::collections::BTreeMap;
use std::process::ExitCode;

const PAGE_BYTES: usize = 256;
const BLOCK_BYTES: usize = 512;
const FLASH: std::ops::Range<u64> = 0x1000_0000..0x1100_0000;
const MAGIC: [u32; 2] = [0x0a32_4655, 0x9e5d_5157];
const MAGIC_END: u32 = 0x0ab1_6f30;
/// The chip's family is given in each block.
const FLAG_FAMILY: u32 = 0x2000;
const RP2040: u32 = 0xe48b_ff56;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [program, output] = &arguments[..] else {
        eprintln!("usage: forebay-uf2 PROGRAM.elf OUTPUT.uf2");
        return ExitCode::from(2);
    };
    let read = std::fs::read(program).map_err(|error| error.to_string());
    let made = read.and_then(|elf| convert(&elf).map_err(str::to_owned));
    match made.and_then(|uf2| std::fs::write(output, uf2).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("forebay-uf2: {}: {reason}", program.display());
            ExitCode::FAILURE
        }
    }
}

/// The UF2 file of a program.
fn convert(elf: &[u8]) -> Result<Vec<u8>, &'static str> {
    let pages = pages(elf)?;
    let count = u32::try_from(pages.len()).map_err(|_| "the program is too long")?;
    let mut file = Vec::with_capacity(pages.len() * BLOCK_BYTES);
    for (number, (address, page)) in (0_u32..).zip(&pages) {
        let start = file.len();
        for word in MAGIC.into_iter().chain([FLAG_FAMILY, *address, PAGE_BYTES as u32, number, count, RP2040])
        {
            file.extend(word.to_le_bytes());
        }
        file.extend(page);
        file.resize(start + BLOCK_BYTES - size_of::<u32>(), 0);
        file.extend(MAGIC_END.to_le_bytes());
    }
    Ok(file)
}

/// What a program puts into the flash, page by page.
fn pages(elf: &[u8]) -> Result<BTreeMap<u32, [u8; PAGE_BYTES]>, &'static str> {
    let cut_off = "the file is cut off";
    let bytes = |at: usize, count: usize| {
        let end = at.checked_add(count)?;
        elf.get(at..end)
    };
    let half = |at| bytes(at, 2).and_then(|b| Some(u16::from_le_bytes(b.try_into().ok()?))).ok_or(cut_off);
    let word = |at| bytes(at, 4).and_then(|b| Some(u32::from_le_bytes(b.try_into().ok()?))).ok_or(cut_off);
    // 32 bits, little-endian, for ARM.
    if !elf.starts_with(b"\x7fELF\x01\x01") || half(18)? != 40 {
        return Err("this is no program for ARM");
    }
    let (table, entry_bytes, entries) = (word(28)? as usize, usize::from(half(42)?), half(44)?);
    let mut pages = BTreeMap::new();
    for entry in 0..usize::from(entries) {
        let at = table + entry * entry_bytes;
        let (kind, offset, address, len) = (word(at)?, word(at + 4)?, word(at + 12)?, word(at + 16)?);
        if kind != 1 || len == 0 {
            continue;
        }
        let end = u64::from(address) + u64::from(len);
        if !FLASH.contains(&u64::from(address)) || end > FLASH.end {
            return Err("a part of the program lies outside of the flash");
        }
        for (address, byte) in (address..).zip(bytes(offset as usize, len as usize).ok_or(cut_off)?) {
            let within = address as usize % PAGE_BYTES;
            let page = pages.entry(address - within as u32).or_insert([0; PAGE_BYTES]);
            page[within] = *byte;
        }
    }
    if pages.is_empty() { Err("the program is empty") } else { Ok(pages) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of one segment.
    fn elf(address: u32, content: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 52];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[18] = 40;
        file[28] = 52;
        file[42] = 32;
        file[44] = 1;
        for word in [1, 84, 0, address, content.len() as u32, content.len() as u32, 0, 0] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(content);
        file
    }

    fn words(block: &[u8]) -> Vec<u32> {
        block.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn a_program_becomes_whole_pages_in_order() {
        let content: Vec<u8> = (1..=255).collect();
        let file = convert(&elf(0x1000_01f0, &content)).unwrap();
        assert_eq!(file.len(), 2 * BLOCK_BYTES);
        let (first, second) = (words(&file[..BLOCK_BYTES]), words(&file[BLOCK_BYTES..]));
        assert_eq!(first[..8], [0x0a32_4655, 0x9e5d_5157, 0x2000, 0x1000_0100, 256, 0, 2, 0xe48b_ff56]);
        assert_eq!(second[..8], [0x0a32_4655, 0x9e5d_5157, 0x2000, 0x1000_0200, 256, 1, 2, 0xe48b_ff56]);
        assert_eq!((first[127], second[127]), (0x0ab1_6f30, 0x0ab1_6f30));
        assert_eq!(file[32 + 0xf0..32 + 0x100], content[..16]);
        assert!(file[32..32 + 0xf0].iter().all(|byte| *byte == 0));
        assert_eq!(file[BLOCK_BYTES + 32..BLOCK_BYTES + 32 + 239], content[16..]);
        assert!(file[BLOCK_BYTES + 32 + 239..2 * BLOCK_BYTES - 4].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_program_for_the_flash_is_refused() {
        assert_eq!(convert(b"MZ"), Err("this is no program for ARM"));
        assert_eq!(convert(&elf(0x2000_0000, &[1])), Err("a part of the program lies outside of the flash"));
        assert_eq!(
            convert(&elf(0x10ff_ffff, &[1, 2])),
            Err("a part of the program lies outside of the flash")
        );
        assert_eq!(convert(&elf(0x1000_0000, &[])), Err("the program is empty"));
        let whole = elf(0x1000_0000, &[1; 300]);
        for len in 20..whole.len() {
            assert_eq!(convert(&whole[..len]), Err("the file is cut off"), "at {len}");
        }
        let mut strange = elf(0x1000_0000, &[1]);
        strange[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(convert(&strange), Err("the file is cut off"));
    }
}
