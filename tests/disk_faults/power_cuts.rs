//! The power fails: the gateway dies, and the disk forgets what was not synced.

use std::time::{Duration, Instant};

use forebay_tests::forgetting_fs::{Damage, ForgettingFs, Freeze};
use forebay_tests::seed::{Rng, long};
use forebay_tests::world::{Load, Scratch, World, data_dir};

use crate::site::{Database, REACTION_LIMIT, acked, assert_complete, await_acks, catch_up, finish};

/// 26 devices of every kind, together some 1,300 rows a second.
const LOAD: Load = Load { serial: 2, native: 4, json: 20, period: Duration::from_millis(20) };

/// Segments of 256 KiB, so that the cuts meet rotation, trimming and recycling.
const JOURNAL: &str = "max_bytes = \"4MiB\"";

/// Room for that, and much more.
const DISK_BYTES: u64 = 64 << 20;

fn cuts_wanted() -> u64 {
    if long() { 200 } else { 20 }
}

/// Takes the power away at moments that its seed chooses.
struct PowerCuts<'a> {
    disk: &'a ForgettingFs,
    rng: Rng,
    cuts: u64,
    kills: u64,
    cut_in_start: u64,
    damage: Damage,
}

impl PowerCuts<'_> {
    /// One round from a running gateway to the next one.
    fn round(&mut self, world: &mut World, database: &Database) -> anyhow::Result<()> {
        self.disk.slow_syncs_down(Duration::from_millis(self.rng.in_range(0..5)));
        // While the database is away, the journal alone has what was acknowledged.
        if self.rng.in_range(0..4) > 0 {
            database.link.cut();
        }
        self.come_to(Duration::from_millis(900), 200)?;
        match self.rng.in_range(0..6) {
            0 | 1 => self.cut(world)?,
            2 => {
                self.cut(world)?;
                self.start(world)?;
                self.cut_in_start += 1;
                self.cut(world)?;
            }
            3 => {
                self.kill(world)?;
                self.disk.power_on();
                self.start(world)?;
                self.cut_in_start += 1;
                self.cut(world)?;
            }
            // What recovery finds in the memory of the kernel only is acknowledged, when the broker delivers it again, and
            // must then not be lost.
            _ => {
                self.kill(world)?;
                self.disk.power_on();
                world.gateway.resume()?;
                await_acks(world, self.rng.in_range(1..100), REACTION_LIMIT)?;
                self.cut(world)?;
            }
        }
        database.link.mend();
        world.gateway.resume()?;
        catch_up(world, database)
    }

    /// Starts the gateway and comes to a moment of its start.
    fn start(&mut self, world: &mut World) -> anyhow::Result<()> {
        world.gateway.launch()?;
        self.come_to(Duration::from_millis(250), 40)
    }

    /// Waits for a moment: a time, or a call that the disk leaves unanswered.
    fn come_to(&mut self, time_max: Duration, changes_max: u64) -> anyhow::Result<()> {
        let when = match self.rng.in_range(0..3) {
            0 => {
                let most = u64::try_from(time_max.as_millis())?;
                std::thread::sleep(Duration::from_millis(self.rng.in_range(0..most)));
                return Ok(());
            }
            1 => Freeze::AfterChanges(self.rng.in_range(0..changes_max)),
            _ => Freeze::AfterSyncs(self.rng.in_range(0..changes_max / 4)),
        };
        self.disk.freeze(when);
        // A start may need fewer calls than that; the moment is then some time after it.
        let _ = self.disk.wait_frozen(2 * time_max);
        Ok(())
    }

    fn kill(&mut self, world: &mut World) -> anyhow::Result<()> {
        anyhow::ensure!(world.gateway.is_running(), "the gateway has ended by itself");
        world.gateway.send_kill()?;
        self.disk.power_off();
        world.gateway.kill();
        self.kills += 1;
        acked(world).map(drop)
    }

    fn cut(&mut self, world: &mut World) -> anyhow::Result<()> {
        self.kill(world)?;
        let damage = self.disk.power_cut(self.rng.next_u64());
        self.damage.old_sectors += damage.old_sectors;
        self.damage.new_sectors += damage.new_sectors;
        self.damage.garbled_sectors += damage.garbled_sectors;
        self.damage.lost_changes += damage.lost_changes;
        self.cuts += 1;
        Ok(())
    }
}

#[test]
fn no_power_cut_loses_an_acked_row() -> anyhow::Result<()> {
    let rng = Rng::announced("power cuts")?;
    let scratch = Scratch::new("power-cuts")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    let damage = Damage::default();
    let mut power = PowerCuts { disk: &disk, rng, cuts: 0, kills: 0, cut_in_start: 0, damage };
    let begun = Instant::now();
    while power.cuts < cuts_wanted() {
        power.round(&mut world, &database)?;
    }
    let seconds = begun.elapsed().as_secs();
    let PowerCuts { cuts, kills, cut_in_start, damage, .. } = power;
    eprintln!(
        "{cuts} power cuts, {cut_in_start} of them during a start, and {} kills without one, in {seconds} s; {damage:?}",
        kills - cuts
    );
    world.run(Duration::from_secs(1))?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 500);
    assert!(damage.garbled_sectors > 0 && damage.old_sectors > 0, "the cuts hit nothing: {damage:?}");
    drop(disk);
    scratch.passed();
    Ok(())
}

/// A new data directory consists of names that were never synced. The first ack must not come before all of them are, up
/// to the directory that was there before the gateway.
#[test]
fn the_first_power_cut_of_a_new_data_directory_loses_nothing() -> anyhow::Result<()> {
    let scratch = Scratch::new("first-power-cut")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    database.link.cut();
    let mut world = World::start(scratch, LOAD, database.tables(JOURNAL))?;
    await_acks(&world, 50, REACTION_LIMIT)?;
    world.gateway.send_kill()?;
    disk.power_off();
    world.gateway.kill();
    acked(&world)?;
    disk.power_cut_forgetting_all();
    world.gateway.resume()?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 50);
    drop(disk);
    scratch.passed();
    Ok(())
}

/// The tests above would see a gateway that acknowledges before its sync has happened: here it believes in syncs that never
/// happen.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() -> anyhow::Result<()> {
    let scratch = Scratch::new("lying-disk")?;
    let disk = ForgettingFs::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    let load = Load { serial: 0, native: 0, ..LOAD };
    let mut world = World::start(scratch, load, database.tables(JOURNAL))?;
    database.link.cut();
    disk.lie_about_syncs();
    world.run(Duration::from_secs(1))?;
    let rng = Rng::new(1);
    let damage = Damage::default();
    PowerCuts { disk: &disk, rng, cuts: 0, kills: 0, cut_in_start: 0, damage }.cut(&mut world)?;
    world.gateway.resume()?;
    let (ledger, scratch) = finish(world, &database)?;
    eprintln!("{} of {} acked rows are found to be lost", ledger.total.lost, ledger.total.acked);
    assert!(ledger.total.lost > 0, "{:?}", ledger.total);
    drop(disk);
    scratch.passed();
    Ok(())
}
