//! Retained messages without a time of their own are state: a session that is wiped again and again makes no readings of
//! them.

use forebay_tests::clock::wait_for;
use forebay_tests::mqtt::{Message, publish, wipe_session};

use super::site::{CLIENT_ID, SERVED_LIMIT, Site, subscription};

/// Topics with a retained message.
const TOPICS: u64 = 1_000;

/// How often the session is wiped.
const WIPES: u64 = 4;

const LIMITS: &str = "max_inflight_messages 200\nmax_queued_messages 0\nmax_queued_bytes 0\n";

fn retained(site: &Site) -> anyhow::Result<u64> {
    let sessions = site.tap.figures().sessions;
    // Each session is given every retained message, and acknowledges it.
    wait_for("the retained messages of a session", SERVED_LIMIT, || {
        let figures = site.tap.figures();
        let all = figures.retained >= sessions * TOPICS && figures.open == 0;
        if all { Ok(figures.retained) } else { Err(format!("{figures:?}")) }
    })
}

#[test]
fn a_wiped_session_makes_no_readings_of_what_is_retained() -> anyhow::Result<()> {
    let mut site = Site::prepare("retained", LIMITS, 3, &[subscription("state")])?;
    let message =
        |number: u64, value: u64| Message::new(format!("state/{number}"), format!("{{\"v\":{value}}}"));
    let states: Vec<Message> = (0..TOPICS).map(|number| message(number, 1).retained()).collect();
    publish(site.broker.port, &states)?;
    site.gateway.resume()?;
    for sessions in 1..=WIPES + 1 {
        site.tap.wait_for_subscriptions(sessions, 1, SERVED_LIMIT)?;
        retained(&site)?;
        if sessions <= WIPES {
            wipe_session(site.broker.port, CLIENT_ID)?;
        }
    }
    let seen = retained(&site)?;

    // To a subscription that is there, what changes the state is a reading like any other.
    let live = (0..TOPICS).map(|number| match number % 2 {
        0 => message(number, 2),
        _ => message(number, 2).retained(),
    });
    let live: Vec<Message> = live.collect();
    publish(site.broker.port, &live)?;
    let delivered = (WIPES + 2) * TOPICS;
    wait_for("the PUBACKs of all readings", SERVED_LIMIT, || match site.tap.figures() {
        figures if figures.acked >= delivered && figures.open == 0 => Ok(()),
        figures => Err(format!("{figures:?}")),
    })?;
    site.settle()?;
    let points = site.points("state")?;
    let values = |value| points.iter().filter(|point| number(point, "v") == Some(value)).count() as u64;
    eprintln!(
        "{seen} retained messages in {} sessions made {} points; {TOPICS} readings made {}",
        WIPES + 1,
        values(1.0),
        values(2.0)
    );
    assert_eq!(values(1.0), 0, "retained state became readings");
    assert_eq!(values(2.0), TOPICS, "each reading is a point");
    assert_eq!(points.len() as u64, TOPICS);
    site.scratch.passed();
    Ok(())
}

fn number(point: &forebay_tests::readback::influxql::Point, field: &str) -> Option<f64> {
    point.column(field)?.as_f64()
}
