//! The harness of Forebay: simulated devices, real services, faults, and the judge that compares what was produced with
//! what a store returns.
//!
//! Nothing here replaces a part of the product. Devices run the real firmware core over a real pseudo-terminal or a real
//! MQTT connection, the gateway is the real binary as a child process, brokers and databases are the packaged ones. What
//! the harness adds is the *truth*: every simulated device logs each row it produced, with the true time, and which rows
//! were acknowledged to it. [`ledger`] holds that log against the store's own answers.
//!
//! In reading order: [`truth`] is the log, [`device`] writes it, [`board`] is a device on an emulated chip, [`pty`] and [`proxy`] carry the bytes, [`mqtt`] makes packets by hand, [`tls`] certificates, [`gateway`] and
//! [`services`] are the processes, [`hostile`] clients mean harm, [`readback`] asks the stores, [`ledger`] judges. [`world`] puts them together, [`docs`] reads what the pages show. Faults of the disk come from
//! [`forgetting_fs`], [`strace`] and [`mount`].

pub mod board;
pub mod clock;
pub mod closing;
pub mod device;
pub mod docs;
pub mod forgetting_fs;
pub mod gateway;
pub mod hostile;
pub mod http;
pub mod ledger;
pub mod mount;
pub mod mqtt;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod readback;
pub mod seed;
pub mod services;
pub mod strace;
pub mod tls;
pub mod truth;
pub mod usb;
pub mod world;
