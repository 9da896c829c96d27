//! Calls that fail, or do less than they were asked: EIO of a sync, ENOSPC of a write, short writes.

use std::time::Duration;

use forebay_tests::clock::wait_for;
use forebay_tests::forgetting_fs::{BadSyncs, ForgettingFs};
use forebay_tests::ledger::acked_but_missing;
use forebay_tests::seed::{Rng, long};
use forebay_tests::strace::Strace;
use forebay_tests::world::{Load, Scratch, World, data_dir};

use crate::site::{
    Database, REACTION_LIMIT, acked, assert_acks_are_held, assert_alarm, assert_complete, await_acks,
    catch_up, finish, journal, log_length,
};

const LOAD: Load = Load { serial: 1, native: 3, json: 20, period: Duration::from_millis(50) };
const JOURNAL: &str = "max_bytes = \"2MiB\"";
const DISK_BYTES: u64 = 64 << 20;

/// The call of a thread at which faults begin: after any start, and before the thread that prepares segments has
/// made that many.
const FIRST: u64 = 25;

/// Starts a world without a database and puts its gateway under strace.
fn start_under(scratch: Scratch, database: &Database, strace: &Strace) -> anyhow::Result<World> {
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    database.link.cut();
    world.gateway.kill();
    acked(&world)?;
    world.gateway.launch_under(strace)?;
    Ok(world)
}

fn kill_and_resume(world: &mut World) -> anyhow::Result<()> {
    anyhow::ensure!(world.gateway.is_running(), "the gateway has ended by itself");
    world.gateway.kill();
    acked(world)?;
    world.gateway.resume()
}

#[test]
fn after_one_failed_sync_acks_go_on_and_the_file_is_never_synced_again() -> anyhow::Result<()> {
    let scratch = Scratch::new("one-failed-sync")?;
    let database = Database::start(&scratch)?;
    let log = scratch.path().join("calls");
    let strace = Strace::fail("fdatasync", "EIO", &FIRST.to_string(), "fsync", &log);
    let mut world = start_under(scratch, &database, &strace)?;
    let failed_at = wait_for("a failed sync", REACTION_LIMIT, || {
        let calls = strace.calls().map_err(|error| format!("{error:#}"))?;
        calls.iter().position(|call| call.injected).ok_or_else(|| format!("{} calls", calls.len()))
    })?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    world.gateway.await_ready()?;
    let calls = strace.calls()?;
    let failed = &calls[failed_at];
    let again = calls[failed_at + 1..].iter().filter(|call| call.path == failed.path).count();
    anyhow::ensure!(again == 0, "{} was synced {again} times after its sync had failed", failed.path);
    assert_eq!(calls.iter().filter(|call| call.injected).count(), 1);
    kill_and_resume(&mut world)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 300);
    scratch.passed();
    Ok(())
}

#[test]
fn when_every_sync_fails_nothing_is_acked_and_what_is_durable_is_delivered() -> anyhow::Result<()> {
    let scratch = Scratch::new("failed-syncs")?;
    let database = Database::start(&scratch)?;
    let log = scratch.path().join("calls");
    let strace = Strace::fail("fdatasync", "EIO", &format!("{FIRST}+"), "", &log);
    let mut world = start_under(scratch, &database, &strace)?;
    world.gateway.await_journal("the journal's failing", |state| state == "failed")?;
    assert_acks_are_held(&mut world)?;
    assert_alarm(&world.gateway, 0, &["journal"])?;
    let acked_until_then = acked(&world)?;
    database.link.mend();
    wait_for("the delivery of every acked row while the journal has failed", REACTION_LIMIT, || {
        let stored = database.read(world.since_ns).map_err(|error| format!("{error:#}"))?;
        match acked_but_missing(world.fleet.truths(), &stored) {
            0 => Ok(()),
            missing => Err(format!("{missing} of {acked_until_then} are missing")),
        }
    })?;
    world.gateway.await_journal("its still being failed", |state| state == "failed")?;
    kill_and_resume(&mut world)?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, acked_until_then + 300);
    scratch.passed();
    Ok(())
}

#[test]
fn writes_without_room_hold_acks_back_until_there_is_room() -> anyhow::Result<()> {
    let scratch = Scratch::new("no-room")?;
    let database = Database::start(&scratch)?;
    let log = scratch.path().join("calls");
    let strace = Strace::fail("pwrite64", "ENOSPC", &format!("{FIRST}..{}", FIRST + 5), "", &log);
    let mut world = start_under(scratch, &database, &strace)?;
    world.gateway.await_journal("the journal's being full", |state| state == "full")?;
    assert_alarm(&world.gateway, 0, &["room", "full", "space"])?;
    world.gateway.await_ready()?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    kill_and_resume(&mut world)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 300);
    scratch.passed();
    Ok(())
}

#[test]
fn short_writes_are_continued() -> anyhow::Result<()> {
    let scratch = Scratch::new("short-writes")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    database.link.cut();
    disk.limit_writes(Some(300));
    for seed in 0..3 {
        await_acks(&world, 300, REACTION_LIMIT)?;
        world.gateway.send_kill()?;
        disk.power_off();
        world.gateway.kill();
        acked(&world)?;
        disk.power_cut(seed);
        world.gateway.resume()?;
    }
    let short = disk.counts().short_writes;
    eprintln!("{short} writes were short");
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 900);
    assert!(short > 100);
    drop(disk);
    scratch.passed();
    Ok(())
}

#[test]
fn frames_of_a_failed_sync_are_written_anew_and_survive_the_power_cut() -> anyhow::Result<()> {
    let mut rng = Rng::announced("a failed sync and a power cut")?;
    let scratch = Scratch::new("failed-sync-power-cut")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    let rounds = if long() { 20 } else { 3 };
    for round in 1..=rounds {
        if rng.in_range(0..4) > 0 {
            database.link.cut();
        } else {
            database.link.mend();
        }
        disk.fail_syncs(BadSyncs::Once { after: rng.in_range(0..60) });
        wait_for("a failed sync", REACTION_LIMIT, || match disk.counts().failed_syncs {
            failed if failed >= round => Ok(()),
            failed => Err(format!("{failed} have failed; the journal says {}", journal(&world.gateway))),
        })?;
        await_acks(&world, rng.in_range(1..200), REACTION_LIMIT)?;
        world.gateway.send_kill()?;
        disk.power_off();
        world.gateway.kill();
        acked(&world)?;
        disk.power_cut(rng.next_u64());
        world.gateway.resume()?;
        catch_up(&world, &database)?;
    }
    eprintln!("{rounds} failed syncs, each with a power cut behind it");
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, rounds);
    drop(disk);
    scratch.passed();
    Ok(())
}

#[test]
fn what_was_acked_before_every_sync_failed_survives_the_power_cut() -> anyhow::Result<()> {
    let mut rng = Rng::announced("failed syncs and a power cut")?;
    let scratch = Scratch::new("failed-syncs-power-cut")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    for _ in 0..if long() { 20 } else { 2 } {
        database.link.cut();
        let from = log_length(&world.gateway)?;
        await_acks(&world, rng.in_range(1..300), REACTION_LIMIT)?;
        disk.fail_syncs(BadSyncs::All);
        world.gateway.await_journal("the journal's failing", |state| state == "failed")?;
        assert_alarm(&world.gateway, from, &["journal"])?;
        assert_acks_are_held(&mut world)?;
        world.gateway.send_kill()?;
        disk.power_off();
        world.gateway.kill();
        acked(&world)?;
        disk.power_cut(rng.next_u64());
        disk.fail_syncs(BadSyncs::None);
        world.gateway.resume()?;
        catch_up(&world, &database)?;
    }
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 2);
    drop(disk);
    scratch.passed();
    Ok(())
}
