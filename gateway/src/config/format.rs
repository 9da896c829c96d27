//! The formats of payloads: their names in the configuration, and what is known of each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Format, Layout};

impl Format {
    /// The value of `format`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::LineProtocol => "line-protocol",
            Format::Csv { .. } => "csv",
            Format::Senml => "senml",
            Format::Value => "value",
            Format::Sparkplug => "sparkplug",
            Format::Preset(preset) => preset.name(),
        }
    }

    /// Whether a level of a topic that is so named has a meaning of its own, and is no tag.
    #[must_use]
    pub fn consumes(&self, level: &str) -> bool {
        match level {
            "device" | "measurement" => true,
            "field" => {
                matches!(self, Format::Value | Format::Preset(Preset::Esphome | Preset::Homeassistant))
            }
            "path" | "component" => *self == Format::Preset(Preset::Shelly),
            _ => false,
        }
    }
}

/// Devices whose messages are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Tasmota's telemetry.
    Tasmota,
    /// Zigbee2MQTT's devices and groups.
    Zigbee2mqtt,
    /// Shelly devices of all generations.
    Shelly,
    /// ESPHome's entities.
    Esphome,
    /// What Home Assistant's `mqtt_statestream` publishes.
    Homeassistant,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 5] =
        [Preset::Tasmota, Preset::Zigbee2mqtt, Preset::Shelly, Preset::Esphome, Preset::Homeassistant];

    /// The value of `format`, and the measurement if none is configured.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Preset::Tasmota => "tasmota",
            Preset::Zigbee2mqtt => "zigbee2mqtt",
            Preset::Shelly => "shelly",
            Preset::Esphome => "esphome",
            Preset::Homeassistant => "homeassistant",
        }
    }
}

impl Layout {
    /// A format with nothing else configured.
    #[must_use]
    pub fn of(format: Format) -> Layout {
        Layout {
            format,
            device: None,
            measurement: None,
            timestamp: None,
            timestamp_format: None,
            integer_fields: Vec::new(),
            text_fields: Vec::new(),
            tags_from: Vec::new(),
            readings: None,
            numbers_in_text: NumbersInText::default(),
            field: None,
            rename: BTreeMap::new(),
            drop: BTreeSet::new(),
        }
    }
}

/// Which text of a JSON document that is a number is read as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NumbersInText {
    /// None: text is text.
    #[default]
    Never,
    /// All of it.
    Always,
    /// That of the listed fields, by their joined name.
    Of(Vec<String>),
}

/// The format that a name stands for in `[[mqtt.subscribe]]`.
///
/// # Errors
/// Says what may be written instead.
pub(super) fn parse(text: &str) -> Result<Format, String> {
    if let Some(preset) = Preset::ALL.into_iter().find(|preset| preset.name() == text) {
        return Ok(Format::Preset(preset));
    }
    match text {
        "json" => Ok(Format::Json),
        "line-protocol" => Ok(Format::LineProtocol),
        "senml" => Ok(Format::Senml),
        "value" => Ok(Format::Value),
        "sparkplug" => Ok(Format::Sparkplug),
        "influx" => Err("Telegraf's \"influx\" is \"line-protocol\" here".to_owned()),
        "csv" => Err(format!("{text:?} is for lines on a serial port; {}", known())),
        _ => Err(format!("{text:?} is no format; {}", known())),
    }
}

fn known() -> String {
    let presets: Vec<String> = Preset::ALL.iter().map(|preset| format!("\"{}\"", preset.name())).collect();
    format!(
        "use \"json\", \"line-protocol\", \"senml\", \"sparkplug\", \"value\", or for devices of one make {}",
        presets.join(", ")
    )
}
