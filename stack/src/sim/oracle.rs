//! What every endpoint has written, read and been told, and whether that fits together.
//!
//! Each direction of each connection is a stream with a number of its own. Its first eight bytes
//! are the number, and all others follow from it, so that a reader finds out whose bytes it gets
//! and checks each of them at once: a byte that was lost, doubled, moved or taken from another
//! connection (an earlier one on the same ports, say) shows where it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use barewire_driver::mem::Checksum;

use super::content;
use crate::error::SocketError;
use crate::rng::Rng;
use crate::socket::SocketId;
use crate::tcp::State;

/// The number of an endpoint, and of the stream that it writes.
pub(super) type Party = u64;

/// Payload of the smallest datagram that the smallest MTU of a scenario makes fragments of.
const SMALLEST_FRAGMENTED: usize = 576 - 20 - 8 + 1;

/// More payload than a SYN carries in any scenario.
const SYN_PAYLOAD_MAX: u64 = 1460;

/// Most complaints that are kept.
const MAX_VIOLATIONS: usize = 3;

/// One end of a connection.
#[derive(Debug)]
struct Endpoint {
    host: usize,
    socket: SocketId,
    local: SocketAddr,
    remote: SocketAddr,
    /// The other end, once a byte has been read by one of the two.
    peer: Option<Party>,
    /// What this end has read names `peer`. Until then it is only who has read this end's stream: of
    /// one whose SYN had data, perhaps by a copy of it.
    named: bool,
    written: u64,
    read: u64,
    /// Nothing more will be written: shut down or closed.
    finished: bool,
    /// The end of the other stream has been read.
    eof: bool,
    /// Closed although the other stream had not ended.
    left_early: bool,
    aborted: bool,
    /// The first bytes may have left with the SYN.
    opens_with_data: bool,
    error: Option<SocketError>,
    /// The handle has been given back.
    closed: bool,
}

/// The ledger of a run.
#[derive(Debug)]
pub struct Oracle {
    parties: BTreeMap<Party, Endpoint>,
    datagrams: BTreeMap<u64, usize>,
    /// Hosts with so little room for orphans that they reset connections that were closed in order.
    short_of_orphans: BTreeSet<usize>,
    rng: Rng,
    violations: Vec<String>,
    /// What has happened, for reports.
    pub figures: Figures,
}

/// What has happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of streams that were read, each of them checked.
    pub bytes_checked: u64,
    /// Endpoints of connections.
    pub endpoints: u64,
    /// Endpoints that read to the end of their peer's stream.
    pub graceful: u64,
    /// Endpoints that ended with an error.
    pub errors: u64,
    /// Errors in foul weather that nothing an application did explains.
    pub unexplained: u64,
    /// Calls of `connect` that ended with an error.
    pub connects_failed: u64,
    /// Connections whose SYN waited for data.
    pub fast_opens: u64,
    /// Streams whose beginning came with a SYN and was read by more than one connection.
    pub repeated_opens: u64,
    /// Datagrams that were sent.
    pub datagrams_sent: u64,
    /// Datagrams that were received and checked.
    pub datagrams_received: u64,
    /// Answers to echo requests that were received and checked.
    pub pongs: u64,
}

impl Oracle {
    /// An empty ledger; stream numbers come from `seed`.
    pub fn new(seed: u64) -> Oracle {
        Oracle {
            parties: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            short_of_orphans: BTreeSet::new(),
            rng: Rng::new(u128::from(seed) | 1 << 100),
            violations: Vec::new(),
            figures: Figures::default(),
        }
    }

    /// What was wrong, first thing first.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn complain(&mut self, what: String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(what);
        }
    }

    /// The host may reset connections that its applications have closed in order.
    pub(super) fn excuse_orphans(&mut self, host: usize) {
        self.short_of_orphans.insert(host);
    }

    /// A new endpoint, and the number of the stream that it writes.
    pub(super) fn open(
        &mut self,
        host: usize,
        socket: SocketId,
        (local, remote): (SocketAddr, SocketAddr),
    ) -> Party {
        let party = self.rng.next_u64();
        self.figures.endpoints += 1;
        let endpoint = Endpoint {
            host,
            socket,
            local,
            remote,
            peer: None,
            named: false,
            written: 0,
            read: 0,
            finished: false,
            eof: false,
            left_early: false,
            aborted: false,
            opens_with_data: false,
            error: None,
            closed: false,
        };
        self.parties.insert(party, endpoint);
        party
    }

    fn with(&mut self, party: Party, f: impl FnOnce(&mut Endpoint)) {
        match self.parties.get_mut(&party) {
            Some(endpoint) => f(endpoint),
            None => self.complain(format!("there is no endpoint {party:x}")),
        }
    }

    pub(super) fn wrote(&mut self, party: Party, bytes: usize) {
        self.with(party, |endpoint| endpoint.written += bytes as u64);
    }

    pub(super) fn finished(&mut self, party: Party) {
        self.with(party, |endpoint| endpoint.finished = true);
    }

    pub(super) fn opens_with_data(&mut self, party: Party) {
        self.figures.fast_opens += 1;
        self.with(party, |endpoint| endpoint.opens_with_data = true);
    }

    pub(super) fn aborted(&mut self, party: Party) {
        self.with(party, |endpoint| (endpoint.aborted, endpoint.closed) = (true, true));
    }

    pub(super) fn closed(&mut self, party: Party) {
        self.with(party, |endpoint| {
            endpoint.left_early = !endpoint.eof && endpoint.error.is_none();
            (endpoint.finished, endpoint.closed) = (true, true);
        });
    }

    pub(super) fn failed(&mut self, party: Party, error: SocketError) {
        self.figures.errors += 1;
        self.with(party, |endpoint| endpoint.error = Some(error));
    }

    pub(super) fn connect_failed(&mut self, party: Party, error: SocketError) {
        self.figures.connects_failed += 1;
        self.with(party, |endpoint| (endpoint.error, endpoint.closed) = (Some(error), true));
    }

    /// Bytes that `party` has read. `head` keeps the first eight until they are there.
    pub(super) fn read(&mut self, party: Party, bytes: &[u8], head: &mut Vec<u8>) {
        let Some(endpoint) = self.parties.get_mut(&party) else { return };
        let offset = endpoint.read;
        endpoint.read += bytes.len() as u64;
        self.figures.bytes_checked += bytes.len() as u64;
        if !endpoint.named {
            let missing = content::ID_LEN - head.len();
            head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
            if let Some(id) = head.first_chunk() {
                self.claim(party, u64::from_le_bytes(*id));
            }
        }
        let Some(endpoint) = self.parties.get(&party) else { return };
        let Some(peer) = endpoint.peer.filter(|_| endpoint.named) else { return };
        // The bytes of the number itself have been compared by finding the endpoint.
        let known = (content::ID_LEN as u64).saturating_sub(offset).min(bytes.len() as u64);
        let right = content::matches(peer, offset + known, &bytes[known as usize..]);
        let written = self.parties.get(&peer).map_or(0, |other| other.written);
        if !right {
            self.complain(format!("{}: wrong bytes behind {offset}", self.name(party)));
        }
        if offset + bytes.len() as u64 > written {
            self.complain(format!("{}: read more than {written} written", self.name(party)));
        }
    }

    /// Joins two endpoints by the number that the stream carries.
    fn claim(&mut self, party: Party, peer: Party) {
        let (Some(ours), Some(theirs)) = (self.parties.get(&party), self.parties.get(&peer)) else {
            return self.complain(format!("{}: reads stream {peer:x}", self.name(party)));
        };
        // RFC 7413 §2.1: who sends data with a SYN accepts that the server may take it for several
        // connections: a copy that comes late for another one, and the first for one that ends
        // before the client has heard of it. Its bytes have to be right all the same, and one of
        // them at most goes on to what came after the SYN, which `settle` looks at.
        let (opener, opened) = (ours.opens_with_data, theirs.opens_with_data);
        let other_way = ours.peer.is_some_and(|other| other != peer) && !opener;
        if (ours.local, ours.remote) != (theirs.remote, theirs.local) || other_way {
            return self.complain(format!("{}: reads stream {peer:x}", self.name(party)));
        }
        let (named, other_peer) = (theirs.named, theirs.peer);
        let taken = self.parties.iter().any(|(&other, e)| {
            let reads_it = e.peer == Some(peer) && (e.named || !e.opens_with_data);
            reads_it && other != party
        });
        let other_peer = other_peer.filter(|&other| other != party);
        if (taken || other_peer.is_some()) && !opened {
            return self.complain(format!("{}: {peer:x} has another reader", self.name(party)));
        }
        self.with(party, |endpoint| (endpoint.peer, endpoint.named) = (Some(peer), true));
        if taken || other_peer.is_some() {
            self.figures.repeated_opens += 1;
            if !named {
                // Which of them it is joined to only what it reads will tell.
                self.with(peer, |endpoint| endpoint.peer = None);
            }
            return;
        }
        self.with(peer, |endpoint| endpoint.peer = Some(party));
    }

    /// `party` has read the end of the other stream: all of it must have been read before.
    pub(super) fn eof(&mut self, party: Party, head: &[u8]) {
        self.figures.graceful += 1;
        self.with(party, |endpoint| endpoint.eof = true);
        let Some(endpoint) = self.parties.get(&party) else { return };
        let ended = |other: &Endpoint| other.finished && other.written == endpoint.read;
        let guessed = endpoint.opens_with_data && !endpoint.named;
        let fits = match endpoint.peer.filter(|_| !guessed) {
            Some(peer) => {
                let right = endpoint.named || peer.to_le_bytes().starts_with(head);
                right && self.parties.get(&peer).is_some_and(ended)
            }
            None => self.parties.iter().any(|(id, other)| {
                other.local == endpoint.remote
                    && other.remote == endpoint.local
                    && ended(other)
                    && id.to_le_bytes().starts_with(head)
            }),
        };
        if !fits {
            let peer = endpoint.peer.map(|peer| self.name(peer));
            let what = format!("{}: end of stream, but {peer:?}", self.name(party));
            self.complain(what);
        }
    }

    fn name(&self, party: Party) -> String {
        match self.parties.get(&party) {
            Some(e) => format!("{party:x} {e:?}"),
            None => format!("{party:x}"),
        }
    }

    /// A new datagram's number, for its first bytes.
    pub(super) fn datagram(&mut self, len: usize) -> u64 {
        let id = self.rng.next_u64();
        self.figures.datagrams_sent += 1;
        self.datagrams.insert(id, len);
        id
    }

    /// Checks a datagram, the request or its echo. True if it is one that was sent.
    pub(super) fn check_datagram(&mut self, bytes: &[u8]) -> bool {
        let whole = match bytes.first_chunk() {
            Some(id) => {
                let id = u64::from_le_bytes(*id);
                self.datagrams.get(&id) == Some(&bytes.len()) && content::matches(id, 0, bytes)
            }
            // Too short for a number.
            None => self
                .datagrams
                .iter()
                .any(|(id, &len)| len == bytes.len() && content::matches(*id, 0, bytes)),
        };
        let whole = whole || self.fooled_the_checksum(bytes);
        if !whole {
            self.complain(format!("a datagram of {} bytes is not one that was sent", bytes.len()));
        }
        whole
    }

    /// True if `bytes` are a datagram that was sent but for what the Internet checksum cannot see.
    /// A frame gets one flipped bit at most, which it sees always; two frames of one fragmented
    /// datagram may get one each, in places that cancel out.
    fn fooled_the_checksum(&self, bytes: &[u8]) -> bool {
        if bytes.len() < SMALLEST_FRAGMENTED {
            return false;
        }
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::new();
            sum.add(bytes);
            sum.finish()
        };
        let mut sent = vec![0; bytes.len()];
        self.datagrams.iter().filter(|&(_, &len)| len == bytes.len()).any(|(&id, _)| {
            content::fill(id, 0, &mut sent);
            sum(&sent) == sum(bytes)
        })
    }

    /// Pairs of endpoints both of which are open: host and socket of each.
    pub(super) fn open_pairs(&self) -> Vec<[(usize, SocketId); 2]> {
        let open = |e: &&Endpoint| !e.closed && e.error.is_none();
        let pair = |(&party, e): (&Party, &Endpoint)| {
            let peer = e.peer.filter(|&peer| party < peer)?;
            let other = self.parties.get(&peer).filter(open).filter(|o| o.peer == Some(party))?;
            Some([(e.host, e.socket), (other.host, other.socket)])
        };
        self.parties.iter().filter(|(_, e)| open(e)).filter_map(pair).collect()
    }

    /// At the end of a run every endpoint has read to the end, left on purpose, or been told why
    /// not; and what it was told has a reason. On a `calm` wire only the applications give one.
    pub(super) fn settle(&mut self, calm: bool) {
        let (mut wrong, mut unexplained) = (Vec::new(), 0);
        let mut readers = BTreeMap::new();
        for (&party, e) in &self.parties {
            if e.read > SYN_PAYLOAD_MAX
                && let Some(peer) = e.peer.filter(|_| e.named)
                && let Some(other) = readers.insert(peer, party)
            {
                let (one, other) = (self.name(party), self.name(other));
                wrong.push(format!("{peer:x} is read on and on by both {one} and {other}"));
            }
            if !(e.eof || e.left_early || e.aborted || e.error.is_some()) {
                wrong.push(format!("{}: neither ended nor failed", self.name(party)));
            }
            let reason = match e.error {
                None => true,
                Some(SocketError::ConnectionRefused) => e.peer.is_none(),
                Some(_) => match e.peer.and_then(|peer| self.parties.get(&peer)) {
                    Some(peer) => {
                        let excused = peer.closed && self.short_of_orphans.contains(&peer.host);
                        peer.aborted || peer.left_early || peer.error.is_some() || excused
                    }
                    None => true,
                },
            };
            if !reason && !calm {
                // The wire may be the reason: counted, for whoever knows how often it should be.
                unexplained += 1;
            } else if !reason {
                wrong.push(format!("{}: failed for no reason", self.name(party)));
            }
        }
        self.figures.unexplained += unexplained;
        for what in wrong {
            self.complain(what);
        }
    }
}

/// Whether two ends of one connection can be in these states at one moment, whatever is under way
/// between them: who has the other's FIN, or the ACK of its own, has it from the other.
pub(super) fn states_fit(one: State, other: State) -> bool {
    !(claims_too_much(one, other) || claims_too_much(other, one))
}

fn claims_too_much(one: State, other: State) -> bool {
    let has_peers_fin = match one {
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait => true,
        State::Closed
        | State::Listen
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait1
        | State::FinWait2 => false,
    };
    let fin_acked = matches!(one, State::FinWait2 | State::TimeWait);
    let sent_fin = match other {
        State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait
        | State::Closed => true,
        State::Listen
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::CloseWait => false,
    };
    let has_fin = match other {
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed => {
            true
        }
        State::Listen
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait1
        | State::FinWait2 => false,
    };
    has_peers_fin && !sent_fin || fin_acked && !has_fin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Oracle, Party, Party) {
        let mut oracle = Oracle::new(1);
        let (a, b) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let socket = SocketId::from_bits(0);
        let (one, two) = (oracle.open(0, socket, (a, b)), oracle.open(1, socket, (b, a)));
        (oracle, one, two)
    }

    fn stream(party: Party, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        content::fill(party, 0, &mut bytes);
        bytes
    }

    #[test]
    fn bytes_in_order_and_their_end_are_right_in_whatever_pieces() {
        let (mut oracle, one, two) = ends();
        oracle.wrote(one, 100);
        oracle.finished(one);
        let (bytes, mut head) = (stream(one, 100), Vec::new());
        for piece in [&bytes[..3], &bytes[3..10], &bytes[10..]] {
            oracle.read(two, piece, &mut head);
        }
        oracle.eof(two, &head);
        oracle.eof(one, &[]);
        assert_eq!(oracle.violations().len(), 1, "one has read an end that two never wrote");
    }

    #[test]
    fn every_way_to_damage_a_stream_is_seen() {
        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage); 4] = [
            ("a flipped bit", |b| b[50] ^= 4),
            ("a lost byte", |b| b.copy_within(61.., 60)),
            ("a doubled byte", |b| b.insert(60, b[59])),
            ("another stream", |b| b[0] ^= 1),
        ];
        for (what, damage) in damages {
            let (mut oracle, one, two) = ends();
            oracle.wrote(one, 200);
            let mut bytes = stream(one, 200);
            damage(&mut bytes);
            bytes.truncate(190);
            oracle.read(two, &bytes, &mut Vec::new());
            assert!(!oracle.violations().is_empty(), "{what}");
        }
    }

    #[test]
    fn an_early_end_and_silence_are_seen() {
        let (mut oracle, one, two) = ends();
        oracle.wrote(one, 100);
        oracle.finished(one);
        let mut head = Vec::new();
        oracle.read(two, &stream(one, 99), &mut head);
        oracle.eof(two, &head);
        assert_eq!(oracle.violations().len(), 1);
        oracle.settle(true);
        assert_eq!(oracle.violations().len(), 2, "one has neither ended nor failed");
    }

    #[test]
    fn a_stream_has_one_reader_unless_it_began_with_its_syn() {
        for with_data in [false, true] {
            let (mut oracle, one, two) = ends();
            if with_data {
                oracle.opens_with_data(one);
            }
            oracle.wrote(one, 100);
            let (local, remote) = (oracle.parties[&two].local, oracle.parties[&two].remote);
            let three = oracle.open(1, SocketId::from_bits(1), (local, remote));
            let mut bytes = stream(one, 100);
            oracle.read(two, &bytes[..50], &mut Vec::new());
            oracle.read(three, &bytes[..50], &mut Vec::new());
            assert_eq!(oracle.violations().is_empty(), with_data);
            assert_eq!(oracle.figures.repeated_opens, u64::from(with_data));
            if with_data {
                // Whoever reads it, reads what was written.
                bytes[60] ^= 1;
                oracle.read(three, &bytes[50..], &mut Vec::new());
                assert_eq!(oracle.violations().len(), 1);
            }
        }
    }

    /// The server has opened two connections with the data of one SYN, the first of which ended
    /// before the client heard of it.
    fn opened_twice() -> (Oracle, Party, Party, Party) {
        let (mut oracle, one, two) = ends();
        oracle.opens_with_data(one);
        oracle.wrote(one, 5000);
        let (local, remote) = (oracle.parties[&two].local, oracle.parties[&two].remote);
        let three = oracle.open(1, SocketId::from_bits(1), (local, remote));
        oracle.read(two, &stream(one, 50), &mut Vec::new());
        oracle.aborted(two);
        (oracle, one, two, three)
    }

    #[test]
    fn who_opens_with_data_is_joined_to_whom_it_reads() {
        for reader_first in [false, true] {
            let (mut oracle, one, two, three) = opened_twice();
            oracle.wrote(three, 100);
            if reader_first {
                oracle.read(three, &stream(one, 50), &mut Vec::new());
            }
            let mut head = Vec::new();
            for byte in stream(three, 100) {
                oracle.read(one, &[byte], &mut head);
            }
            if !reader_first {
                oracle.read(three, &stream(one, 50), &mut Vec::new());
            }
            assert_eq!(oracle.violations(), &[] as &[String]);
            assert_eq!(oracle.parties[&one].peer, Some(three));
            assert_eq!(oracle.figures.repeated_opens, 1);
            // It is joined now: no byte of the other server end may follow.
            oracle.wrote(two, 200);
            oracle.wrote(three, 100);
            oracle.read(one, &stream(two, 200)[100..], &mut head);
            assert_eq!(oracle.violations().len(), 1);
        }
    }

    #[test]
    fn only_one_reader_gets_more_than_what_the_syn_carried() {
        let (mut oracle, one, two, three) = opened_twice();
        oracle.read(three, &stream(one, 5000), &mut Vec::new());
        for party in [one, three] {
            oracle.aborted(party);
        }
        oracle.settle(true);
        assert_eq!(oracle.violations(), &[] as &[String]);
        oracle.read(two, &stream(one, 5000)[50..], &mut Vec::new());
        oracle.settle(true);
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn the_first_bytes_name_the_writer_whoever_has_read_before() {
        let (mut oracle, one, two) = ends();
        oracle.wrote(one, 100);
        oracle.wrote(two, 100);
        oracle.read(two, &stream(one, 100), &mut Vec::new());
        let mut bytes = stream(two, 100);
        bytes[2] ^= 1;
        oracle.read(one, &bytes, &mut Vec::new());
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn states_that_cannot_be_at_once_are_told() {
        use State::{CloseWait, Closed, Established, FinWait1, FinWait2, TimeWait};
        assert!(states_fit(Established, FinWait1) && states_fit(CloseWait, FinWait2));
        assert!(states_fit(TimeWait, Closed) && states_fit(FinWait1, FinWait1));
        assert!(!states_fit(Established, CloseWait) && !states_fit(Established, FinWait2));
        assert!(!states_fit(TimeWait, FinWait1));
    }
}
