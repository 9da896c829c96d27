//! The configuration: TOML files in, types that can only be valid out.
//!
//! **Constraints.** The rest of the gateway trusts these types and never looks at a file, a variable or a default.
//! **Format.** DESIGN.md §9: one main file, then `conf.d/*.toml` beside it in the order of their names. Tables merge,
//! arrays of tables append, any other value of a later file replaces the earlier one. `${VAR}` in any string comes
//! from the environment.
//! **Operation.** [`document`] reads text into values that know their file and line; [`section`] hands them out by
//! key and type and remembers which keys were asked for; [`reference`](mod@reference) describes each of them; the other modules build one part
//! of [`Config`] each.
//! **Failure.** Every problem found is reported at once, each with file, line, key and cure. A key whose feature does
//! not exist yet is accepted only at the value that describes what the gateway does today.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use filter::Filter;
pub use format::{NumbersInText, Preset};
pub use load::{Loaded, load, load_whereabouts};
pub use path::{JsonPath, Selector, Step};
pub use pattern::TopicPattern;
pub use port_pattern::PortPattern;
pub use problem::{LoadError, Problem};
pub use reference::page as reference;

use crate::record::check_name;

pub use tls::{ClientCertificate, FileFault, Tls};
pub(crate) use units::duration as parse_duration;

mod brokers;
mod document;
mod filter;
mod foreign;
mod format;
pub(crate) mod fuzzing;
mod http;
mod layout;
mod load;
mod path;
mod pattern;
mod port_pattern;
mod ports;
mod problem;
mod reference;
mod secret;
mod section;
mod sinks;
mod tls;
mod units;

#[cfg(test)]
mod tests;

/// What a file with this text configures, which must have no fault.
#[cfg(test)]
pub(crate) fn of_text(text: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    load(file.path()).unwrap().config
}

/// Where the configuration is looked for unless the command line names another file.
pub const DEFAULT_PATH: &str = "/etc/forebay/forebay.toml";

/// A complete, validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Home of the journal, the control socket and the embedded store.
    pub data_dir: PathBuf,
    /// Tags on every point; holds `gateway` (the host name) unless configured otherwise.
    pub tags: BTreeMap<String, String>,
    /// What is configured for single devices, by chip id in lower-case hex or by the name that they announce.
    pub devices: BTreeMap<String, Device>,
    /// Brokers.
    pub mqtt: Vec<Mqtt>,
    /// Serial ports.
    pub serial: Vec<Serial>,
    /// When devices and brokers get their acks.
    pub ack_after: AckAfter,
    /// The journal.
    pub journal: Journal,
    /// Databases with InfluxDB's write API. Names are unique, and none is `sqlite`.
    pub influxdb: Vec<Influxdb>,
    /// The embedded store, if it is on. At least one sink is.
    pub sqlite: Option<Sqlite>,
    /// The embedded store that is off only because its file is not there.
    pub sqlite_without_file: Option<Sqlite>,
    /// What could not be stored.
    pub dead_letters: DeadLetters,
    /// The gateway's own clock.
    pub clock: Clock,
    /// How often the gateway stores its own health, if it does.
    pub health: Option<Duration>,
    /// The HTTP interface.
    pub http: Http,
    /// How much the log tells, unless a variable of the environment says it.
    pub log_level: LogLevel,
}

impl Config {
    /// The same beside a journal that knows these sinks. The embedded store goes on in a new file if it has lost its own.
    #[must_use]
    pub fn beside<'a>(&self, mut sinks: impl Iterator<Item = &'a str>) -> Config {
        let mut config = self.clone();
        if sinks.any(|name| name == SQLITE)
            && let Some(sqlite) = config.sqlite_without_file.take()
        {
            config.sqlite = Some(sqlite);
        }
        config
    }

    /// The names of the databases, in the order of the configuration, the embedded one last.
    pub fn sinks(&self) -> impl Iterator<Item = &str> {
        let influxdb = self.influxdb.iter().map(|influxdb| influxdb.name.as_str());
        influxdb.chain(self.sqlite.is_some().then_some(SQLITE))
    }

    /// Whether a database of this name is configured.
    #[must_use]
    pub fn has_sink(&self, name: &str) -> bool {
        self.sinks().any(|sink| sink == name)
    }
}

/// One entry of `[devices]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The value of the tag `device`, in place of what the device announces.
    pub name: Option<String>,
    /// Tags on this device's points; they win over the tags of `[tags]`.
    pub tags: BTreeMap<String, String>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// `mqtt://host:port`, as messages and status name this broker; holds no secret.
    pub url: String,
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What is spoken there.
    pub version: MqttVersion,
    /// How the connection is secured, if it is.
    pub tls: Option<Tls>,
    /// Client id; the default is made from the host name and an id kept in `data_dir`.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// Password; only set together with a user name.
    pub password: Option<Secret>,
    /// Whether devices that speak Forebay's own protocol are served.
    pub native: bool,
    /// Topic prefix of that protocol, without a trailing slash.
    pub native_prefix: String,
    /// Subscriptions to everything else; no two of them match the same topic, nor the native devices' topics.
    pub subscribe: Vec<Subscribe>,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1.
    V3,
    /// 5.
    V5,
}

impl fmt::Display for MqttVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MqttVersion::V3 => "3.1.1",
            MqttVersion::V5 => "5",
        })
    }
}

/// One subscription to foreign messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Which topics, and which of their levels are named.
    pub topic: TopicPattern,
    /// How payloads are read. Never CSV.
    pub layout: Layout,
    /// What becomes of retained messages without a timestamp of their own.
    pub retained: Retained,
}

/// How the payloads of foreign devices are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What a payload is.
    pub format: Format,
    /// Where the device comes from; wins over a topic's `{device}`. Never a path for line protocol.
    pub device: Option<Selector>,
    /// Where the measurement comes from; wins over a topic's `{measurement}`. Never set for line protocol.
    pub measurement: Option<Selector>,
    /// Where the timestamp is in the payload; without it the time of first receipt counts.
    pub timestamp: Option<JsonPath>,
    /// How timestamps are written: always set with `timestamp`, and for line protocol (where nanoseconds are the
    /// default and RFC 3339 is impossible).
    pub timestamp_format: Option<TimestampFormat>,
    /// Fields stored as integers, by their joined name; every other number is a float.
    pub integer_fields: Vec<String>,
    /// Fields stored as text, by their joined name; other text is skipped.
    pub text_fields: Vec<String>,
    /// Leaves that become tags, each under the last name of its path.
    pub tags_from: Vec<JsonPath>,
    /// Where a JSON document has an array whose elements are a row each.
    pub readings: Option<JsonPath>,
    /// Which text that is a number is read as one.
    pub numbers_in_text: NumbersInText,
    /// The field of a payload that has no names; wins over a topic's `{field}`.
    pub field: Option<String>,
    /// New names of fields, by the names that they would have without.
    pub rename: BTreeMap<String, String>,
    /// Fields that are left out, by the names that they would have without a new one.
    pub drop: BTreeSet<String>,
}

/// What a payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document, which is one row, or has an array of them.
    Json,
    /// InfluxDB line protocol.
    LineProtocol,
    /// Lines of a table, each of which is one row; on serial lines only.
    Csv {
        /// Names of the columns, none of them twice; those without a name are skipped. Left out, a header names them.
        columns: Option<Vec<String>>,
        /// What stands between two cells.
        separator: char,
    },
    /// A SenML pack in JSON; by MQTT only, as all that follow.
    Senml,
    /// One plain value, such as `21.5` or `ON`.
    Value,
    /// Sparkplug B: what edge nodes and their devices say below `spBv1.0/`.
    Sparkplug,
    /// What devices of one make send.
    Preset(Preset),
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// RFC 3339 text with an offset.
    Rfc3339,
}

/// What becomes of retained messages without a timestamp of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// They are state, not readings, and are not stored.
    Skip,
    /// They are stored like any other message.
    Store,
}

/// One serial port, or one kind of ports that are claimed whenever they appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Which port.
    pub selector: SerialSelector,
    /// Line rate in bit/s.
    pub baud: u32,
    /// What is spoken on it.
    pub speech: Speech,
}

/// What is spoken on a serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speech {
    /// The protocol of Forebay's own devices, which are answered.
    Native,
    /// Lines of text, which nobody can acknowledge.
    Text(Box<Layout>),
}

/// Which serial port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SerialSelector {
    /// A path, best one below `/dev/serial/by-id`.
    Port(PathBuf),
    /// USB identity; a product of `None` stands for any product of that vendor.
    Usb {
        /// USB vendor id.
        vendor: u16,
        /// USB product id.
        product: Option<u16>,
    },
    /// `claim = "any"`: every port whose path the pattern matches.
    Any(PortPattern),
}

impl SerialSelector {
    /// Its place in the order of precedence where two of them stand for one port.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            SerialSelector::Port(_) => 0,
            SerialSelector::Usb { .. } => 1,
            SerialSelector::Any(_) => 2,
        }
    }

    /// Whether a port that it stands for may turn out to be another program's.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        !matches!(self, SerialSelector::Port(_))
    }
}

impl fmt::Display for SerialSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SerialSelector::Port(path) => path.display().fmt(f),
            SerialSelector::Usb { vendor, product: Some(product) } => {
                write!(f, "usb:{vendor:04x}:{product:04x}")
            }
            SerialSelector::Usb { vendor, product: None } => write!(f, "usb:{vendor:04x}:*"),
            SerialSelector::Any(pattern) => pattern.fmt(f),
        }
    }
}

/// What an ack waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckAfter {
    /// Nothing but room: whatever ends the gateway costs what it has acked in the last moments.
    Memory,
    /// The journal's `fdatasync`.
    #[default]
    Journal,
    /// That every database that is required is done with it too: has confirmed or refused it, or was told to skip it.
    Database,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Bound of everything the journal keeps on disk; at least 2 MiB.
    pub max_bytes: u64,
    /// Shortest time between two commits; zero means that commits clock themselves.
    pub commit_interval: Duration,
    /// Who makes room when it is full.
    pub when_full: WhenFull,
}

/// What happens to intake when the journal is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Native devices, which keep their rows meanwhile, are held back; for foreign ones the oldest rows make room.
    #[default]
    Auto,
    /// Everybody is held back.
    Refuse,
    /// The oldest rows make room for everybody.
    DropOldest,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Influxdb {
    /// Identity of this sink's cursor.
    pub name: String,
    /// `http://` or `https://`, host and port, perhaps a path, without a trailing slash and without a secret.
    pub url: String,
    /// Which write API, and where it writes to.
    pub api: InfluxdbApi,
    /// Most points in one request.
    pub batch_size: usize,
    /// Longest time that a point waits for its batch to fill.
    pub flush_interval: Duration,
    /// Token for queries, where the one for writing may not read.
    pub read_token: Option<Secret>,
    /// What it gets, and what becomes of the others if it does not take it.
    pub service: Service,
}

/// What a sink gets, and what becomes of the others if it does not take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it begins when it is new.
    pub start: Start,
    /// Whether intake waits for it when the journal is full. If not, it skips ahead, with a gap.
    pub required: bool,
    /// Whether fresh rows go before a backlog, as far as it takes turns with it.
    pub live_first: bool,
    /// Which rows it gets.
    pub filter: Filter,
    /// Bytes of requests that it is sent in a second, in the mean; none for as many as it takes.
    pub bytes_per_second_max: Option<u64>,
}

impl Default for Service {
    fn default() -> Service {
        let (start, filter) = (Start::Oldest, Filter::default());
        Service { start, required: true, live_first: false, filter, bytes_per_second_max: None }
    }
}

/// Where a new sink begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest row that the journal still keeps for another sink.
    #[default]
    Oldest,
    /// With the first row that comes after it was added.
    Now,
}

/// Which write API, and where it writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InfluxdbApi {
    /// `/write` of InfluxDB 1.
    V1 {
        /// Database.
        database: String,
        /// Retention policy; the database's default one if left out.
        retention_policy: Option<String>,
        /// User name.
        username: Option<String>,
        /// Password; only set together with a user name.
        password: Option<Secret>,
    },
    /// `/api/v2/write` of InfluxDB 2, 3 and many other stores.
    V2 {
        /// Organisation; may be empty, since InfluxDB 3 and others have none.
        org: String,
        /// Bucket.
        bucket: String,
        /// Token.
        token: Option<Secret>,
    },
    /// `/api/v3/write_lp` of InfluxDB 3.
    V3 {
        /// Database.
        database: String,
        /// Token.
        token: Option<Secret>,
    },
    /// That of InfluxDB 1 or 3, whichever the server says that it is.
    Open {
        /// Database.
        database: String,
        /// Token.
        token: Option<Secret>,
    },
}

/// Name of the embedded store's cursor.
pub const SQLITE: &str = "sqlite";

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqlite {
    /// The database file, `data_dir` included.
    pub path: PathBuf,
    /// How long points are kept.
    pub retention: Duration,
    /// Bound of the file; the oldest points go first.
    pub max_bytes: u64,
    /// What it gets, and what becomes of the others if it does not take it.
    pub service: Service,
}

/// What could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Bound of everything that is kept of it on disk; the oldest goes first. At least 256 KiB.
    pub max_bytes: u64,
}

/// The gateway's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// When the wall clock is believed.
    pub trust: Trust,
    /// Time since the machine's start after which it is believed without a reason.
    pub max_wait: Duration,
}

/// When the wall clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// When the kernel or a hardware clock vouches for it, or the machine has run for long enough.
    Auto,
    /// Always.
    Always,
}

/// How much the log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What is broken.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And what it is made of.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// All levels, by the names that they are configured by.
    pub(crate) const WORDS: [(&str, LogLevel); 5] = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        LogLevel::WORDS[self as usize].0
    }
}

/// The HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address and port; without a token a loopback address. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What whoever asks over TCP has to bear.
    pub token: Option<Secret>,
    /// The sink that queries are answered from: the name of a database, or [`SQLITE`].
    pub query_sink: String,
}

/// A password or token. It never appears in messages: [`Debug`] prints `***`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Refuses tag names that Forebay or the databases keep for themselves, and those that line protocol cannot carry.
fn check_tag_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a tag has an empty name; name it".to_owned()),
        "device" => {
            Err("the tag `device` is made by Forebay; use `name` in [devices] to change it".to_owned())
        }
        "time" | "_field" | "_measurement" => {
            Err(format!("the tag {name:?} is reserved by InfluxDB; choose another name"))
        }
        _ => check_name("tag", name).map_err(|error| error.to_string()),
    }
}
