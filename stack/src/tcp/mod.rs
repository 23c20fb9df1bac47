//! TCP (RFC 9293), sans-IO: no clock, thread, lock, socket or randomness of its own.
//!
//! ```text
//!   segments ─▶ handle_segment ─┐                 ┌─▶ poll_transmit ─▶ super-segments
//!   time     ─▶ handle_timeout ─┼─▶ Tcb (state) ──┼─▶ poll_at       ─▶ next deadline
//!   calls    ─▶ write, read, …  ┘                 └─▶ readiness, take_error
//! ```
//!
//! A [`Tcb`] knows no address: the socket layer owns the 4-tuple and fills in the ports. A
//! connection that is half open because a listener got its SYN is a [`HalfOpen`] (at most 96 bytes),
//! one in TIME-WAIT a [`TimeWait`] (at most 64 bytes); neither is a `Tcb` yet or any more.

use std::time::Duration;

use barewire_driver::PacketSlice;

use crate::time::Instant;
use crate::wire::tcp::TcpHeader;

/// Keepalive settings (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe (`TCP_KEEPIDLE`), 2 hours by default.
    pub idle: Duration,
    /// Time between probes (`TCP_KEEPINTVL`), 75 s by default.
    pub interval: Duration,
    /// Unanswered probes that end the connection (`TCP_KEEPCNT`), 9 by default.
    pub count: u8,
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), count: 9 }
    }
}

/// What `close` does with unsent data (`SO_LINGER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Linger {
    /// `close` returns at once; data is still sent in the background.
    #[default]
    Background,
    /// Zero time: `close` sends RST and drops what is queued.
    Abort,
    /// The connection has this long after `close` to get its FIN acknowledged, then it is aborted.
    For(Duration),
}

/// Congestion controllers, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// RFC 5681 and RFC 6582.
    #[default]
    NewReno,
}

/// The settings of one connection. A `Tcb` shares them behind an `Rc` and copies on change.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpConfig {
    /// Bytes that may wait for the application to read (`SO_RCVBUF`); also bounds the window.
    pub recv_buffer_bytes: u32,
    /// Bytes that may wait to be sent and acknowledged (`SO_SNDBUF`).
    pub send_buffer_bytes: u32,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window_segments: u8,
    /// Lower bound of the retransmission timeout.
    pub rto_min: Duration,
    /// Retransmission timeout before the first measurement (RFC 6298 §2.1).
    pub rto_initial: Duration,
    /// Upper bound of the retransmission timeout, and of the backed-off zero-window probe timer.
    pub rto_max: Duration,
    /// Retransmissions of SYN before `connect` gives up.
    pub syn_retries: u8,
    /// Retransmissions of SYN-ACK before a half-open connection is dropped.
    pub syn_ack_retries: u8,
    /// Retransmissions of data before the connection times out (RFC 9293 §3.8.3 R2).
    pub data_retries: u8,
    /// How long an ACK may wait for company; zero turns delaying off (`TCP_QUICKACK`).
    pub delayed_ack: Duration,
    /// Turns Nagle's algorithm off (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Holds partial segments back for at most 200 ms (`TCP_CORK`).
    pub cork: bool,
    /// Keepalive, off by default (`SO_KEEPALIVE`).
    pub keepalive: Option<Keepalive>,
    /// Times that keepalive has when it is turned on.
    pub keepalive_times: Keepalive,
    /// Longest time that sent data may stay unacknowledged (RFC 5482, `TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// Offer and accept window scaling (RFC 7323 §2).
    pub window_scale: bool,
    /// Offer and accept timestamps (RFC 7323 §3).
    pub timestamps: bool,
    /// Upper bound of the MSS, both ways (`TCP_MAXSEG`).
    pub mss_max: Option<u16>,
    /// The congestion controller (`TCP_CONGESTION`).
    pub congestion: Algorithm,
    /// How long an orphaned connection may stay in FIN-WAIT-2 (`TCP_LINGER2`).
    pub fin_wait_2: Duration,
    /// 2 MSL: the length of TIME-WAIT.
    pub time_wait: Duration,
    /// What `close` does with unsent data (`SO_LINGER`).
    pub linger: Linger,
    /// Challenge ACKs a second that one connection sends at most (RFC 5961 §7).
    pub challenge_acks_per_s: u16,
}

impl Default for TcpConfig {
    /// What the RFCs say, and what Linux does where they leave the choice.
    fn default() -> Self {
        TcpConfig {
            recv_buffer_bytes: 1 << 20,
            send_buffer_bytes: 1 << 20,
            initial_window_segments: 10,
            rto_min: Duration::from_millis(200),
            rto_initial: Duration::from_secs(1),
            rto_max: Duration::from_secs(60),
            syn_retries: 6,
            syn_ack_retries: 5,
            data_retries: 15,
            delayed_ack: Duration::from_millis(40),
            nodelay: false,
            cork: false,
            keepalive: None,
            keepalive_times: Keepalive::default(),
            user_timeout: None,
            window_scale: true,
            timestamps: true,
            mss_max: None,
            congestion: Algorithm::NewReno,
            fin_wait_2: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            linger: Linger::Background,
            challenge_acks_per_s: 10,
        }
    }
}

/// A segment that arrived.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Its header, checked.
    pub header: &'a TcpHeader,
    /// Its payload, in pieces; the connection takes those that it keeps.
    pub payload: &'a mut Vec<PacketSlice>,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Wire segments that the device joined into this one, at least 1: for counting ACKs.
    pub wire_segments: u16,
}

/// What the device and the moment allow one transmission to be.
#[derive(Clone, Copy, Debug)]
pub struct TxLimits {
    /// Most payload bytes in a super-segment; one MSS or more. Without TSO software cuts it.
    pub max_bytes: u32,
    /// Most payload pieces in a super-segment.
    pub max_pieces: u16,
}

/// A segment to send: one on the wire, or a super-segment of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Header of the first wire segment, ports left zero. PSH and FIN belong to the last one.
    pub header: TcpHeader,
    /// Payload bytes, in the pieces appended to the caller's vector.
    pub payload_len: u32,
    /// Payload bytes of each wire segment but the last.
    pub mss: u16,
}

/// What has become of a connection after a segment, a timeout or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// It goes on; answer the segment with this RST (ports left zero).
    Reset(TcpHeader),
    /// It is in CLOSED: forget its 4-tuple. Received data and the error can still be read.
    Closed,
    /// It is in TIME-WAIT: replace it by its [`TimeWait`] once the application lets go of it.
    TimeWait,
}

/// Time type of this module, for its docs.
#[doc(hidden)]
pub type Now = Instant;

mod stub {
    #![allow(missing_docs, unused_variables, dead_code, clippy::todo)]
    use super::*;
    use crate::error::SocketError;
    use barewire_driver::Pool;
    use std::net::SocketAddr;
    use std::rc::Rc;
    bitflags::bitflags! { #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)] pub struct Readiness: u8 { const READABLE=1; const WRITABLE=2; const READ_CLOSED=4; const WRITE_CLOSED=8; const ERROR=16; } }
    #[derive(Debug)]
    pub struct Tcb {
        c: Rc<TcpConfig>,
    }
    #[derive(Clone, Copy, Debug)]
    pub struct Open {
        pub iss: u32,
        pub ts_offset: u32,
        pub mss: u16,
    }
    #[derive(Clone, Copy, Debug)]
    pub struct TcpInfo {
        pub state: State,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum State {
        Closed,
    }
    impl State {
        pub fn is_opening(self) -> bool {
            todo!()
        }
    }
    pub enum IcmpError {
        HostUnreachable,
        NetworkUnreachable,
        PortUnreachable,
        ProtocolUnreachable,
        FragmentationNeeded { mtu: u16 },
    }
    impl Tcb {
        pub fn connect(config: Rc<TcpConfig>, open: Open, now: Instant) -> Tcb {
            todo!()
        }
        pub fn state(&self) -> State {
            todo!()
        }
        pub fn handle_segment(&mut self, now: Instant, segment: Segment<'_>) -> Outcome {
            todo!()
        }
        pub fn handle_timeout(&mut self, now: Instant) -> Outcome {
            todo!()
        }
        pub fn poll_transmit(
            &mut self,
            now: Instant,
            limits: &TxLimits,
            payload: &mut Vec<PacketSlice>,
        ) -> Option<Transmit> {
            todo!()
        }
        pub fn wants_transmit(&self) -> bool {
            todo!()
        }
        pub fn poll_at(&self) -> Option<Instant> {
            todo!()
        }
        pub fn readiness(&self) -> Readiness {
            todo!()
        }
        pub fn write(&mut self, pool: &Pool, data: &[u8]) -> Result<usize, SocketError> {
            todo!()
        }
        pub fn write_owned(&mut self, data: PacketSlice) -> Result<(), (SocketError, PacketSlice)> {
            todo!()
        }
        pub fn write_room(&self) -> usize {
            todo!()
        }
        pub fn read(&mut self, out: &mut [u8]) -> Result<usize, SocketError> {
            todo!()
        }
        pub fn peek(&self, out: &mut [u8]) -> Result<usize, SocketError> {
            todo!()
        }
        pub fn read_owned(&mut self, max: usize) -> Result<Option<PacketSlice>, SocketError> {
            todo!()
        }
        pub fn bytes_readable(&self) -> usize {
            todo!()
        }
        pub fn bytes_unacked(&self) -> usize {
            todo!()
        }
        pub fn shutdown_write(&mut self, now: Instant) -> Result<(), SocketError> {
            todo!()
        }
        pub fn shutdown_read(&mut self) {
            todo!()
        }
        pub fn close(&mut self, now: Instant) -> Outcome {
            todo!()
        }
        pub fn abort(&mut self) -> Outcome {
            todo!()
        }
        pub fn fail(&mut self, e: SocketError) -> Outcome {
            todo!()
        }
        pub fn take_error(&mut self) -> Option<SocketError> {
            todo!()
        }
        pub fn handle_icmp(&mut self, now: Instant, e: IcmpError, seq: u32) -> Outcome {
            todo!()
        }
        pub fn config(&self) -> &TcpConfig {
            &self.c
        }
        pub fn update_config(&mut self, f: impl FnOnce(&mut TcpConfig)) {
            todo!()
        }
        pub fn time_wait(&self) -> Option<TimeWait> {
            todo!()
        }
        pub fn info(&self) -> TcpInfo {
            todo!()
        }
    }
    #[derive(Debug)]
    pub struct HalfOpen;
    pub enum HalfOpenOutcome {
        Drop,
        Reply(TcpHeader),
        Establish,
        Remove,
        Reset(TcpHeader),
    }
    pub enum HalfOpenTimeout {
        Resend(TcpHeader),
        GiveUp,
        NotYet,
    }
    impl HalfOpen {
        pub fn new(now: Instant, syn: &TcpHeader, config: &TcpConfig, open: Open) -> HalfOpen {
            todo!()
        }
        pub fn syn_ack(&self, now: Instant, config: &TcpConfig) -> TcpHeader {
            todo!()
        }
        pub fn handle_segment(
            &mut self,
            now: Instant,
            header: &TcpHeader,
            payload_len: u32,
            config: &TcpConfig,
        ) -> HalfOpenOutcome {
            todo!()
        }
        pub fn handle_timeout(&mut self, now: Instant, config: &TcpConfig) -> HalfOpenTimeout {
            todo!()
        }
        pub fn poll_at(&self) -> Instant {
            todo!()
        }
        pub fn into_tcb(self, now: Instant, config: Rc<TcpConfig>) -> Tcb {
            todo!()
        }
        pub fn from_cookie(
            now: Instant,
            header: &TcpHeader,
            mss: u16,
            config: &TcpConfig,
            open: Open,
        ) -> HalfOpen {
            todo!()
        }
    }
    #[derive(Debug)]
    pub struct TimeWait;
    pub enum TimeWaitOutcome {
        Drop,
        Ack(TcpHeader),
        Reuse { iss_above: u32 },
        Remove,
    }
    impl TimeWait {
        pub fn handle_segment(
            &mut self,
            now: Instant,
            header: &TcpHeader,
            payload_len: u32,
        ) -> TimeWaitOutcome {
            todo!()
        }
        pub fn poll_at(&self) -> Instant {
            todo!()
        }
    }
    pub fn reset_for(header: &TcpHeader, payload_len: u32) -> Option<TcpHeader> {
        todo!()
    }
    pub mod cookie {
        use super::*;
        pub fn make(
            secret: u128,
            flow: (SocketAddr, SocketAddr),
            irs: u32,
            mss: u16,
            now: Instant,
        ) -> u32 {
            todo!()
        }
        pub fn check(
            secret: u128,
            flow: (SocketAddr, SocketAddr),
            irs: u32,
            iss: u32,
            now: Instant,
        ) -> Option<u16> {
            todo!()
        }
        pub fn syn_ack(syn: &TcpHeader, iss: u32, our_mss: u16, config: &TcpConfig) -> TcpHeader {
            todo!()
        }
    }
    pub mod isn {
        use super::*;
        pub fn isn(secret: u128, local: SocketAddr, remote: SocketAddr, now: Instant) -> u32 {
            todo!()
        }
        pub fn timestamp_offset(secret: u128, local: SocketAddr, remote: SocketAddr) -> u32 {
            todo!()
        }
    }
}
pub use stub::*;
