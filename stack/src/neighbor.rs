//! Neighbours: which hardware address a next hop has (RFC 826, RFC 1122 §2.3.2).
//!
//! ```text
//!              lookup                      no answer to `retries` requests
//!   (nothing) ───────▶ INCOMPLETE ───────────────────────────────────▶ FAILED ──hold-down──▶ (nothing)
//!                          │ answer                                      ▲
//!                          ▼          timeout, used meanwhile            │
//!                      REACHABLE ◀───────────────────────▶ REFRESHING ───┘
//!                          │           answer
//!                          └─ timeout, not used ─▶ (nothing)
//! ```
//!
//! Sans-IO and for both address families: the caller turns [`Cache::poll_request`] into ARP
//! requests and gives [`Cache::handle_reply`] what it hears. Packets wait here, in whatever form the
//! caller prepares them, while their next hop is being asked for.
//!
//! **Limits.** Entries, waiting packets in all and for each entry are bounded, and requests for one
//! address are a `retry` apart at least (RFC 1122 §2.3.2.1 asks for a second). A full cache gives up
//! its least recently used entry that nobody waits for. An address that only strangers' requests
//! brought in is the first to go, so that a flood of those displaces nothing but itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use barewire_driver::MacAddr;
use slab::Slab;

use crate::hint::rarely;
use crate::time::Instant;
use crate::timer::{TimerKey, Wheel};

/// Settings of a [`Cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Entries, failed ones included; 1 at least.
    pub max_entries: usize,
    /// Packets that may wait for one neighbour. RFC 1122 §2.3.2.2 asks for one; eight hold what an
    /// initial window sends before the answer to the first segment comes.
    pub max_queued_per_entry: usize,
    /// Packets that may wait in all.
    pub max_queued_total: usize,
    /// How long an answer is believed (RFC 1122 §2.3.2.1 suggests a minute).
    pub reachable: Duration,
    /// Time between two requests for one address.
    pub retry: Duration,
    /// Requests before an address counts as failed.
    pub retries: u8,
    /// How long lookups of a failed address fail at once, without asking again.
    pub hold_down: Duration,
}

impl Default for NeighborConfig {
    fn default() -> Self {
        NeighborConfig {
            max_entries: 1024,
            max_queued_per_entry: 8,
            max_queued_total: 256,
            reachable: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            retries: 3,
            hold_down: Duration::from_secs(2),
        }
    }
}

/// What has happened in a [`Cache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborCounters {
    /// Requests handed out to be sent.
    pub requests_sent: u64,
    /// Entries made or renewed by what neighbours said.
    pub updates: u64,
    /// Messages that changed nothing, being neither about a known neighbour nor for this host.
    pub unsolicited_ignored: u64,
    /// Messages that claimed a group or zero hardware address, or an address that is no host's.
    pub bad_address_ignored: u64,
    /// Addresses that nobody answered for.
    pub failed: u64,
    /// Entries given up for newer ones in a full cache.
    pub evicted: u64,
    /// Lookups that failed because each entry of a full cache has packets waiting.
    pub table_full: u64,
    /// Waiting packets dropped for newer ones, or refused, at a limit.
    pub queue_dropped: u64,
    /// Waiting packets given back because their neighbour did not answer.
    pub queue_failed: u64,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The neighbour's hardware address.
    Found(MacAddr),
    /// The neighbour is being asked for; packets may be left with [`Cache::enqueue`].
    Pending,
    /// The neighbour did not answer lately, or there is no room to ask for it.
    Failed,
}

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address asked for.
    pub ip: IpAddr,
    /// The hardware address to ask at, if one is believed still: a poll that disturbs no one else
    /// (RFC 1122 §2.3.2.1, method 2). Otherwise all are asked.
    pub to: Option<MacAddr>,
}

#[derive(Debug)]
enum State<P> {
    /// Asked for; `waiting` holds the newest packets.
    Incomplete { tries: u8, waiting: VecDeque<P> },
    /// Answered, and believed until the timer fires.
    Reachable { mac: MacAddr, used: bool },
    /// Believed still, while it is being asked for again.
    Refreshing { mac: MacAddr, tries: u8 },
    /// Not answered; lookups fail until the timer fires.
    Failed,
}

#[derive(Debug)]
struct Entry<P> {
    ip: IpAddr,
    state: State<P>,
    timer: TimerKey,
    /// It is in the queue of requests to send.
    request_queued: bool,
    /// Neighbours in the order of use. Entries that packets wait for are not in it.
    older: Option<u32>,
    newer: Option<u32>,
}

/// The neighbours of one interface. `P` is a packet that waits.
#[derive(Debug)]
pub struct Cache<P> {
    config: NeighborConfig,
    entries: Slab<Entry<P>>,
    by_ip: BTreeMap<IpAddr, u32>,
    timers: Wheel,
    /// Entries to send a request for; each is in it once at most.
    requests: VecDeque<u32>,
    /// Ends of the order of use.
    oldest: Option<u32>,
    newest: Option<u32>,
    queued: usize,
    /// Counts up whenever a lookup may answer otherwise, or mark something, that did not before.
    changes: u32,
    /// Kept for its memory.
    fired: Vec<u32>,
    counters: NeighborCounters,
}

impl<P> Cache<P> {
    /// An empty cache.
    pub fn new(config: NeighborConfig) -> Cache<P> {
        Cache {
            config: NeighborConfig { max_entries: config.max_entries.max(1), ..config },
            entries: Slab::new(),
            by_ip: BTreeMap::new(),
            timers: Wheel::new(),
            requests: VecDeque::new(),
            oldest: None,
            newest: None,
            queued: 0,
            changes: 0,
            fired: Vec::new(),
            counters: NeighborCounters::default(),
        }
    }

    /// What has happened.
    pub fn counters(&self) -> NeighborCounters {
        self.counters
    }

    /// Entries, failed ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// As long as it stays the same, an address that [`Cache::lookup_at`] has found need not be looked
    /// up again: that would give the same, and mark as used what is marked already. The order of
    /// use is then that of the last lookups.
    #[inline]
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Packets that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The hardware address of `ip`; begins to ask for it if it is not known.
    pub fn lookup(&mut self, now: Instant, ip: IpAddr) -> Lookup {
        let Some(&index) = self.by_ip.get(&ip) else { return self.ask(now, ip) };
        match &mut self.entries[index as usize].state {
            State::Incomplete { .. } => Lookup::Pending,
            State::Failed => Lookup::Failed,
            State::Reachable { mac, used } => {
                let mac = *mac;
                *used = true;
                self.touch(index);
                Lookup::Found(mac)
            }
            // RFC 1122 §2.3.2.1 wants stale entries out; this one is replaced or out in `retries`
            // times `retry`, and until then traffic flows on.
            State::Refreshing { mac, .. } => {
                let mac = *mac;
                self.touch(index);
                Lookup::Found(mac)
            }
        }
    }

    /// As [`Cache::lookup`], with a place to look at first: where `ip` was found the last time,
    /// or any number. It is corrected.
    #[inline]
    pub fn lookup_at(&mut self, now: Instant, ip: IpAddr, place: &mut u32) -> Lookup {
        if let Some(entry) = self.entries.get_mut(*place as usize)
            && entry.ip == ip
            && let State::Reachable { mac, used } = &mut entry.state
        {
            let mac = *mac;
            *used = true;
            self.touch(*place);
            return Lookup::Found(mac);
        }
        self.look_everywhere(now, ip, place)
    }

    #[cold]
    fn look_everywhere(&mut self, now: Instant, ip: IpAddr, place: &mut u32) -> Lookup {
        if let Some(&index) = self.by_ip.get(&ip) {
            *place = index;
        }
        self.lookup(now, ip)
    }

    /// Leaves a packet to wait for `ip`. If too many wait for it, the oldest of them is dropped
    /// and counted: RFC 1122 §2.3.2.2 wants the latest.
    ///
    /// # Errors
    /// The packet comes back if `ip` is not [`Lookup::Pending`], and, counted, if none may wait.
    pub fn enqueue(&mut self, ip: IpAddr, packet: P) -> Result<(), P> {
        let Some(&index) = self.by_ip.get(&ip) else { return Err(packet) };
        let State::Incomplete { waiting, .. } = &mut self.entries[index as usize].state else {
            return Err(packet);
        };
        if waiting.len() >= self.config.max_queued_per_entry
            || self.queued >= self.config.max_queued_total
        {
            self.counters.queue_dropped += 1;
            if waiting.pop_front().is_none() {
                return Err(packet);
            }
            self.queued -= 1;
        }
        waiting.push_back(packet);
        self.queued += 1;
        Ok(())
    }

    /// Takes what a neighbour said, in a request or a reply: that `ip` is at `mac`. Packets that
    /// waited for it are appended to `sendable`, in order.
    ///
    /// `for_us` tells whether the message was addressed to this host. RFC 826, "packet reception":
    /// any message renews an entry that is there; only one for this host makes a new one. The
    /// caller passes messages about on-link addresses other than its own.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        ip: IpAddr,
        mac: MacAddr,
        for_us: bool,
        sendable: &mut Vec<P>,
    ) {
        // RFC 1812 §3.3.2: a claim to a group address is not believed.
        if mac.is_group() || mac == MacAddr([0; 6]) || ip.is_multicast() || ip.is_unspecified() {
            self.counters.bad_address_ignored += 1;
            return;
        }
        let deadline = now + self.config.reachable;
        self.changes = self.changes.wrapping_add(1);
        let Some(&index) = self.by_ip.get(&ip) else {
            if !for_us {
                self.counters.unsolicited_ignored += 1;
            } else if self.make_room() {
                // Nobody has looked it up yet, so it is the first to go.
                let index = self.insert(deadline, ip, State::Reachable { mac, used: false });
                self.link_oldest(index);
                self.counters.updates += 1;
            } else {
                self.counters.table_full += 1;
            }
            return;
        };
        let entry = &mut self.entries[index as usize];
        // An answered refresh was for traffic, and so is what was waited for: if there is none
        // from now on, the entry goes at its next timeout.
        match std::mem::replace(&mut entry.state, State::Reachable { mac, used: false }) {
            State::Incomplete { waiting, .. } => {
                self.queued -= waiting.len();
                sendable.extend(waiting);
                self.link_newest(index);
            }
            State::Reachable { used, .. } => {
                entry.state = State::Reachable { mac, used };
            }
            State::Refreshing { .. } | State::Failed => {}
        }
        self.forget_request(index);
        self.set_timer(index, deadline);
        self.counters.updates += 1;
    }

    /// Lets time pass. Addresses that nobody answered for are appended to `failed`, with the
    /// packets that waited for them.
    pub fn handle_timeout(&mut self, now: Instant, failed: &mut Vec<(IpAddr, Vec<P>)>) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(now, &mut fired);
        for index in fired.drain(..) {
            self.expire(now, index, failed);
        }
        self.fired = fired;
    }

    /// Whether [`Cache::handle_timeout`] may have something to do: about once a tick.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        self.timers.would_move(now)
    }

    /// True if there is a request to send.
    #[inline]
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The next request to send; call until `None`.
    pub fn poll_request(&mut self) -> Option<Request> {
        let index = self.requests.pop_front()?;
        let entry = &mut self.entries[index as usize];
        entry.request_queued = false;
        self.counters.requests_sent += 1;
        let to = match entry.state {
            // The last try of a refresh asks all: the neighbour may have a new card.
            State::Refreshing { mac, tries } if tries < self.config.retries => Some(mac),
            State::Refreshing { .. }
            | State::Incomplete { .. }
            | State::Reachable { .. }
            | State::Failed => None,
        };
        Some(Request { ip: entry.ip, to })
    }

    /// When to call [`Cache::handle_timeout`] next: never later than needed, at times earlier (see
    /// [`Wheel::next_deadline`]). [`Instant::ZERO`], so at once, if a request is to be sent.
    pub fn poll_at(&self) -> Option<Instant> {
        if self.requests.is_empty() { self.timers.next_deadline() } else { Some(Instant::ZERO) }
    }

    /// Begins to ask for an address that has no entry.
    fn ask(&mut self, now: Instant, ip: IpAddr) -> Lookup {
        if !self.make_room() {
            self.counters.table_full += 1;
            return Lookup::Failed;
        }
        let state = State::Incomplete { tries: 1, waiting: VecDeque::new() };
        let index = self.insert(now + self.config.retry, ip, state);
        self.queue_request(index);
        Lookup::Pending
    }

    fn expire(&mut self, now: Instant, index: u32, failed: &mut Vec<(IpAddr, Vec<P>)>) {
        let config = self.config;
        self.changes = self.changes.wrapping_add(1);
        let entry = &mut self.entries[index as usize];
        match &mut entry.state {
            State::Incomplete { tries, waiting } => {
                if *tries < config.retries {
                    *tries += 1;
                } else {
                    let waiting: Vec<P> = std::mem::take(waiting).into();
                    self.queued -= waiting.len();
                    self.counters.queue_failed += waiting.len() as u64;
                    failed.push((entry.ip, waiting));
                    self.link_newest(index);
                    self.fail(now, index);
                    return;
                }
            }
            State::Refreshing { tries, .. } => {
                if *tries < config.retries {
                    *tries += 1;
                } else {
                    failed.push((entry.ip, Vec::new()));
                    self.fail(now, index);
                    return;
                }
            }
            State::Reachable { mac, used: true } => {
                entry.state = State::Refreshing { mac: *mac, tries: 1 };
            }
            State::Reachable { used: false, .. } | State::Failed => {
                self.unlink(index);
                self.remove(index);
                return;
            }
        }
        self.queue_request(index);
        self.restart_timer(index, now + config.retry);
    }

    fn fail(&mut self, now: Instant, index: u32) {
        self.counters.failed += 1;
        self.entries[index as usize].state = State::Failed;
        self.forget_request(index);
        self.restart_timer(index, now + self.config.hold_down);
    }

    /// Makes room for an entry; false if packets wait for every one.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.config.max_entries {
            return true;
        }
        let Some(oldest) = self.oldest else { return false };
        self.counters.evicted += 1;
        self.unlink(oldest);
        self.timers.cancel(self.entries[oldest as usize].timer);
        self.remove(oldest);
        true
    }

    fn insert(&mut self, deadline: Instant, ip: IpAddr, state: State<P>) -> u32 {
        self.changes = self.changes.wrapping_add(1);
        let vacant = self.entries.vacant_entry();
        let index = vacant.key() as u32;
        let timer = self.timers.insert(deadline, index);
        vacant.insert(Entry { ip, state, timer, request_queued: false, older: None, newer: None });
        self.by_ip.insert(ip, index);
        index
    }

    /// Removes an entry that is out of the order of use and whose timer has stopped.
    fn remove(&mut self, index: u32) {
        self.forget_request(index);
        let entry = self.entries.remove(index as usize);
        self.by_ip.remove(&entry.ip);
    }

    fn set_timer(&mut self, index: u32, at: Instant) {
        self.timers.cancel(self.entries[index as usize].timer);
        self.restart_timer(index, at);
    }

    /// As [`Cache::set_timer`], for a timer that has just fired.
    fn restart_timer(&mut self, index: u32, at: Instant) {
        self.entries[index as usize].timer = self.timers.insert(at, index);
    }

    fn queue_request(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if !std::mem::replace(&mut entry.request_queued, true) {
            self.requests.push_back(index);
        }
    }

    /// Takes an entry's request back. Rarely there is one: it is sent in the turn that made it.
    fn forget_request(&mut self, index: u32) {
        if std::mem::take(&mut self.entries[index as usize].request_queued) {
            self.requests.retain(|&other| other != index);
        }
    }

    fn touch(&mut self, index: u32) {
        if rarely(self.newest != Some(index)) {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    fn link_newest(&mut self, index: u32) {
        let older = self.newest.replace(index);
        let entry = &mut self.entries[index as usize];
        (entry.older, entry.newer) = (older, None);
        match older {
            Some(older) => self.entries[older as usize].newer = Some(index),
            None => self.oldest = Some(index),
        }
    }

    fn link_oldest(&mut self, index: u32) {
        let newer = self.oldest.replace(index);
        let entry = &mut self.entries[index as usize];
        (entry.older, entry.newer) = (None, newer);
        match newer {
            Some(newer) => self.entries[newer as usize].older = Some(index),
            None => self.newest = Some(index),
        }
    }

    fn unlink(&mut self, index: u32) {
        let Entry { older, newer, .. } = self.entries[index as usize];
        match older {
            Some(older) => self.entries[older as usize].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.entries[newer as usize].older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
#[path = "neighbor_tests.rs"]
mod tests;
