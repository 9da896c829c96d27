//! The file system that forgets, through the kernel and without the gateway: what the other tests take for granted.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use forebay_tests::forgetting_fs::{BadSyncs, ForgettingFs, ReadOnly};
use forebay_tests::world::Scratch;

/// Creates a file with this content, synced or not, and leaves its name unsynced.
fn write(path: &Path, content: &[u8], is_synced: bool) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    if is_synced { file.sync_data() } else { Ok(()) }
}

fn cut(disk: &ForgettingFs, seed: u64) {
    disk.power_off();
    disk.power_cut(seed);
}

#[test]
fn what_was_synced_is_there_after_every_power_cut_and_what_was_not_is_not_always() -> anyhow::Result<()> {
    let scratch = Scratch::new("forgetting")?;
    let top = scratch.path().join("disk");
    let disk = ForgettingFs::mount(&top, 1 << 20)?;
    let directory = top.join("d");
    fs::create_dir(&directory)?;
    File::open(&top)?.sync_all()?;
    let (mut nameless, mut damaged) = (0, 0);
    for seed in 0..40 {
        let [kept, renamed, unsynced] = ["kept", "renamed", "unsynced"].map(|name| directory.join(name));
        write(&directory.join("new"), &[7; 5000], true)?;
        fs::rename(directory.join("new"), &kept)?;
        write(&unsynced, &[8; 5000], false)?;
        File::open(&directory)?.sync_all()?;
        write(&directory.join("new"), &[9; 5000], true)?;
        fs::rename(directory.join("new"), &renamed)?;
        cut(&disk, seed);
        assert_eq!(fs::read(&kept)?, [7; 5000]);
        damaged += u32::from(fs::read(&unsynced)? != [8; 5000]);
        match fs::read(&renamed) {
            Ok(content) => assert_eq!(content, [9; 5000]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                nameless += 1;
            }
        }
        for entry in fs::read_dir(&directory)? {
            fs::remove_file(entry?.path())?;
        }
        File::open(&directory)?.sync_all()?;
    }
    assert!((5..39).contains(&nameless) && damaged > 30, "{nameless} {damaged}");
    drop(disk);
    scratch.passed();
    Ok(())
}

#[test]
fn each_fault_comes_as_the_error_that_a_disk_gives() -> anyhow::Result<()> {
    let scratch = Scratch::new("forgetting-faults")?;
    let top = scratch.path().join("disk");
    let disk = ForgettingFs::mount(&top, 64 << 10)?;
    let path = top.join("f");
    let mut file = File::create(&path)?;

    disk.limit_writes(Some(300));
    assert_eq!(file.write(&[1; 1000])?, 300);
    disk.limit_writes(None);
    let full = file.write_all(&vec![1; 128 << 10]).map_err(|error| error.kind());
    assert_eq!(full, Err(ErrorKind::StorageFull));
    assert!(fs::metadata(&path)?.len() > 60 << 10, "what finds room is written");
    file.set_len(512)?;

    disk.fail_syncs(BadSyncs::Once { after: 0 });
    assert_eq!(file.sync_data().map_err(|error| error.raw_os_error()), Err(Some(5)));
    file.sync_data()?;
    File::open(&top)?.sync_all()?;
    assert_eq!(fs::read(&path)?, [1; 512], "reads still show it");
    drop(file);
    cut(&disk, 1);
    assert!(fs::read(&path)?.iter().all(|&byte| byte == 0), "and the disk never got it");

    disk.set_read_only(ReadOnly::BetweenWrites);
    assert_eq!(
        File::create(top.join("g")).map(drop).map_err(|e| e.kind()),
        Err(ErrorKind::ReadOnlyFilesystem)
    );
    disk.set_read_only(ReadOnly::Never);
    write(&path, b"x", true)?;
    let counts = disk.counts();
    assert_eq!((counts.failed_syncs, counts.refused_read_only), (1, 1));
    drop(disk);
    scratch.passed();
    Ok(())
}
