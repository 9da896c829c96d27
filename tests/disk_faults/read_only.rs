//! The file system turns read-only under the running gateway, as after an error of the disk or by an operator's remount.

use std::time::Duration;

use forebay_tests::clock::wait_for;
use forebay_tests::forgetting_fs::{ForgettingFs, ReadOnly};
use forebay_tests::world::{Load, Scratch, World, data_dir};

use crate::site::{
    Database, REACTION_LIMIT, acked, assert_acks_are_held, assert_alarm, assert_complete, await_acks, finish,
    journal,
};

const LOAD: Load = Load { serial: 1, native: 3, json: 20, period: Duration::from_millis(50) };
const JOURNAL: &str = "max_bytes = \"2MiB\"";
const DISK_BYTES: u64 = 64 << 20;

/// Turns read-only at that moment, and writable again; then cuts the power, which must find everything that was acked.
fn read_only_for_a_while(name: &str, when: ReadOnly) -> anyhow::Result<()> {
    let scratch = Scratch::new(name)?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    database.link.cut();
    disk.set_read_only(when);
    wait_for("the file system's turning read-only", REACTION_LIMIT, || {
        if disk.is_read_only() { Ok(()) } else { Err(journal(&world.gateway)) }
    })?;
    let state = world.gateway.await_journal("the journal's noticing", |state| state != "running")?;
    assert_acks_are_held(&mut world)?;
    assert_alarm(&world.gateway, 0, &["read-only", "read only", "room", "full", "cannot be written"])?;
    anyhow::ensure!(world.gateway.is_running(), "the gateway has ended by itself");
    let refused = disk.counts().refused_read_only;
    eprintln!("read-only: the journal is {state}; {refused} calls were refused");
    disk.set_read_only(ReadOnly::Never);
    world.gateway.await_ready()?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    world.gateway.send_kill()?;
    disk.power_off();
    world.gateway.kill();
    acked(&world)?;
    disk.power_cut(1);
    world.gateway.resume()?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 600);
    drop(disk);
    scratch.passed();
    Ok(())
}

#[test]
fn a_read_only_remount_between_two_commits_holds_acks_back_until_it_is_undone() -> anyhow::Result<()> {
    read_only_for_a_while("read-only", ReadOnly::BetweenWrites)
}

#[test]
fn a_read_only_remount_between_write_and_sync_holds_acks_back_until_it_is_undone() -> anyhow::Result<()> {
    read_only_for_a_while("read-only-mid-commit", ReadOnly::BeforeSync)
}
