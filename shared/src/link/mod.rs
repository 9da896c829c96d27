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
//! A `Welcome` carries the token of the `Hello` that it answers. A device without a boot obeys only the
//! answer to its last `Hello`: one that was meant for an earlier life of it, and was on its way while it
//! restarted, would give its rows the numbers of others.
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
//!
//! # The device's half
//!
//! It is *detached* (over MQTT, while no gateway is present), *greeting* or *welcomed*. Any message for
//! another chip, boot or epoch than the table names, and any that acknowledges what was never sealed or
//! takes back what was acknowledged, changes nothing, nor does it count as a sign of life.
//!
//! | state | event | what happens | then |
//! |---|---|---|---|
//! | detached | presence of a gateway | | greeting |
//! | detached | anything else | nothing | detached |
//! | greeting | the wait is over | `Hello`; the wait doubles, 250 ms to 5 s | greeting |
//! | greeting | `Welcome`, with its boot or, where it has none, its last token | takes boot, epoch, *received*, *released* and credit; nothing is in flight | welcomed |
//! | greeting | `Reject` wrong boot | `Hello` within 250 ms: a gateway is there | greeting |
//! | greeting | `Ack`, `TimeRequest` | nothing | greeting |
//! | welcomed | `Welcome` | as above: what is not *received* is sent again | welcomed |
//! | welcomed | `Ack` | frees what is *released*, marks what has arrived, finds what was overtaken, takes the credit | welcomed |
//! | welcomed | `TimeRequest` | `TimeReply` before anything else | welcomed |
//! | welcomed | `Ack`, `TimeRequest` or presence of another epoch | the gateway is another one | greeting |
//! | welcomed | `Reject` wrong boot | | greeting |
//! | welcomed | schema wanted | all `Birth`, again after each timeout, until an `Ack` says that they are complete | welcomed |
//! | welcomed | rows lost beyond *received* | `Gap` with all that is lost, whenever it has grown and after each timeout | welcomed |
//! | welcomed | a block in flight was overtaken, or its timeout is over (serial) | that block again; after a timeout the wait doubles | welcomed |
//! | welcomed | a sealed block, and credit | the block | welcomed |
//! | welcomed | a sealed block, no credit, no answer awaited (serial) | `Status` after each timeout, as a question | welcomed |
//! | welcomed | 4 s without a word of its own but `TimeReply` | `Status`, as a sign of life; its answer tells of credit that was lost | welcomed |
//! | welcomed | 15 s without a word of the gateway | | greeting |
//! | greeting, welcomed | presence withdrawn (MQTT) | | detached |
//!
//! # The gateway's half
//!
//! It is *new*, *asked* (a `Hello` waits for the host's answer) or *in session*; a session knows whether
//! the device is known to have had its `Welcome`. What is refused changes nothing, and is answered with
//! `Reject` where that helps.
//!
//! | state | event | what happens | then |
//! |---|---|---|---|
//! | any | the host opens a serial line | `Reject` wrong boot, which asks for the `Hello` | new |
//! | new, asked | `Hello` | up to the host | asked |
//! | new, asked | any other message | `Reject` wrong boot | as before |
//! | asked | the host lets the device in | `Welcome`, `Ack`; rows between what the host has and what the device has left are a gap `forgotten` | in session |
//! | asked | the host knows more rows than the device has numbered | refused | asked |
//! | in session | `Hello` of the same boot, or without one of a device that has had no `Welcome` yet and counts on | `Welcome`, `Ack`: it has missed something | in session |
//! | in session | any other `Hello` | what is held is forgotten; up to the host | asked |
//! | in session | message with another boot | `Reject` wrong boot | in session |
//! | in session | `Birth` | up to the host, which says when they are complete; then `Ack` | in session |
//! | in session | `Data` before the schema is complete | dropped; it comes again | in session |
//! | in session | `Data` that has come before | `Ack` at once | in session |
//! | in session | `Data` at the hole | up to the host, with what was held behind it; `Ack` soon | in session |
//! | in session | `Data` beyond the hole | held while there is room, which is always kept for the block at the hole; `Ack` with ranges at once | in session |
//! | in session | `Data` whose header cannot be read | `Reject` malformed | in session |
//! | in session | `Gap` from at or before the hole | what of it is neither received nor held is up to the host, as lost; `Ack` at once | in session |
//! | in session | `Gap` or `Status` that leaves rows out | `Reject` wrong boot: the `Hello` sorts that out | in session |
//! | in session | `Status` | `Ack` at once; rows that were sent and have not come are missing | in session |
//! | in session | rows became durable, credit changed | `Ack` | in session |
//! | in session | rows missing for 5 s (MQTT) | the host lets `Welcome` be said again | in session |

pub mod bugs;
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
