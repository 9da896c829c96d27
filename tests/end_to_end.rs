//! The promises, shown with real processes: mosquitto, InfluxDB 1.6.7, VictoriaMetrics, the gateway, and devices of the
//! real firmware. A service that is not installed fails these tests.
//!
//! Random moments come from one seed a test, which is printed; `FOREBAY_SEED=…` replays it. `FOREBAY_LONG=1` asks for the
//! full counts of `tests/run --long`.

#[path = "end_to_end/audit.rs"]
mod audit;
#[path = "end_to_end/bad_input.rs"]
mod bad_input;
#[path = "end_to_end/board.rs"]
mod board;
#[path = "end_to_end/check.rs"]
mod check;
#[path = "end_to_end/demo.rs"]
mod demo;
#[path = "end_to_end/downgrade.rs"]
mod downgrade;
#[path = "end_to_end/early.rs"]
mod early;
#[path = "end_to_end/fleet.rs"]
mod fleet;
#[path = "end_to_end/hostile_http.rs"]
mod hostile_http;
#[path = "end_to_end/hostile_names.rs"]
mod hostile_names;
#[path = "end_to_end/journal_commands.rs"]
mod journal_commands;
#[path = "end_to_end/kill.rs"]
mod kill;
#[path = "end_to_end/metrics.rs"]
mod metrics;
#[path = "end_to_end/micropython.rs"]
mod micropython;
#[path = "end_to_end/mqtt/mod.rs"]
mod mqtt;
#[path = "end_to_end/outage.rs"]
mod outage;
#[path = "end_to_end/reads/mod.rs"]
mod reads;
#[path = "end_to_end/refused.rs"]
mod refused;
#[path = "end_to_end/reload.rs"]
mod reload;
#[path = "end_to_end/renamed.rs"]
mod renamed;
#[path = "end_to_end/serial.rs"]
mod serial;
#[path = "end_to_end/shell.rs"]
mod shell;
#[path = "end_to_end/systemd.rs"]
mod systemd;
#[path = "end_to_end/world.rs"]
mod world;
