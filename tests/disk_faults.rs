//! The journal's promises on a real disk that fails, shown with the real gateway: power cuts over a file system that
//! forgets what was not synced, SIGKILL at chosen system calls, calls that fail, disks that are full or read-only.
//!
//! These tests mount file systems, for which they need root (or, for FUSE alone, Debian's `fuse3`), and trace the gateway.
//! Where that is not allowed they fail. mosquitto and InfluxDB 1 run outside the faulty disk.
//!
//! Random moments come from one seed a test, which is printed; `FOREBAY_SEED=…` replays it as far as the threads of the
//! gateway allow. `FOREBAY_LONG=1` asks for the full counts of `tests/run --long`.

#[path = "disk_faults/ack_modes.rs"]
mod ack_modes;
#[path = "disk_faults/failing_calls.rs"]
mod failing_calls;
#[path = "disk_faults/forgetting.rs"]
mod forgetting;
#[path = "disk_faults/full_disk.rs"]
mod full_disk;
#[path = "disk_faults/kills_at_calls.rs"]
mod kills_at_calls;
#[path = "disk_faults/overload.rs"]
mod overload;
#[path = "disk_faults/power_cuts.rs"]
mod power_cuts;
#[path = "disk_faults/read_only.rs"]
mod read_only;
#[path = "disk_faults/site.rs"]
mod site;
