//! A disk of 8 MiB, filled to the brim by the journal and by other files, while the database is away.

use std::time::Duration;

use forebay_tests::device::RING_BYTES;
use forebay_tests::mount::SmallDisk;
use forebay_tests::world::{Load, Scratch, World, data_dir};

use crate::site::{
    Database, REACTION_LIMIT, acked, assert_acks_are_held, assert_alarm, assert_complete, await_acks, finish,
    journal, log_length,
};

/// Some 3,000 messages a second, so that the disk fills soon, and native devices whose rings must keep what waits.
pub(crate) const FLOOD: Load = Load { serial: 1, native: 2, json: 30, period: Duration::from_millis(10) };

pub(crate) const DISK_BYTES: u64 = 8 << 20;

/// Words of which a warning about a full disk or journal has one.
const FULL: [&str; 3] = ["full", "room", "space"];

/// SIGKILL, and a start on the disk as it is; it need not acknowledge anything.
fn restart_full(world: &mut World) -> anyhow::Result<()> {
    anyhow::ensure!(world.gateway.is_running(), "the gateway has ended by itself");
    world.gateway.kill();
    acked(world)?;
    let from = log_length(&world.gateway)?;
    world.gateway.launch()?;
    world.gateway.await_journal("the journal's being full after a restart", |state| state == "full")?;
    assert_alarm(&world.gateway, from, &FULL)
}

#[test]
fn a_full_disk_holds_acks_back_survives_a_kill_and_goes_on_when_the_database_is_back() -> anyhow::Result<()> {
    let scratch = Scratch::new("full-disk")?;
    let disk = SmallDisk::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    database.link.cut();
    let mut world =
        World::start(scratch, FLOOD, database.tables("max_bytes = \"4MiB\"\nwhen_full = \"refuse\""))?;
    world.gateway.await_journal("the journal's being full", |state| state == "full")?;
    let filled = disk.fill()?;
    eprintln!(
        "the journal is full: {}; {filled} bytes of other files fill the disk",
        journal(&world.gateway)
    );
    assert_acks_are_held(&mut world)?;
    assert_alarm(&world.gateway, 0, &FULL)?;
    restart_full(&mut world)?;
    assert_acks_are_held(&mut world)?;
    // The other files stay: what is delivered must be enough to go on with.
    database.link.mend();
    await_acks(&world, 3_000, REACTION_LIMIT)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 10_000);
    drop(disk);
    scratch.passed();
    Ok(())
}

#[test]
fn other_files_that_fill_the_disk_first_do_the_journal_no_harm() -> anyhow::Result<()> {
    let scratch = Scratch::new("filled-disk")?;
    let disk = SmallDisk::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world =
        World::start(scratch, FLOOD, database.tables("max_bytes = \"4MiB\"\nwhen_full = \"refuse\""))?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    database.link.cut();
    disk.fill()?;
    world.gateway.await_journal("the journal's being full", |state| state == "full")?;
    disk.fill()?;
    assert_acks_are_held(&mut world)?;
    assert_alarm(&world.gateway, 0, &FULL)?;
    restart_full(&mut world)?;
    disk.make_room()?;
    // Room alone is enough: the database is still away.
    world.gateway.await_ready()?;
    await_acks(&world, 3_000, REACTION_LIMIT)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 3_000);
    drop(disk);
    scratch.passed();
    Ok(())
}

/// The default of `max_bytes` is 1 GiB. Whatever the journal can do with a disk that is smaller, it says that it is full,
/// does not crash, and goes on when the disk is enlarged.
#[test]
fn a_disk_smaller_than_max_bytes_is_full_and_never_a_crash() -> anyhow::Result<()> {
    let scratch = Scratch::new("small-disk")?;
    let disk = SmallDisk::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    database.link.cut();
    let mut world = World::start_by::<RING_BYTES>(
        scratch,
        FLOOD,
        database.tables("when_full = \"refuse\""),
        |gateway| {
            gateway.launch()?;
            gateway.await_journal("the gateway's answering", |_| true).map(drop)
        },
    )?;
    world.gateway.await_journal("the journal's being full", |state| state == "full")?;
    disk.fill()?;
    assert_acks_are_held(&mut world)?;
    assert_alarm(&world.gateway, 0, &FULL)?;
    restart_full(&mut world)?;
    eprintln!("on a disk of 8 MiB, {} rows were acknowledged", acked(&world)?);
    disk.resize(64 << 20)?;
    world.gateway.await_ready()?;
    await_acks(&world, 3_000, REACTION_LIMIT)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 3_000);
    drop(disk);
    scratch.passed();
    Ok(())
}
