//! TCP Fast Open (RFC 7413): data that travels with the SYN.
//!
//! ```text
//!   client                                server
//!   SYN, request ───────────────────────▶ SYN-ACK, cookie        the first time
//!   Cache ◀── cookie ────────────────────
//!   SYN, cookie, data ──────────────────▶ cookie good: data to the application at once
//!                                          cookie bad:  the SYN alone, and a fresh cookie
//! ```
//!
//! A cookie proves that its bearer has been reached at its address before; it does not keep one
//! who has been from asking for much. So each listener has a [`FastOpenQueue`], the number of such
//! connections whose handshake is not complete; beyond it a SYN is as good as one without data.
//! What was sent with a SYN and is not acknowledged by the SYN-ACK leaves again as ordinary data,
//! and a SYN that has to be repeated goes bare: a path that drops either costs a round trip, once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use barewire_driver::PacketSlice;

use super::isn::{Purpose, flow_hasher};
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{MSS_DEFAULT, Pending, Status, Tcb};
use super::timers::Timer;
use super::{HalfOpen, Segment, TcpConfig};
use crate::SocketError;
use crate::time::Instant;
use crate::wire::tcp::{FastOpenCookie, TcpHeader};

/// How long a server's key lasts (RFC 7413 §4.1.2 asks for changes). Cookies of the key before are
/// still taken, and replaced.
pub const KEY_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// RFC 7413 §5.1: how long a connection that was reset before its handshake ended still counts. Who
/// forges its address must not get the place back at once.
const RESET_PENALTY: Duration = Duration::from_secs(60);

/// How long a peer gets no data with a SYN after such a SYN was lost (RFC 7413 §4.1.3.1).
const BLOCKED_FOR: Duration = Duration::from_secs(3600);

fn make_cookie(secret: u128, client: IpAddr, server: IpAddr, key: u64) -> Option<FastOpenCookie> {
    let (client, server) = (SocketAddr::new(client, 0), SocketAddr::new(server, 0));
    let mut hasher = flow_hasher(secret, Purpose::FastOpen, server, client);
    hasher.write_u64(key);
    FastOpenCookie::new(&hasher.finish().to_be_bytes())
}

fn key_at(now: Instant) -> u64 {
    now.as_nanos() / KEY_PERIOD.as_nanos() as u64
}

/// The cookie that proves to `server` that somebody is reachable at `client`.
pub fn cookie(secret: u128, client: IpAddr, server: IpAddr, now: Instant) -> FastOpenCookie {
    make_cookie(secret, client, server, key_at(now)).unwrap_or(FastOpenCookie::REQUEST)
}

/// What a server thinks of the option in a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It asks for a cookie.
    Request,
    /// It is one of ours; `aged` if the key has changed since.
    Good {
        /// A fresh one should go back.
        aged: bool,
    },
    /// It is not one of ours, or of too long ago.
    Bad,
}

/// Judges the option of a SYN from `client` to `server`.
pub fn judge(
    secret: u128,
    client: IpAddr,
    server: IpAddr,
    now: Instant,
    option: &FastOpenCookie,
) -> Judgement {
    let ours = |key| make_cookie(secret, client, server, key).as_ref() == Some(option);
    let key = key_at(now);
    if option.is_request() {
        Judgement::Request
    } else if ours(key) {
        Judgement::Good { aged: false }
    } else if key.checked_sub(1).is_some_and(ours) {
        Judgement::Good { aged: true }
    } else {
        Judgement::Bad
    }
}

/// The connections of one listener that were opened by a cookie and whose handshake has not ended
/// (RFC 7413 §5.1).
#[derive(Debug, Default)]
pub struct FastOpenQueue {
    pending: Cell<u32>,
    /// When those that were reset stop counting, in order.
    resets: RefCell<VecDeque<Instant>>,
}

impl FastOpenQueue {
    /// A place for one more, if fewer than `limit` are taken.
    pub fn take_place(self: &Rc<Self>, limit: u32, now: Instant) -> Option<FastOpenPlace> {
        let mut resets = self.resets.borrow_mut();
        while resets.front().is_some_and(|&until| until <= now) {
            resets.pop_front();
        }
        if self.pending.get() as usize + resets.len() >= limit as usize {
            return None;
        }
        self.pending.set(self.pending.get() + 1);
        Some(FastOpenPlace(Rc::clone(self)))
    }
}

/// A place in a [`FastOpenQueue`]; dropping it frees it.
#[derive(Debug)]
pub struct FastOpenPlace(Rc<FastOpenQueue>);

impl FastOpenPlace {
    /// The connection was reset: its place stays taken for a while. As many as the queue is long
    /// at most, for each had a place.
    fn reset(self, now: Instant) {
        self.0.resets.borrow_mut().push_back(now + RESET_PENALTY);
    }
}

impl Drop for FastOpenPlace {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get().saturating_sub(1));
    }
}

/// What a client knows of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    cookie: FastOpenCookie,
    /// The server's MSS when it gave the cookie.
    mss: u16,
    /// A SYN with data was lost: none before this.
    blocked_until: Instant,
}

/// A client's cookies, of at most `limit` servers; the one known longest gives way to a new one.
#[derive(Debug)]
pub struct Cache {
    known: HashMap<IpAddr, Known>,
    order: VecDeque<IpAddr>,
    limit: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(limit: usize) -> Cache {
        Cache { known: HashMap::new(), order: VecDeque::new(), limit }
    }

    /// Servers in it.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The cookie for `server` and how much a segment to it may carry, if data may go there with a
    /// SYN.
    pub fn get(&self, server: IpAddr, now: Instant) -> Option<(FastOpenCookie, u16)> {
        let known = self.known.get(&server)?;
        let usable = !known.cookie.is_request() && known.blocked_until <= now;
        usable.then_some((known.cookie, known.mss))
    }

    fn entry(&mut self, server: IpAddr) -> Option<&mut Known> {
        if self.limit == 0 {
            return None;
        }
        if !self.known.contains_key(&server) {
            if self.known.len() >= self.limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(server);
        }
        let nothing = Known {
            cookie: FastOpenCookie::REQUEST,
            mss: MSS_DEFAULT,
            blocked_until: Instant::ZERO,
        };
        Some(self.known.entry(server).or_insert(nothing))
    }

    fn learn(&mut self, server: IpAddr, cookie: FastOpenCookie, mss: u16) {
        if let Some(known) = self.entry(server) {
            (known.cookie, known.mss) = (cookie, mss);
        }
    }

    fn block(&mut self, server: IpAddr, now: Instant) {
        if let Some(known) = self.entry(server) {
            known.blocked_until = now + BLOCKED_FOR;
        }
    }
}

/// What a connection that opens fast remembers until its handshake has ended.
#[derive(Debug)]
pub(super) enum FastOpen {
    /// The SYN asks for a cookie, or brings one, and data with it.
    Client {
        cache: Rc<RefCell<Cache>>,
        server: IpAddr,
        option: FastOpenCookie,
        mss: u16,
        sent: u16,
    },
    /// The SYN has brought a good cookie.
    Server { place: FastOpenPlace, irs: SeqNum },
}

/// How an active open uses fast open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastConnect {
    /// The SYN leaves at once; data written before it is polled goes with it.
    AtOnce,
    /// The SYN waits for the first write (`TCP_FASTOPEN_CONNECT`).
    WithData,
}

impl Tcb {
    /// Has the SYN of an active open, not sent yet, carry the cookie for `server`, or ask for one.
    /// True if there is a cookie, so that data can go with the SYN.
    pub fn open_fast(
        &mut self,
        cache: &Rc<RefCell<Cache>>,
        server: IpAddr,
        how: FastConnect,
        now: Instant,
    ) -> bool {
        let known = cache.borrow().get(server, now);
        let (option, mss) = known.unwrap_or((FastOpenCookie::REQUEST, MSS_DEFAULT));
        let cache = Rc::clone(cache);
        let client = FastOpen::Client { cache, server, option, mss, sent: 0 };
        self.fast_open = Some(Box::new(client));
        if known.is_some() && how == FastConnect::WithData {
            self.pending -= Pending::SYN;
        }
        known.is_some()
    }

    /// The application has written before the handshake's end: a close waits for what it wrote.
    pub(super) fn has_written_early(&self) -> bool {
        self.fast_open.is_some() && self.sendq.len() > 0
    }

    /// Data may be written although no handshake has ended: it goes with the SYN, or, on the side
    /// that has accepted a cookie, with and behind the SYN-ACK.
    pub(super) fn writes_early(&self) -> bool {
        match self.fast_open.as_deref() {
            Some(FastOpen::Client { option, .. }) => {
                self.state == State::SynSent && self.snd.nxt == self.snd.una && !option.is_request()
            }
            Some(FastOpen::Server { .. }) => self.state == State::SynReceived,
            None => false,
        }
    }

    /// The handshake has not ended and the application still waits for it.
    pub fn is_connecting(&self) -> bool {
        let accepted = matches!(self.fast_open.as_deref(), Some(FastOpen::Server { .. }));
        self.state.is_opening() && !accepted
    }

    /// The first write of a connection [that takes it early](Tcb::writes_early): its SYN may have
    /// waited for that.
    pub(super) fn release_syn(&mut self) {
        if self.state == State::SynSent {
            self.pending |= Pending::SYN;
        }
    }

    /// Adds the option and the data to the first SYN of a client; gives the bytes of data. A
    /// repeated SYN goes without either (RFC 7413 §4.1.3): what drops them may sit on the path.
    pub(super) fn fill_syn(
        &mut self,
        now: Instant,
        header: &mut TcpHeader,
        first: bool,
        payload: &mut Vec<PacketSlice>,
    ) -> u32 {
        if self.fast_open.is_none() {
            return 0;
        }
        self.fill_fast_syn(now, header, first, payload)
    }

    #[cold]
    fn fill_fast_syn(
        &mut self,
        now: Instant,
        header: &mut TcpHeader,
        first: bool,
        payload: &mut Vec<PacketSlice>,
    ) -> u32 {
        let our_mss = self.rcv.our_mss;
        let Some(FastOpen::Client { cache, server, option, mss, sent }) =
            self.fast_open.as_deref_mut()
        else {
            return 0;
        };
        if !first {
            if *sent > 0 {
                cache.borrow_mut().block(*server, now);
            }
            return 0;
        }
        header.options.fast_open = Some(*option);
        if option.is_request() {
            return 0;
        }
        let options = header.header_len() as u32 - crate::wire::tcp::LEN as u32;
        let room = u32::from(our_mss.min(*mss)).saturating_sub(options);
        let n = self.sendq.unsent().min(room);
        *sent = n as u16;
        if n > 0 {
            // Like a zero-window probe it lies beyond snd.nxt until it is acknowledged.
            self.sendq.peek_unsent(n, payload);
            self.status |= Status::PROBED;
        }
        n
    }

    /// Sequence numbers beyond snd.nxt that were sent: with a SYN, or by a zero-window probe.
    pub(super) fn sent_beyond(&self) -> u32 {
        match self.fast_open.as_deref() {
            Some(FastOpen::Client { sent, .. }) => u32::from(*sent),
            Some(FastOpen::Server { .. }) | None => 1,
        }
    }

    /// A client keeps the cookie that a SYN-ACK brings.
    #[inline]
    pub(super) fn learn_cookie(&mut self, header: &TcpHeader) {
        if self.fast_open.is_some() {
            self.learn_cookie_of(header);
        }
    }

    #[cold]
    fn learn_cookie_of(&mut self, header: &TcpHeader) {
        let Some(FastOpen::Client { cache, server, .. }) = self.fast_open.as_deref() else {
            return;
        };
        self.status.set(Status::SYN_DATA, SeqNum::new(header.ack).after(self.snd.una + 1));
        if let Some(cookie) = header.options.fast_open.filter(|cookie| !cookie.is_request()) {
            let mss = header.options.mss.unwrap_or(MSS_DEFAULT);
            cache.borrow_mut().learn(*server, cookie, mss);
        }
    }

    /// The peer's initial sequence number, while the handshake has not ended.
    pub(super) fn irs_of_opening(&self) -> SeqNum {
        match self.fast_open.as_deref() {
            Some(FastOpen::Server { irs, .. }) => *irs,
            Some(FastOpen::Client { .. }) | None => self.rcv.nxt - 1,
        }
    }

    /// An RST has ended the handshake; gives the error to tell, if it was one of fast open, and
    /// keeps its place taken.
    pub(super) fn fast_open_was_reset(&mut self, now: Instant) -> Option<SocketError> {
        match self.fast_open.take().map(|fast_open| *fast_open) {
            Some(FastOpen::Server { place, .. }) => {
                place.reset(now);
                Some(SocketError::ConnectionReset)
            }
            Some(FastOpen::Client { .. }) | None => None,
        }
    }
}

impl HalfOpen {
    /// The connection of a SYN whose cookie is good (RFC 7413 §4.2.2): its data is received, and the
    /// application may answer before the handshake ends. Gives the SYN-ACK to send, too, ports left
    /// zero. A FIN in the SYN is left for the peer to repeat.
    pub fn into_fast_open(
        self,
        now: Instant,
        config: Rc<TcpConfig>,
        segment: Segment<'_>,
        place: FastOpenPlace,
    ) -> (Tcb, TcpHeader) {
        let mut syn_ack = self.syn_ack(now, &config);
        let mut tcb = self.into_tcb(now, config);
        let irs = SeqNum::new(segment.header.seq);
        tcb.fast_open = Some(Box::new(FastOpen::Server { place, irs }));
        if segment.payload_len > 0 {
            tcb.take_text(now, irs + 1, segment);
        }
        tcb.status.set(Status::SYN_DATA, tcb.rcv.nxt != irs + 1);
        tcb.pending -= Pending::ACK;
        tcb.timers.clear(Timer::DelayedAck);
        tcb.rcv.acked = tcb.rcv.nxt;
        syn_ack.ack = tcb.rcv.nxt.get();
        syn_ack.window = tcb.rcv.edge.since(tcb.rcv.nxt) as u16;
        (tcb, syn_ack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_cookie_is_good_for_its_client_and_ages_with_the_key() {
        let now = Instant::ZERO + KEY_PERIOD;
        let given = cookie(7, ip(1), ip(2), now);
        let at = |periods: u32| judge(7, ip(1), ip(2), now + KEY_PERIOD * periods, &given);
        assert_eq!(at(0), Judgement::Good { aged: false });
        assert_eq!(at(1), Judgement::Good { aged: true });
        assert_eq!(at(2), Judgement::Bad);
        assert_eq!(judge(7, ip(3), ip(2), now, &given), Judgement::Bad, "another client");
        assert_eq!(judge(7, ip(1), ip(3), now, &given), Judgement::Bad, "another server");
        assert_eq!(judge(8, ip(1), ip(2), now, &given), Judgement::Bad, "another secret");
        let request = FastOpenCookie::REQUEST;
        assert_eq!(judge(7, ip(1), ip(2), now, &request), Judgement::Request);
    }

    #[test]
    fn places_are_bounded_and_a_reset_keeps_one_for_a_minute() {
        let queue = Rc::new(FastOpenQueue::default());
        let now = Instant::ZERO;
        let one = queue.take_place(2, now).unwrap();
        let two = queue.take_place(2, now).unwrap();
        assert!(queue.take_place(2, now).is_none());
        drop(one);
        two.reset(now);
        let three = queue.take_place(2, now).unwrap();
        assert!(queue.take_place(2, now + Duration::from_secs(59)).is_none());
        assert!(queue.take_place(2, now + RESET_PENALTY).is_some());
        drop(three);
    }

    #[test]
    fn the_cache_is_bounded_and_a_lost_syn_blocks_its_server() {
        let mut cache = Cache::new(2);
        assert!(cache.is_empty());
        let now = Instant::ZERO;
        let given = FastOpenCookie::new(&[1; 8]).unwrap();
        (1..=3).for_each(|last| cache.learn(ip(last), given, 1400));
        assert_eq!((cache.len(), cache.get(ip(1), now)), (2, None));
        assert!(!cache.is_empty());
        assert_eq!(cache.get(ip(3), now), Some((given, 1400)));
        cache.block(ip(3), now);
        assert_eq!(cache.get(ip(3), now), None);
        assert_eq!(cache.get(ip(3), now + BLOCKED_FOR), Some((given, 1400)));
        assert!(Cache::new(0).entry(ip(1)).is_none());
    }
}
