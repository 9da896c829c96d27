//! All tables and keys.

use super::layout::{LAYOUT, OF_LINE, OF_TOPIC, RENAME};
use super::{Key, Shape, Standard, Table, Takes};
use crate::dead_letters::MAX_BYTES_LEAST;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// A secret that is not in a file.
const fn variable(name: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        takes: Takes::Such("a variable of the environment", "\"${SECRET}\""),
        default: Standard::None,
        doc,
    }
}

/// A file with a secret in it.
const fn secret(name: &'static str, doc: &'static str) -> Key {
    Key { name, takes: Takes::Such("a file", "\"token\""), default: Standard::None, doc }
}

/// Everything.
pub(in super::super) static ROOT: Table = Table {
    name: "",
    shape: Shape::One,
    doc: "",
    keys: &[&[Key {
        name: "data_dir",
        takes: Takes::Text("\"/var/lib/forebay\""),
        default: Standard::Is("\"/var/lib/forebay\""),
        doc: "home of the journal, the dead letters, the embedded database and the control socket",
    }]],
    below: &[
        TAGS,
        DEVICES,
        MQTT,
        SERIAL,
        ACK,
        JOURNAL,
        INFLUXDB,
        SQLITE,
        DEAD_LETTERS,
        CLOCK,
        HEALTH,
        HTTP,
        LOG,
    ],
};

const TAGS: Table = Table {
    name: "tags",
    shape: Shape::Free,
    doc: "Tags on every point, `name = \"value\"`. Without one of that name, `gateway` is the host's name.",
    keys: &[],
    below: &[],
};

const DEVICES: Table = Table {
    name: "devices",
    shape: Shape::Named,
    doc: "A device, by the name that it says or by its chip id in hexadecimal digits: `[devices.\"e6614104\"]`.",
    keys: &[&[Key {
        name: "name",
        takes: Takes::Text("\"boiler\""),
        default: Standard::Such("what it says"),
        doc: "the value of its tag `device`",
    }]],
    below: &[Table {
        name: "tags",
        shape: Shape::Free,
        doc: "Tags on this device's points; they win over `[tags]`.",
        keys: &[],
        below: &[],
    }],
};

const MQTT: Table = Table {
    name: "mqtt",
    shape: Shape::Many,
    doc: "A broker; at most 16.",
    keys: &[&[
        Key {
            name: "url",
            takes: Takes::Text("\"mqtt://127.0.0.1:1883\""),
            default: Standard::Needed,
            doc: "host and port (1883, or 8883); `mqtts://` for TLS",
        },
        Key {
            name: "version",
            takes: Takes::OneOf(&["3", "5"]),
            default: Standard::Is("3"),
            doc: "of MQTT: 3 is 3.1.1",
        },
        Key {
            name: "client_id",
            takes: Takes::Text("\"forebay-north-barn\""),
            default: Standard::Such("`forebay-<host>-<id kept in data_dir>`"),
            doc: "the name of the session at the broker, 1 to 64 bytes",
        },
        Key {
            name: "username",
            takes: Takes::Text("\"forebay\""),
            default: Standard::None,
            doc: "what the broker wants to hear",
        },
        secret("password_file", "the password, which needs `username`"),
        variable("password", "the same, in place of the file"),
        Key {
            name: "ca_file",
            takes: Takes::Such("a file", "\"ca.pem\""),
            default: Standard::Such("the system's CAs"),
            doc: "the CA that has signed the broker's certificate, as PEM",
        },
        Key {
            name: "client_cert_file",
            takes: Takes::Such("a file", "\"gateway.pem\""),
            default: Standard::None,
            doc: "a certificate that the broker wants of the gateway, as PEM",
        },
        Key {
            name: "client_key_file",
            takes: Takes::Such("a file", "\"gateway.key\""),
            default: Standard::None,
            doc: "its key, as PEM",
        },
        Key {
            name: "native",
            takes: Takes::Boolean,
            default: Standard::Is("true"),
            doc: "serve devices that run Forebay's firmware behind this broker",
        },
        Key {
            name: "native_prefix",
            takes: Takes::Text("\"forebay/v1\""),
            default: Standard::Is("\"forebay/v1\""),
            doc: "what their topics begin with",
        },
    ]],
    below: &[Table {
        name: "subscribe",
        shape: Shape::Many,
        doc: "A subscription to messages of other devices; at most 256 of a broker. It belongs to the `[[mqtt]]` before it, in its own file.",
        keys: &[
            &[
                Key {
                    name: "topic",
                    takes: Takes::Text("\"sensors/{device}/{room}\""),
                    default: Standard::Needed,
                    doc: "`{name}` is a level, `{name#}` at the end all further ones; `+` and `#` have no name. `{device}`, `{measurement}` and `{field}` have a meaning, other names become tags",
                },
                Key {
                    name: "format",
                    takes: Takes::OneOf(&[
                        "\"json\"",
                        "\"line-protocol\"",
                        "\"senml\"",
                        "\"sparkplug\"",
                        "\"value\"",
                        "\"tasmota\"",
                        "\"zigbee2mqtt\"",
                        "\"shelly\"",
                        "\"esphome\"",
                        "\"homeassistant\"",
                    ]),
                    default: Standard::Needed,
                    doc: "what a message is: [devices.md](devices.md) has an example of each",
                },
            ],
            OF_TOPIC,
            LAYOUT,
            &[Key {
                name: "retained",
                takes: Takes::OneOf(&["\"skip\"", "\"store\""]),
                default: Standard::Is("\"skip\""),
                doc: "`\"store\"`: retained messages without a time of their own are stored too",
            }],
        ],
        below: &[RENAME],
    }],
};

const SERIAL: Table = Table {
    name: "serial",
    shape: Shape::Many,
    doc: "A serial port, or a kind of ports that are served whenever they are plugged in; at most 64.",
    keys: &[
        &[
            Key {
                name: "port",
                takes: Takes::Text("\"/dev/serial/by-id/usb-FTDI_FT232R-if00-port0\""),
                default: Standard::Such("this or `usb`"),
                doc: "a path; with `claim` it may be a pattern such as `\"/dev/ttyUSB*\"`",
            },
            Key {
                name: "usb",
                takes: Takes::Text("\"2e8a:*\""),
                default: Standard::Such("this or `port`"),
                doc: "vendor and product, as `lsusb` and `forebay ports` show them",
            },
            Key {
                name: "claim",
                takes: Takes::OneOf(&["\"any\""]),
                default: Standard::None,
                doc: "every port that `port` matches is tried, and closed again if it brings nothing valid",
            },
            Key {
                name: "baud",
                takes: Takes::Number(1, 4_000_000),
                default: Standard::Is("115200"),
                doc: "bits a second",
            },
            Key {
                name: "format",
                takes: Takes::OneOf(&["\"native\"", "\"json\"", "\"line-protocol\"", "\"csv\""]),
                default: Standard::Is("\"native\""),
                doc: "what is spoken: the protocol of Forebay's firmware, or lines of text, which the following keys are about",
            },
            Key {
                name: "columns",
                takes: Takes::Such("a list of names", "[\"time\", \"\", \"temperature\"]"),
                default: Standard::Such("a header line"),
                doc: "of CSV: what the columns are called; `\"\"` is skipped",
            },
            Key {
                name: "separator",
                takes: Takes::Such("a character", "\";\""),
                default: Standard::Is("\",\""),
                doc: "of CSV: what stands between two cells",
            },
        ],
        OF_LINE,
        LAYOUT,
    ],
    below: &[RENAME],
};

const ACK: Table = Table {
    name: "ack",
    shape: Shape::One,
    doc: "When devices and brokers get their acks.",
    keys: &[&[Key {
        name: "after",
        takes: Takes::OneOf(&["\"journal\"", "\"memory\"", "\"database\""]),
        default: Standard::Is("\"journal\""),
        doc: "`\"journal\"`: after `fdatasync`. `\"memory\"`: at once, so that a crash or kill loses what was acked in the last moments. `\"database\"`: once every database that is `required` is done with it, so that while one is away, or rows wait for the clock, nothing is acked",
    }]],
    below: &[],
};

const JOURNAL: Table = Table {
    name: "journal",
    shape: Shape::One,
    doc: "What waits on disk for databases. [spool.md](spool.md) says how much that should be, [sd-card.md](sd-card.md) how to spare a card.",
    keys: &[&[
        Key {
            name: "max_bytes",
            takes: Takes::Size(2 * MIB, TIB),
            default: Standard::Is("\"1GiB\""),
            doc: "all of its files together",
        },
        Key {
            name: "commit_interval",
            takes: Takes::Duration(0, 10 * SECOND),
            default: Standard::Is("\"0ms\""),
            doc: "the shortest time between two commits. 0: as fast as the disk, foreign messages after two milliseconds for company",
        },
        Key {
            name: "when_full",
            takes: Takes::OneOf(&["\"auto\"", "\"refuse\"", "\"drop-oldest\""]),
            default: Standard::Is("\"auto\""),
            doc: "`\"auto\"`: native devices are held back, for others the oldest rows make room. `\"refuse\"`: everybody is held back. `\"drop-oldest\"`: the oldest rows make room for everybody. What makes room is counted and declared",
        },
    ]],
    below: &[],
};

const START: Key = Key {
    name: "start",
    takes: Takes::OneOf(&["\"oldest\"", "\"now\""]),
    default: Standard::Is("\"oldest\""),
    doc: "where it begins when it is new: with the oldest row that another database still lacks, or with what comes from now on",
};

const REQUIRED: Key = Key {
    name: "required",
    takes: Takes::Boolean,
    default: Standard::Is("true"),
    doc: "`false`: when the journal fills, this database skips ahead, with a gap, instead of stopping intake or costing another one rows",
};

const MATCH: Table = Table {
    name: "match",
    shape: Shape::Free,
    doc: "Which rows it gets: lists of patterns with `*` and `?` by `measurement`, `device` and the names of other tags. Without it, all.",
    keys: &[],
    below: &[],
};

const INFLUXDB: Table = Table {
    name: "influxdb",
    shape: Shape::Many,
    doc: "A database: InfluxDB 1, 2 or 3, or another store that takes their line protocol; at most 16. [influxdb.md](influxdb.md) has an example of each.",
    keys: &[&[
        Key {
            name: "name",
            takes: Takes::Text("\"main\""),
            default: Standard::Is("\"influxdb\""),
            doc: "what its cursor is kept under, so never one that another database had: letters, digits, `-`, `_`, `.`",
        },
        Key {
            name: "url",
            takes: Takes::Text("\"http://127.0.0.1:8086\""),
            default: Standard::Needed,
            doc: "may have a path, which is kept",
        },
        Key {
            name: "version",
            takes: Takes::Number(1, 3),
            default: Standard::Such("decided by the other keys; between 1 and 3 the server is asked"),
            doc: "1 with `database`, 2 with `org` and `bucket`, 3 with `database`",
        },
        Key {
            name: "database",
            takes: Takes::Text("\"sensors\""),
            default: Standard::Such("needed for versions 1 and 3"),
            doc: "where to write",
        },
        Key {
            name: "retention_policy",
            takes: Takes::Text("\"year\""),
            default: Standard::Such("the database's own"),
            doc: "version 1: how long it is kept",
        },
        Key {
            name: "username",
            takes: Takes::Text("\"forebay\""),
            default: Standard::None,
            doc: "version 1: who writes",
        },
        secret("password_file", "version 1: the password, which needs `username`"),
        variable("password", "the same, in place of the file"),
        Key {
            name: "org",
            takes: Takes::Text("\"home\""),
            default: Standard::Such("needed for version 2"),
            doc: "the organisation",
        },
        Key {
            name: "bucket",
            takes: Takes::Text("\"sensors\""),
            default: Standard::Such("needed for version 2"),
            doc: "where to write",
        },
        secret("token_file", "versions 2 and 3: a token that may write"),
        variable("token", "the same, in place of the file"),
        secret(
            "read_token_file",
            "versions 2 and 3: a token for queries, where the one for writing may not read",
        ),
        variable("read_token", "the same, in place of the file"),
        Key {
            name: "batch_size",
            takes: Takes::Number(1, 50_000),
            default: Standard::Is("5000"),
            doc: "points in a request, at most",
        },
        Key {
            name: "flush_interval",
            takes: Takes::Duration(0, HOUR),
            default: Standard::Is("\"1s\""),
            doc: "how long a point waits for others",
        },
        Key {
            name: "max_bytes_per_second",
            takes: Takes::Size(KIB, 4 * GIB),
            default: Standard::Such("no limit"),
            doc: "what its requests may take of the line in the mean",
        },
        Key {
            name: "live_first",
            takes: Takes::Boolean,
            default: Standard::Is("false"),
            doc: "`true`: while a backlog drains, fresh rows take turns with it, batch by batch, so that they are in the database within seconds; a device that sends more than these turns can take leaves them to the others, and its rows come in order with the backlog. A kill meanwhile sends again what went ahead, which matters only to a store that keeps equal points twice; and of two rows with one series and time the one that came first may stand",
        },
        START,
        REQUIRED,
    ]],
    below: &[MATCH],
};

const SQLITE: Table = Table {
    name: "sqlite",
    shape: Shape::One,
    doc: "The embedded database. It is there without any `[[influxdb]]`, with this table, and once it was in use, until `enabled = false`. [sqlite.md](sqlite.md) is about its tables.",
    keys: &[&[
        Key {
            name: "enabled",
            takes: Takes::Boolean,
            default: Standard::Is("true"),
            doc: "`false` needs an `[[influxdb]]`",
        },
        Key {
            name: "path",
            takes: Takes::Text("\"readings.sqlite\""),
            default: Standard::Is("\"readings.sqlite\""),
            doc: "its file, in `data_dir` unless it is an absolute path",
        },
        Key {
            name: "retention",
            takes: Takes::Duration(60 * SECOND, 36_500 * DAY),
            default: Standard::Is("\"30d\""),
            doc: "how long points are kept",
        },
        Key {
            name: "max_bytes",
            takes: Takes::Size(4 * MIB, 8 * TIB),
            default: Standard::Is("\"2GiB\""),
            doc: "its file at most; the oldest points go first",
        },
        START,
        REQUIRED,
    ]],
    below: &[MATCH],
};

const DEAD_LETTERS: Table = Table {
    name: "dead_letters",
    shape: Shape::One,
    doc: "What a database refused and what could not be read.",
    keys: &[&[Key {
        name: "max_bytes",
        takes: Takes::Size(MAX_BYTES_LEAST, 64 * GIB),
        default: Standard::Is("\"64MiB\""),
        doc: "on disk; the oldest goes first, and is counted",
    }]],
    below: &[],
};

const CLOCK: Table = Table {
    name: "clock",
    shape: Shape::One,
    doc: "When the machine's clock is believed. Until then rows are taken and acked, and wait for their time.",
    keys: &[&[
        Key {
            name: "trust",
            takes: Takes::OneOf(&["\"auto\"", "\"always\""]),
            default: Standard::Is("\"auto\""),
            doc: "`\"auto\"`: once the kernel says that it is synchronised, or if the machine has a hardware clock. `\"always\"`: at once",
        },
        Key {
            name: "max_wait",
            takes: Takes::Duration(0, 30 * DAY),
            default: Standard::Is("\"10m\""),
            doc: "that long after the machine's start it is believed without a reason, and times are estimates",
        },
    ]],
    below: &[],
};

const HEALTH: Table = Table {
    name: "health",
    shape: Shape::One,
    doc: "The gateway's own health, as rows of a device that is called like it.",
    keys: &[&[Key {
        name: "interval",
        takes: Takes::Such("a time, `\"1s\"` to `\"1d\"`, or `\"off\"`", "\"5m\""),
        default: Standard::Is("\"1m\""),
        doc: "how often",
    }]],
    below: &[],
};

const HTTP: Table = Table {
    name: "http",
    shape: Shape::One,
    doc: "The dashboard, the API and the metrics. [SECURITY.md](../SECURITY.md) says who is kept out.",
    keys: &[&[
        Key {
            name: "listen",
            takes: Takes::Such("address and port", "\"127.0.0.1:8686\""),
            default: Standard::Is("\"127.0.0.1:8686\""),
            doc: "beyond loopback only with a token; port 0 is any that is free",
        },
        secret("token_file", "the token that everything but health wants over TCP, at least 16 characters"),
        variable("token", "the same, in place of the file"),
        Key {
            name: "query_sink",
            takes: Takes::Text("\"sqlite\""),
            default: Standard::Such("the first `[[influxdb]]`, else `\"sqlite\"`"),
            doc: "the name of the database that queries are answered from",
        },
    ]],
    below: &[],
};

const LOG: Table = Table {
    name: "log",
    shape: Shape::One,
    doc: "What goes to standard error, and with systemd to its journal.",
    keys: &[&[Key {
        name: "level",
        takes: Takes::OneOf(&["\"error\"", "\"warn\"", "\"info\"", "\"debug\"", "\"trace\""]),
        default: Standard::Is("\"info\""),
        doc: "how much; the variable `FOREBAY_LOG` wins",
    }]],
    below: &[],
};
