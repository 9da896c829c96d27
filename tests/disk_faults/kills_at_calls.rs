//! SIGKILL at the first, second, third … write, sync and rename of a life, which walks through start, commits, rotation
//! and trimming.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use forebay_tests::process::as_f64;
use forebay_tests::seed::{Rng, long};
use forebay_tests::strace::Strace;
use forebay_tests::world::{Load, Scratch, World};

use crate::site::{Database, acked, assert_complete, catch_up, finish};

/// Some 500 messages a second, ten at a time, so that a call with a high number comes soon, and a few native devices.
const LOAD: Load = Load { serial: 1, native: 2, json: 10, period: Duration::from_millis(20) };

/// Segments of 128 KiB, the smallest there are. A life that waits long for its call fills the journal, and no row may make
/// room then: whatever is missing was lost by a kill.
const JOURNAL: &str = "max_bytes = \"2MiB\"\nwhen_full = \"refuse\"";

/// How long a life may take to come to its call.
const LIFE_LIMIT: Duration = Duration::from_secs(10);

/// Lives between two that nothing disturbs, in which the database catches up.
const LIVES_BETWEEN: usize = 5;

/// Which call, and which number of it, life by life.
fn plan() -> Vec<(&'static str, u64)> {
    let each = |call: &'static str, numbers: &[u64]| numbers.iter().map(|&n| (call, n)).collect::<Vec<_>>();
    if !long() {
        let often = [1, 2, 3, 5, 8, 12, 17, 25, 40, 60, 90];
        let seldom = [1, 2, 3];
        return [
            each("fdatasync", &often),
            each("pwrite64", &often),
            each("rename", &seldom),
            each("fsync", &seldom),
        ]
        .concat();
    }
    let (often, seldom): (Vec<u64>, Vec<u64>) = ((1..=132).collect(), (1..=6).collect());
    let walk = [each("fdatasync", &often), each("pwrite64", &often)].concat();
    [each("rename", &seldom), each("fsync", &seldom), walk.clone(), walk].concat()
}

#[test]
fn no_kill_at_a_call_loses_an_acked_row() -> anyhow::Result<()> {
    let mut rng = Rng::announced("kills at calls")?;
    let scratch = Scratch::new("kills-at-calls")?;
    let database = Database::start(&scratch)?;
    let log = scratch.path().join("calls");
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    world.gateway.kill();
    let (mut kills, mut missed) = (0_u64, Vec::new());
    let begun = Instant::now();
    for (life, (call, nth)) in plan().into_iter().enumerate() {
        if life % LIVES_BETWEEN == LIVES_BETWEEN - 1 {
            database.link.mend();
            world.gateway.resume()?;
            catch_up(&world, &database)?;
            world.gateway.kill();
            acked(&world)?;
        }
        // While the database is away, the journal alone has what was acknowledged.
        if rng.in_range(0..3) == 0 {
            database.link.mend();
        } else {
            database.link.cut();
        }
        world.gateway.launch_under(&Strace::kill_at(call, nth, &log))?;
        let ended = world.gateway.wait_for_end(LIFE_LIMIT);
        acked(&world)?;
        match ended {
            Some(status) if status.signal() == Some(9) => kills += 1,
            Some(status) => anyhow::bail!("before its {call} number {nth}, the gateway ended with {status}"),
            None => missed.push(format!("{call} {nth}")),
        }
    }
    let seconds = begun.elapsed().as_secs().max(1);
    eprintln!(
        "{kills} kills at calls in {seconds} s, {:.0} lives a minute; not reached: {missed:?}",
        as_f64(kills * 60) / as_f64(seconds)
    );
    database.link.mend();
    world.gateway.resume()?;
    world.run(Duration::from_secs(1))?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 500);
    assert!(kills >= if long() { 500 } else { 25 }, "only {kills} kills");
    scratch.passed();
    Ok(())
}
