//! Holds what the tap saw acknowledged against the database.

use std::collections::BTreeMap;

use forebay_tests::proxy::MqttTap;

use super::super::site::Site;
use super::messages::{DEVICES, Kind, Mix, Sent, device_name};

/// What became of the messages of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) published: u64,
    /// Different messages that the gateway acknowledged.
    pub(super) acked: u64,
    pub(super) points: u64,
    /// Messages that were acknowledged and are not in the database.
    pub(super) lost: u64,
    /// Messages that were never acknowledged, and that the broker cannot have lost.
    pub(super) unserved: u64,
    /// Messages that were never acknowledged because the broker lost them with the session.
    pub(super) wiped: u64,
    /// Points beyond one for each message.
    pub(super) extra: u64,
    /// Points that nobody published.
    pub(super) unknown: u64,
}

/// What a point is told by: the device, and the field `n`.
type Name = (usize, u32);

/// The account of each kind. Before the place `wiped_before`, the broker may have lost messages.
pub(super) fn judge(site: &Site, mix: &Mix, wiped_before: usize) -> anyhow::Result<BTreeMap<Kind, Account>> {
    let mut accounts = BTreeMap::new();
    for kind in Kind::ALL {
        let points = read(site, mix, kind)?;
        accounts.insert(kind, account(kind, &mix.sent, &site.tap, &points, wiped_before));
    }
    Ok(accounts)
}

/// How many points of each name the database has. One that does not have its message's own time has an impossible name.
fn read(site: &Site, mix: &Mix, kind: Kind) -> anyhow::Result<BTreeMap<Name, u64>> {
    let mut points = BTreeMap::new();
    for device in 0..DEVICES {
        for (ns, number) in site.numbers(kind.name(), "n", &device_name(device))? {
            let text = format!("{number:.0}");
            let number: u32 = text.parse()?;
            let is_timely = kind != Kind::Own || ns == mix.ns(number);
            *points.entry((device, if is_timely { number } else { u32::MAX })).or_default() += 1;
        }
    }
    Ok(points)
}

fn account(
    kind: Kind,
    sent: &[Sent],
    tap: &MqttTap,
    points: &BTreeMap<Name, u64>,
    wiped_before: usize,
) -> Account {
    let mut account = Account { points: points.values().sum(), ..Account::default() };
    let mut published: BTreeMap<Name, Published> = BTreeMap::new();
    for (place, message) in sent.iter().enumerate().filter(|(_, message)| message.kind == kind) {
        let known = published.entry((message.device, message.number)).or_default();
        known.key = message.key;
        known.count += 1;
        known.wipeable += u64::from(place < wiped_before);
    }
    for (name, known) in &published {
        account.add(*known, u64::from(tap.acknowledged(known.key)), points.get(name).copied().unwrap_or(0));
    }
    let unknown = points.iter().filter(|(name, _)| !published.contains_key(name));
    account.unknown = unknown.map(|(_, count)| count).sum();
    account
}

/// The messages of one name: one, or a run of the same constant.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    key: u64,
    count: u64,
    /// How many of them the broker may have lost.
    wipeable: u64,
}

impl Account {
    fn add(&mut self, published: Published, acked: u64, points: u64) {
        self.published += published.count;
        self.acked += acked;
        self.lost += acked.saturating_sub(points);
        let missing = published.count.saturating_sub(acked);
        self.wiped += missing.min(published.wipeable);
        self.unserved += missing.saturating_sub(published.wipeable);
        self.extra += points.saturating_sub(published.count);
    }
}

#[test]
fn each_mistake_is_told_from_the_others() {
    let judged = |count, wipeable, acked, points| {
        let mut account = Account::default();
        account.add(Published { key: 0, count, wipeable }, acked, points);
        (account.lost, account.unserved, account.wiped, account.extra)
    };
    assert_eq!(judged(3, 0, 3, 3), (0, 0, 0, 0));
    assert_eq!(judged(3, 0, 3, 2), (1, 0, 0, 0), "one of three alike was dropped");
    assert_eq!(judged(3, 0, 2, 3), (0, 1, 0, 0), "stored, and never acknowledged");
    assert_eq!(judged(3, 3, 2, 2), (0, 0, 1, 0), "the broker lost it");
    assert_eq!(judged(3, 0, 3, 5), (0, 0, 0, 2));
}
