//! A million messages (a small part of it in a short run) while connections break, the broker restarts, sessions are
//! wiped and the gateway is killed.
//!
//! What the gateway acknowledged, as the tap between it and the broker read, is in the database: once where the message
//! has a time of its own, at least once where it has not. Points too many are no more than the messages that were in flight
//! when a connection ended: delivered, and not acknowledged as far as the tap saw. A message whose PUBACK the tap saw and the
//! broker did not hear comes again, and is to be known again.

mod faults;
mod judge;
mod messages;

use std::collections::BTreeMap;

use forebay_tests::seed::{Rng, long};

use super::site::{Site, subscription, timed_subscription};
use faults::{Soak, plan};
use judge::{Account, judge};
use messages::{Kind, Mix};

/// Messages without trouble before and after it.
const QUIET: usize = 500;

fn soak(version: u8, messages: usize) -> anyhow::Result<()> {
    let mut rng = Rng::announced(&format!("soak, MQTT {version}"))?;
    let in_flight = if rng.in_range(0..2) == 0 { 20 } else { 1000 };
    let lines = format!("max_inflight_messages {in_flight}\nmax_queued_messages 0\nmax_queued_bytes 0\n");
    let subscriptions = Kind::ALL.map(|kind| match kind {
        Kind::Own => timed_subscription(kind.name()),
        Kind::Counter | Kind::Constant => subscription(kind.name()),
    });
    let site = Site::start("soak", &lines, version, &subscriptions)?;
    let faults = plan(&mut rng, if long() { 8 } else { 1 })?;
    let count = (messages - 2 * QUIET) / faults.len();
    let mix = Mix::new(rng.next_u64());
    let mut soak = Soak { site, mix, rng, wiped_before: 0, wipes: 0, kills: 0, restarts: 0 };
    for fault in &faults {
        soak.round(*fault, count)?;
    }
    soak.quiet(QUIET)?;
    soak.site.settle()?;
    let accounts = judge(&soak.site, &soak.mix, soak.wiped_before)?;
    report(&soak, in_flight, &accounts);
    assert_sound(&soak, &accounts);
    soak.site.scratch.passed();
    Ok(())
}

/// The closing figures.
fn report(soak: &Soak, in_flight: u32, accounts: &BTreeMap<Kind, Account>) {
    for (kind, account) in accounts {
        eprintln!("{:>8}: {account:?}", kind.name());
    }
    let figures = soak.site.tap.figures();
    let usage = soak.site.gateway.usage();
    eprintln!(
        "the broker is to have {in_flight} in flight, and had {}; {} cuts, {} kills, {} restarts of the broker, {} wipes; {} connections, {} \
         sessions; {} messages were in flight at the ends of connections, {} came again, {} of them acknowledged before; \
         gateway: {:.2} CPU s, {} MiB at most",
        figures.open_max,
        figures.cuts,
        soak.kills,
        soak.restarts,
        soak.wipes,
        figures.connections,
        figures.sessions,
        figures.open_at_ends,
        figures.redelivered,
        figures.redelivered_acked,
        usage.cpu_seconds,
        usage.resident_bytes_max >> 20,
    );
}

fn assert_sound(soak: &Soak, accounts: &BTreeMap<Kind, Account>) {
    let figures = soak.site.tap.figures();
    let happened = [figures.cuts, soak.kills, soak.restarts, soak.wipes, figures.redelivered];
    assert!(happened.iter().all(|count| *count > 0), "too little happened: {happened:?}");
    let sum = |of: fn(&Account) -> u64| accounts.values().map(of).sum::<u64>();
    assert_eq!(sum(|account| account.published), soak.mix.sent.len() as u64);
    assert_eq!(sum(|account| account.acked), figures.acked, "messages that nobody published");
    for (kind, account) in accounts {
        assert_eq!(account.lost, 0, "{kind:?}: acknowledged, and not in the database");
        assert_eq!(account.unserved, 0, "{kind:?}: never acknowledged, and the broker had it");
        assert_eq!(account.unknown, 0, "{kind:?}: points that nobody published");
    }
    let own = &accounts[&Kind::Own];
    assert_eq!(own.extra, 0, "a message with a time of its own is one point");
    let extra = sum(|account| account.extra);
    let in_flight = figures.open_at_ends;
    assert!(extra <= in_flight, "{extra} points too many, and only {in_flight} messages were in flight");
    assert_eq!(figures.stray_acks, 0, "PUBACKs for what was not delivered on their connection");
    assert_eq!(figures.disordered_acks, 0, "PUBACKs leave in the order of receipt");
}

#[test]
fn what_was_acknowledged_is_stored_whatever_breaks() -> anyhow::Result<()> {
    soak(3, if long() { 1_000_000 } else { 50_000 })
}

#[test]
fn the_same_holds_for_mqtt_5() -> anyhow::Result<()> {
    soak(5, if long() { 200_000 } else { 20_000 })
}
