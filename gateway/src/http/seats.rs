//! Who may be connected: so many in all, and of one peer so many that others always find a place.
//!
//! **Constraints.** The kernel's queue of those that wait to be accepted is one for everybody, so nobody is left in it:
//! whoever comes is let in, or is closed at once. **Operation.** Where there is no place, the oldest connection that only
//! waits for a request, or for the body of one, makes room: of the peer itself if that has its share, else of the peer that
//! has most. One that is being made to wait for a wrong token makes room too, but never for its own peer, which could else
//! try the next token at once. One that is being answered is never closed for another. **Failure.** If there is none that can
//! make room, the new one is closed, and counted.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

/// Whom a connection counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// An IPv4 address, or the network of 64 bits that an IPv6 address lies in, all of which one host can have.
    Remote(IpAddr),
    /// The control socket, whose users are one.
    Control,
}

impl Peer {
    pub(super) fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Peer::Remote(Ipv6Addr::from(network).into())
            }
            v4 @ IpAddr::V4(_) => Peer::Remote(v4),
        }
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// On one listener.
    pub(super) total: usize,
    /// Of one peer.
    pub(super) share: usize,
}

/// What may take its time on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// A request is being answered, from its head until the client has read the answer.
    Answer,
    /// Of such a request the body is still to come.
    Body,
    /// Such a client, or one that sent what is no request, is made to wait.
    Penalty,
}

/// What one connection is doing.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// How many of each [`Doing`] are under way: at most one and a half, since a next one may begin early.
    counts: [AtomicU32; 3],
    /// Bytes wait for the client to take them.
    is_writing: AtomicBool,
}

/// For whom a connection may be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// For anybody: nothing is owed to its client.
    Loose,
    /// For other peers: its client is made to wait.
    Penalised,
    /// For nobody: it is being answered.
    Firm,
}

impl Activity {
    /// Something begins; it ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Activity>, doing: Doing) -> UnderWay {
        self.counts[doing as usize].fetch_add(1, Ordering::Relaxed);
        UnderWay { activity: Arc::clone(self), doing }
    }

    pub(super) fn set_writing(&self, is_writing: bool) {
        self.is_writing.store(is_writing, Ordering::Relaxed);
    }

    fn claim(&self) -> Claim {
        let [answers, bodies, penalties] = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        if answers > bodies + penalties || self.is_writing.load(Ordering::Relaxed) {
            Claim::Firm
        } else if penalties > 0 {
            Claim::Penalised
        } else {
            Claim::Loose
        }
    }
}

/// Lasts as long as something is under way on a connection.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    doing: Doing,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.activity.counts[self.doing as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Seats {
    limits: Limits,
    /// In the order in which they came.
    taken: Mutex<Vec<Taken>>,
}

#[derive(Debug)]
struct Taken {
    id: u64,
    peer: Peer,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().retain(|taken| taken.id != self.id);
    }
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Arc<Seats> {
        Arc::new(Seats { limits, taken: Mutex::new(Vec::with_capacity(limits.total)) })
    }

    /// A place for a connection, which is told from others by `id`; none if there is no room. A connection that has to
    /// make room for it is closed.
    pub(super) fn take(self: &Arc<Seats>, id: u64, peer: Peer) -> Option<Seat> {
        let activity = Arc::new(Activity::default());
        let closed = {
            let mut taken = self.lock();
            let closed = match room(&taken, self.limits, peer) {
                Room::Free => None,
                Room::Instead(index) => Some(taken.remove(index)),
                Room::None => return None,
            };
            taken.push(Taken { id, peer, activity: Arc::clone(&activity), task: None });
            closed
        };
        if let Some(task) = closed.and_then(|closed| closed.task) {
            task.abort();
        }
        Some(Seat { seats: Arc::clone(self), id, activity })
    }

    /// Says which task serves a connection, if it is still served.
    pub(super) fn served_by(&self, id: u64, task: AbortHandle) {
        if let Some(taken) = self.lock().iter_mut().find(|taken| taken.id == id) {
            taken.task = Some(task);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// If the connection at this index is closed.
    Instead(usize),
    None,
}

fn room(taken: &[Taken], limits: Limits, peer: Peer) -> Room {
    let count = |peer: Peer| taken.iter().filter(|other| other.peer == peer).count();
    let own = count(peer);
    if own >= limits.share {
        let is_loose = |other: &Taken| other.peer == peer && other.activity.claim() == Claim::Loose;
        let oldest = taken.iter().enumerate().find(|(_, other)| is_loose(other));
        return oldest.map_or(Room::None, |(index, _)| Room::Instead(index));
    }
    if taken.len() < limits.total {
        return Room::Free;
    }
    // Of several peers with as many, that of the oldest connection.
    let not_firm = taken.iter().enumerate().filter(|(_, other)| other.activity.claim() != Claim::Firm);
    let counted = not_firm.map(|(index, other)| (index, count(other.peer)));
    let most = counted.reduce(|first, next| if next.1 > first.1 { next } else { first });
    most.filter(|(_, others)| *others > own).map_or(Room::None, |(index, _)| Room::Instead(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 6, share: 3 };

    fn peer(last: u8) -> Peer {
        Peer::of(IpAddr::from([192, 168, 0, last]))
    }

    /// Takes a place for each of these peers.
    fn filled(seats: &Arc<Seats>, peers: &[u8]) -> Vec<Option<Seat>> {
        peers.iter().zip(0..).map(|(last, id)| seats.take(id, peer(*last))).collect()
    }

    fn ids(seats: &Seats) -> Vec<u64> {
        seats.lock().iter().map(|taken| taken.id).collect()
    }

    #[test]
    fn whoever_has_its_share_makes_room_for_itself() {
        let seats = Seats::new(LIMITS);
        let held = filled(&seats, &[1, 1, 2, 1]);
        let answering = held[0].as_ref().unwrap().activity.begin(Doing::Answer);
        let newest = seats.take(9, peer(1));
        assert!(newest.is_some());
        assert_eq!(ids(&seats), [0, 2, 3, 9], "the oldest that waits goes, not one that is answered");
        drop(answering);
        drop(newest);
        assert_eq!(ids(&seats), [0, 2, 3]);
    }

    #[test]
    fn a_peer_whose_connections_are_all_answered_gets_no_further_one_and_others_do() {
        let seats = Seats::new(LIMITS);
        let held = filled(&seats, &[1, 1, 1]);
        let answer = |seat: &Seat| seat.activity.begin(Doing::Answer);
        let answers: Vec<UnderWay> = held.iter().flatten().map(answer).collect();
        assert!(seats.take(9, peer(1)).is_none());
        assert!(seats.take(10, peer(2)).is_some());
        drop(answers);
        held[1].as_ref().unwrap().activity.set_writing(true);
        assert!(seats.take(11, peer(1)).is_some());
        assert_eq!(ids(&seats), [1, 2]);
        assert!(seats.take(12, peer(1)).is_some());
    }

    #[test]
    fn when_all_places_are_taken_whoever_has_most_makes_room() {
        let seats = Seats::new(LIMITS);
        let held = filled(&seats, &[3, 1, 1, 2, 2, 2]);
        let newest = seats.take(9, peer(4));
        assert!(newest.is_some());
        assert_eq!(ids(&seats), [0, 1, 2, 4, 5, 9]);
        // Nobody who has as few is closed for another.
        let seats = Seats::new(Limits { total: 2, share: 2 });
        let others = filled(&seats, &[1, 2]);
        let one = seats.take(7, peer(3));
        assert!(one.is_some() && seats.take(8, peer(3)).is_none());
        drop((held, others));
    }

    #[test]
    fn a_request_whose_body_does_not_come_makes_room_for_its_own_peer_and_for_others() {
        let seats = Seats::new(LIMITS);
        let held = filled(&seats, &[1, 1, 1]);
        let begin = |doing: Doing| move |seat: &Seat| seat.activity.begin(doing);
        let answers: Vec<UnderWay> = held.iter().flatten().map(begin(Doing::Answer)).collect();
        let bodies: Vec<UnderWay> = held.iter().flatten().map(begin(Doing::Body)).collect();
        let newest = seats.take(9, peer(1));
        assert!(newest.is_some());
        assert_eq!(ids(&seats), [1, 2, 9]);
        // They have come, and are answered.
        drop(bodies);
        let others = [(20, 2), (21, 2), (22, 3)].map(|(id, last)| seats.take(id, peer(last)));
        let newest_is_answered = newest.as_ref().map(begin(Doing::Answer));
        assert!(seats.take(10, peer(1)).is_none());
        assert!(seats.take(11, peer(4)).is_some());
        drop((answers, newest_is_answered, others));
    }

    #[test]
    fn whoever_pays_for_a_wrong_token_makes_room_for_others_but_not_for_itself() {
        let seats = Seats::new(LIMITS);
        let held = filled(&seats, &[1, 1, 1, 2, 2, 3]);
        let begin = |doing: Doing| move |seat: &Seat| seat.activity.begin(doing);
        let answers: Vec<UnderWay> = held.iter().flatten().map(begin(Doing::Answer)).collect();
        assert!(seats.take(7, peer(4)).is_none(), "all are being answered");
        let penalties: Vec<UnderWay> = held.iter().take(3).flatten().map(begin(Doing::Penalty)).collect();
        assert!(seats.take(8, peer(1)).is_none(), "the next token at once");
        let newest = seats.take(9, peer(4));
        assert!(newest.is_some());
        assert_eq!(ids(&seats), [1, 2, 3, 4, 5, 9]);
        assert!(seats.take(10, peer(2)).is_none(), "whoever has as many makes no room");
        drop((answers, penalties));
    }

    #[test]
    fn a_host_has_one_address_of_the_fourth_version_and_a_network_of_the_sixth() {
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }
}
