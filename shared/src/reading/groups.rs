//! What a device measures, as its firmware has it: static tables that are checked when they are compiled.

use super::{CHANNELS_MAX, Description, GROUP_CHANNELS_MAX, NAME_BYTES_MAX, Naming, SCALE_MAX, ValueKind};
use crate::ids::{GroupId, SchemaId};

/// One channel, as the firmware writes it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Name within its group, 1 to 32 bytes.
    pub name: &'static str,
    /// Unit of the scaled value, such as `"°C"`; may be empty.
    pub unit: &'static str,
    /// What its values are.
    pub kind: ValueKind,
    /// Power of ten by which an [`ValueKind::I32`] is multiplied; zero for the others.
    pub scale: i8,
}

/// Channels sampled at one instant, as the firmware writes them down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Name within its device, 1 to 32 bytes.
    pub name: &'static str,
    /// Its 1 to 32 channels.
    pub channels: &'static [Channel],
}

/// All groups of a device, within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    all: &'static [Group],
    /// So that no chip has to compute it.
    id: SchemaId,
    channel_count: u8,
}

impl Groups {
    /// Checks the limits; a `const` item makes that a compile-time check.
    ///
    /// # Panics
    ///
    /// When a name is empty, too long or used twice, a group has no channel or more than
    /// [`GROUP_CHANNELS_MAX`], all together have more than [`CHANNELS_MAX`], or a scale is beyond
    /// [`SCALE_MAX`] or given to a kind that has none.
    pub const fn new(groups: &'static [Group]) -> Self {
        let mut total = 0;
        let mut at = 0;
        while at < groups.len() {
            check_group(&groups[at]);
            total += groups[at].channels.len();
            let mut earlier = 0;
            while earlier < at {
                assert!(!same(groups[earlier].name, groups[at].name), "two groups have the same name");
                earlier += 1;
            }
            at += 1;
        }
        assert!(total > 0 && total <= CHANNELS_MAX, "a device has 1 to 128 channels");
        Self { all: groups, id: schema_id(groups), channel_count: total as u8 }
    }

    /// The channels of the group at `id`, and how many there are before them.
    pub fn located(self, id: GroupId) -> Option<(u8, &'static [Channel])> {
        let at = usize::from(id.0);
        let before = self.all.get(..at)?.iter().map(|group| group.channels.len() as u8).sum();
        Some((before, self.all.get(at)?.channels))
    }

    /// The name of the whole set.
    pub const fn id(self) -> SchemaId {
        self.id
    }

    /// How many channels all groups have together.
    pub const fn channel_count(self) -> u8 {
        self.channel_count
    }

    /// Every channel in order, as it is announced to the gateway.
    pub fn descriptions(self) -> impl Iterator<Item = Description> {
        (0..self.channel_count).map_while(move |index| self.description(index)).map(Description::owned)
    }

    /// The channel at `index` of all, as it is announced.
    pub fn description(self, index: u8) -> Option<Description<&'static str>> {
        let mut at = usize::from(index);
        for (id, group) in (0..).zip(self.all) {
            if let Some(channel) = group.channels.get(at) {
                return Some(describe(id, group, channel));
            }
            at -= group.channels.len();
        }
        None
    }
}

const fn describe(id: u8, group: &Group, channel: &Channel) -> Description<&'static str> {
    Description {
        group: GroupId(id),
        group_name: group.name,
        channel: channel.name,
        unit: channel.unit,
        kind: channel.kind,
        scale: channel.scale,
    }
}

const fn schema_id(groups: &[Group]) -> SchemaId {
    let mut id = Naming::new();
    let mut at = 0;
    while at < groups.len() {
        let group = &groups[at];
        let mut index = 0;
        while index < group.channels.len() {
            id.add(&describe(at as u8, group, &group.channels[index]));
            index += 1;
        }
        at += 1;
    }
    id.finish()
}

const fn check_group(group: &Group) {
    assert!(is_name(group.name), "a group's name has 1 to 32 bytes");
    let count = group.channels.len();
    assert!(count > 0 && count <= GROUP_CHANNELS_MAX, "a group has 1 to 32 channels");
    let mut at = 0;
    while at < count {
        let channel = &group.channels[at];
        assert!(is_name(channel.name), "a channel's name has 1 to 32 bytes");
        assert!(channel.unit.len() <= NAME_BYTES_MAX, "a unit has at most 32 bytes");
        assert!(is_scale(channel.kind, channel.scale), "only an I32 has a scale, from -22 to 22");
        let mut earlier = 0;
        while earlier < at {
            assert!(!same(group.channels[earlier].name, channel.name), "two channels have the same name");
            earlier += 1;
        }
        at += 1;
    }
}

pub(super) const fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

pub(super) const fn is_scale(kind: ValueKind, scale: i8) -> bool {
    match kind {
        ValueKind::I32 => -SCALE_MAX <= scale && scale <= SCALE_MAX,
        ValueKind::Bool | ValueKind::U32 | ValueKind::F32 => scale == 0,
    }
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() && left[at] == right[at] {
        at += 1;
    }
    at == left.len() && at == right.len()
}
