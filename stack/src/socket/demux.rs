//! From a packet's addresses and ports to the connection that it belongs to.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use arrayvec::ArrayVec;
use barewire_driver::device::BURST_FRAMES;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::hint::rarely;

/// The 4-tuple of a flow over IPv4, as this host sees it. IPv6 has a table of its own, so that
/// neither pays for the other's keys.
#[derive(Clone, Copy, Debug, Eq)]
pub struct FlowKey {
    /// This host's address.
    pub local: Ipv4Addr,
    /// The peer's address.
    pub remote: Ipv4Addr,
    /// This host's port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FlowKey {
    /// This host's address and port.
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.local), self.local_port)
    }

    /// The peer's address and port.
    pub fn remote_addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.remote), self.remote_port)
    }

    /// All of it in two words, in any order.
    #[inline(always)]
    fn words(&self) -> (u64, u32) {
        let [local, remote] =
            [self.local, self.remote].map(|addr| u64::from(u32::from_ne_bytes(addr.octets())));
        let ports = u32::from(self.local_port) | u32::from(self.remote_port) << 16;
        (local | remote << 32, ports)
    }

    /// A hash under `secret` that a peer cannot aim: it spreads the flow table and says which
    /// engine owns the flow.
    #[inline]
    pub fn hash(&self, secret: (u64, u64)) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        hasher.write_u64(u64::from(self.local.to_bits()) << 32 | u64::from(self.remote.to_bits()));
        hasher.write_u32(ports);
        hasher.finish()
    }
}

impl PartialEq for FlowKey {
    /// In two comparisons: keys are compared several times a packet.
    #[inline(always)]
    fn eq(&self, other: &FlowKey) -> bool {
        let ((addrs, ports), (other_addrs, other_ports)) = (self.words(), other.words());
        (addrs ^ other_addrs) | u64::from(ports ^ other_ports) == 0
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

/// Which table a flow's state is in, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A connection in the socket table.
    Connection(u32),
    /// A half-open connection of a listener.
    HalfOpen(u32),
    /// A connection in TIME-WAIT.
    TimeWait(u32),
}

const KIND_SHIFT: u32 = 30;
const INDEX_MASK: u32 = (1 << KIND_SHIFT) - 1;

impl Tag {
    /// The tag in 32 bits: two of kind, thirty of index. Also the token of the flow's timer.
    pub fn to_bits(self) -> u32 {
        let (kind, index) = match self {
            Tag::Connection(index) => (0, index),
            Tag::HalfOpen(index) => (1, index),
            Tag::TimeWait(index) => (2, index),
        };
        debug_assert!(index <= INDEX_MASK);
        kind << KIND_SHIFT | index & INDEX_MASK
    }

    /// The tag that [`Tag::to_bits`] made a number of.
    pub fn from_bits(bits: u32) -> Tag {
        let index = bits & INDEX_MASK;
        match bits >> KIND_SHIFT {
            0 => Tag::Connection(index),
            1 => Tag::HalfOpen(index),
            _ => Tag::TimeWait(index),
        }
    }
}

/// Flows that are found without the secret hash: those that the last packets were of.
const RECENT_LEN: usize = 256;

/// A table with room for more flows than this shrinks when all but one part in so many is unused:
/// each flow is moved once for several that were removed.
const SHRINK_FROM: usize = 16 << 10;
const SHRINK_PART: usize = 8;

/// Tag bits of no flow: of a kind that there is not.
const NO_TAG: u32 = u32::MAX;

/// A flow and its secret hash, which the same flow does not have to be hashed for again.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    key: FlowKey,
    hash: u32,
}

/// A flow that a packet was of, and where its state is.
#[derive(Clone, Copy, Debug)]
struct Recent {
    flow: Hashed,
    tag: u32,
}

/// A flow in the table, and where its state is. The hash lies beside it, so that growing costs no
/// hash a flow.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FlowKey,
    tag: u32,
    /// The lower half of the secret hash.
    hash: u32,
}

impl Hashed {
    /// The flow.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }
}

impl Entry {
    fn place(&self) -> u64 {
        place(self.hash)
    }
}

/// What the table goes by: its lowest bits find the group, its highest the entry, and 2^25 groups
/// are more than there are flows.
#[inline]
fn place(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// All flows of a stack. Its size is bounded by the limits of the tables that it points to.
///
/// In front of the table lie the flows found last, at places that a multiplication gives: that a
/// peer can aim at a place only costs it, or a neighbour there, the secret hash.
#[derive(Debug)]
pub struct FlowTable {
    table: HashTable<Entry>,
    secret: (u64, u64),
    recent: Box<[Recent; RECENT_LEN]>,
    /// The flow hashed last: one that was not found, and is set next.
    last: Hashed,
}

impl FlowTable {
    /// An empty table that hashes under `secret`.
    pub fn new(secret: (u64, u64)) -> FlowTable {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        let key = FlowKey { local: nowhere, remote: nowhere, local_port: 0, remote_port: 0 };
        let last = Hashed { key, hash: key.hash(secret) as u32 };
        let recent = Box::new([Recent { flow: last, tag: NO_TAG }; RECENT_LEN]);
        FlowTable { table: HashTable::new(), secret, recent, last }
    }

    /// As [`FlowTable::get`], and the same flow is found faster the next time.
    #[inline(always)]
    pub fn find(&mut self, key: &FlowKey) -> Option<Tag> {
        match self.recent_tag(key) {
            Some(tag) => Some(tag),
            None => self.find_anew(*key),
        }
    }

    #[inline(always)]
    fn recent_tag(&self, key: &FlowKey) -> Option<Tag> {
        let recent = &self.recent[recent_place(key)];
        let found = recent.tag != NO_TAG && recent.flow.key == *key;
        found.then(|| Tag::from_bits(recent.tag))
    }

    #[inline(never)]
    fn find_anew(&mut self, key: FlowKey) -> Option<Tag> {
        let flow = self.hashed_last(key);
        self.look_up(flow)
    }

    #[inline]
    fn look_up(&mut self, flow: Hashed) -> Option<Tag> {
        let tag = self.table.find(place(flow.hash), |entry| entry.key == flow.key)?.tag;
        self.recent[recent_place(&flow.key)] = Recent { flow, tag };
        Some(Tag::from_bits(tag))
    }

    /// Finds many flows, which are found fast then, by [`FlowTable::find`]. All are hashed first, so
    /// that the processor can wait for the memory of several at the same time.
    pub fn find_each(&mut self, keys: impl Iterator<Item = FlowKey>, mut found: impl FnMut(Tag)) {
        let mut flows = ArrayVec::<Hashed, BURST_FRAMES>::new();
        for key in keys.take(BURST_FRAMES) {
            match self.recent_tag(&key) {
                Some(tag) => found(tag),
                None => flows.push(self.hashed(&key)),
            }
        }
        for flow in flows {
            if let Some(tag) = self.look_up(flow) {
                found(tag);
            }
        }
    }

    /// The flow with its secret hash. Who keeps it spares the flow another one, when nothing else
    /// may know it any more.
    #[inline]
    pub fn hashed(&mut self, key: &FlowKey) -> Hashed {
        let recent = &self.recent[recent_place(key)].flow;
        if recent.key == *key { *recent } else { self.hashed_last(*key) }
    }

    /// The same of a flow that is none of the recent ones, unless it was the last that was not.
    #[inline(always)]
    fn hashed_last(&mut self, key: FlowKey) -> Hashed {
        if self.last.key != key {
            self.last = Hashed { key, hash: key.hash(self.secret) as u32 };
        }
        self.last
    }

    /// Where the state of `key` is.
    pub fn get(&self, key: &FlowKey) -> Option<Tag> {
        let place = place(key.hash(self.secret) as u32);
        self.table.find(place, |entry| entry.key == *key).map(|entry| Tag::from_bits(entry.tag))
    }

    /// Says where the state of `key` is from now on.
    pub fn set(&mut self, key: FlowKey, tag: Tag) {
        let flow = self.hashed(&key);
        self.set_hashed(flow, tag);
    }

    /// The same.
    #[inline]
    pub fn set_hashed(&mut self, flow: Hashed, tag: Tag) {
        let key = flow.key;
        match self.table.find_mut(place(flow.hash), |entry| entry.key == key) {
            Some(entry) => {
                entry.tag = tag.to_bits();
                // Its next packet is not far.
                self.recent[recent_place(&key)] = Recent { flow, tag: tag.to_bits() };
            }
            None => self.add_hashed(flow, tag),
        }
    }

    /// As [`FlowTable::set`], for a flow that [`FlowTable::find`] has not found.
    pub fn add(&mut self, key: FlowKey, tag: Tag) {
        // Not having been found, it is the last that was looked for.
        let flow = self.hashed_last(key);
        self.add_hashed(flow, tag);
    }

    #[inline(always)]
    fn add_hashed(&mut self, flow: Hashed, tag: Tag) {
        let Hashed { key, hash } = flow;
        debug_assert_eq!(self.get(&key), None, "a flow is in the table once");
        let tag = tag.to_bits();
        self.recent[recent_place(&key)] = Recent { flow, tag };
        self.table.insert_unique(place(hash), Entry { key, tag, hash }, Entry::place);
    }

    /// Forgets `key` if its state is `tag`'s. A flow that has moved on is left alone.
    pub fn remove(&mut self, key: &FlowKey, tag: Tag) {
        let flow = self.hashed(key);
        self.remove_hashed(&flow, tag);
    }

    /// As [`FlowTable::remove`], of what [`FlowTable::hashed`] gave.
    pub fn remove_hashed(&mut self, flow: &Hashed, tag: Tag) {
        let Hashed { key, hash } = flow;
        let recent = &mut self.recent[recent_place(key)];
        if recent.flow.key == *key {
            recent.tag = NO_TAG;
        }
        let found = |entry: &Entry| entry.key == *key && entry.tag == tag.to_bits();
        if let Ok(entry) = self.table.find_entry(place(*hash), found) {
            entry.remove();
        }
        let (len, capacity) = (self.table.len(), self.table.capacity());
        if rarely(capacity > SHRINK_FROM && len < capacity / SHRINK_PART) {
            self.shrink();
        }
    }

    #[cold]
    fn shrink(&mut self) {
        self.table.shrink_to(2 * self.table.len(), Entry::place);
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True without flows.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

/// A table by port. This host chooses which ports are in use, so their hash needs no secret.
pub type PortMap<K, V> = HashMap<K, V, BuildHasherDefault<PortHasher>>;

/// Spreads a few small numbers: a port, and what kind of socket it is of.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortHasher(u64);

impl Hasher for PortHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(u64::from(n));
    }

    #[inline]
    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The table takes the lowest and the highest bits; the product is best in the middle.
    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

/// Where a flow is looked for among the recent ones.
#[inline]
fn recent_place(key: &FlowKey) -> usize {
    let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
    let mixed = (key.remote.to_bits() ^ ports).wrapping_mul(0x9e37_79b9);
    (mixed >> (u32::BITS - RECENT_LEN.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> FlowKey {
        FlowKey {
            local: Ipv4Addr::new(10, 0, 0, 2),
            remote: Ipv4Addr::from_bits(0x0a00_0100 + (n >> 16)),
            local_port: 80,
            remote_port: n as u16,
        }
    }

    #[test]
    fn tags_survive_packing() {
        for tag in [Tag::Connection(0), Tag::HalfOpen(INDEX_MASK), Tag::TimeWait(12345)] {
            assert_eq!(Tag::from_bits(tag.to_bits()), tag);
        }
    }

    #[test]
    fn every_flow_is_found_and_only_its_own_state_is_forgotten() {
        let mut table = FlowTable::new((1, 2));
        for n in 0..100_000 {
            table.set(key(n), Tag::Connection(n));
        }
        assert_eq!(table.len(), 100_000);
        assert_eq!(table.get(&key(77_777)), Some(Tag::Connection(77_777)));
        table.set(key(5), Tag::TimeWait(9));
        table.remove(&key(5), Tag::Connection(5));
        assert_eq!(table.get(&key(5)), Some(Tag::TimeWait(9)));
        table.remove(&key(5), Tag::TimeWait(9));
        assert_eq!(table.get(&key(5)), None);
    }

    #[test]
    fn many_flows_are_found_at_once() {
        let mut table = FlowTable::new((1, 2));
        for n in 0..10_000 {
            table.set(key(n), Tag::Connection(n));
        }
        let mut found = Vec::new();
        let keys = (0..40).map(|n| key(n * 333 % 10_030));
        table.find_each(keys.clone().chain([key(20_000)]), |tag| found.push(tag));
        let mut tags: Vec<_> = keys.filter_map(|key| table.get(&key)).collect();
        // Those that were set last are found first.
        let number = |tag: &Tag| tag.to_bits();
        found.sort_by_key(number);
        tags.sort_by_key(number);
        assert_eq!(found, tags);
        table.find_each((0..1000).map(key), |_| ());
        assert_eq!(table.find(&key(3)), Some(Tag::Connection(3)));
    }

    #[test]
    fn what_was_found_before_is_not_found_where_it_no_longer_is() {
        let mut table = FlowTable::new((1, 2));
        for n in 0..1000 {
            table.set(key(n), Tag::Connection(n));
        }
        for n in (0..1000).chain(0..1000) {
            assert_eq!(table.find(&key(n)), Some(Tag::Connection(n)));
        }
        for n in 900..1000 {
            table.set(key(n), Tag::TimeWait(n));
            assert_eq!(table.find(&key(n)), Some(Tag::TimeWait(n)));
            table.remove(&key(n), Tag::TimeWait(n));
            assert_eq!(table.find(&key(n)), None);
        }
    }

    #[test]
    fn flows_spread_over_engines() {
        let mut per_engine = [0u32; 4];
        for n in 0..4_000 {
            per_engine[(key(n).hash((3, 4)) % 4) as usize] += 1;
        }
        assert!(per_engine.iter().all(|&n| (850..1150).contains(&n)), "{per_engine:?}");
    }
}
