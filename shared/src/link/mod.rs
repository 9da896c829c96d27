//! Both halves of the conversation between a device and a gateway, as state machines without IO.
//!
//! Time is an argument, messages go in through `handle` and come out through `poll_transmit`, and
//! `poll_timeout` says when to ask again. The device's half, [`Sender`], decides *what* is to be sent;
//! the device, which has the rows, encodes it. The gateway's half, [`Receiver`], hands rows up in order.
//!
//! # Opening
//!
//! The device says `Hello`; the gateway looks it up and answers `Welcome`, with the boot that numbers
//! its rows. Where the gateway does not know the schema, the device sends its `Birth` messages, and no
//! data before an `Ack` says that they are complete. Every message of the gateway carries its epoch:
//! another than before means that it restarted, and the device says `Hello` again.
//!
//! # Two levels of acknowledgement
//!
//! *Received* means that a row need not be sent again in this epoch, *released* that it is durable and
//! its memory free. After a new `Welcome` everything that is not received is sent again.
//!
//! # Loss
//!
//! Over a serial line ([`Transport::Serial`]) up to [`WINDOW_BLOCKS`] blocks are in flight within the
//! credit, and exactly those that are missing are repeated: when a block sent later is acknowledged
//! first, since a line never overtakes, or when the retransmission timeout of RFC 6298 runs out.
//! Over MQTT ([`Transport::Mqtt`]) the broker repeats, and blocks are sent again only after another
//! `Welcome`, which the gateway sends when something stays missing: see [`Receiver::stalled_since`].
//!
//! Rows that the device lost itself are declared by `Gap`, which is repeated until it has arrived.
//! Nothing else ends the wait for a missing row, so every number is either received or in a gap.

mod receiver;
mod rtt;
mod sender;
mod session;
mod window;

pub use receiver::{Counters as ReceiverCounters, Event, Known, LinkError, Receiver, Terms};
pub use sender::{Sender, SenderError, Transmit};
pub use window::{Backlog, Block, Flight, Place};

/// Most blocks in flight, and held beyond a hole.
pub const WINDOW_BLOCKS: u8 = 16;

/// How long the gateway's acknowledgement waits for company.
const ACK_DELAY_MS: u32 = 5;

/// What carries the messages, and so who makes up for loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Frames on a line that loses and damages, but never overtakes.
    Serial,
    /// Messages through a broker that repeats them.
    Mqtt,
}
