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

//! Read `tcb` for the life of a connection, `input` and `output` for its two halves, `state` for
//! the picture of RFC 9293.

mod ack;
mod assembler;
mod autotune;
mod calls;
mod calm;
mod congestion;
pub mod cookie;
mod delivery;
mod ecn;
mod expected;
pub mod fast_open;
mod half_open;
mod info;
mod input;
mod isn;
mod output;
mod pacing;
mod path_mtu;
mod probes;
mod ranges;
mod rate;
mod receive;
mod records;
mod recovery;
mod recvq;
mod renew;
mod rest;
mod rtt;
mod sendq;
mod seq;
mod slices;
mod state;
mod tcb;
mod time_wait;
mod timeout;
mod timers;
mod window;

use std::time::Duration;

use barewire_driver::PacketSlice;
use bitflags::bitflags;

use crate::wire::ipv4::Ecn;
use crate::wire::tcp::{TcpFlags, TcpHeader};

pub use congestion::{Algorithm, UnknownAlgorithm};
pub use cookie::SynCookies;
pub use ecn::EcnMode;
pub use half_open::{HalfOpen, HalfOpenOutcome, HalfOpenTimeout};
pub use info::{
    SendLimit, TCPI_OPT_ECN, TCPI_OPT_SACK, TCPI_OPT_SYN_DATA, TCPI_OPT_TIMESTAMPS,
    TCPI_OPT_WSCALE, TcpInfo,
};
pub use isn::FlowNumbers;
pub(crate) use rest::AtRest;
pub use seq::{SeqNum, WindowScale};
pub use state::State;
pub use tcb::Tcb;
pub use time_wait::{TimeWait, TimeWaitOutcome};

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

/// The settings of one connection. A `Tcb` shares them behind an `Rc` and copies on change.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpConfig {
    /// Bytes that may wait for the application to read (`SO_RCVBUF`); also bounds the window.
    pub recv_buffer_bytes: u32,
    /// The receive buffer begins with 256 KiB and grows up to `recv_buffer_bytes` where the path
    /// needs more; otherwise it has that size at once. `SO_RCVBUF` turns this off.
    pub recv_autotune: bool,
    /// Bytes that may wait to be sent and acknowledged (`SO_SNDBUF`).
    pub send_buffer_bytes: u32,
    /// The send buffer begins with 256 KiB and follows the congestion window up to
    /// `send_buffer_bytes`; otherwise it has that size at once. `SO_SNDBUF` turns this off.
    pub send_autotune: bool,
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
    /// How long an ACK may wait for company; zero turns delaying off.
    pub delayed_ack: Duration,
    /// Data segments at the start of a connection whose ACK is not delayed: the peer's congestion
    /// window is small then.
    pub quick_acks: u8,
    /// Acknowledges every segment at once (`TCP_QUICKACK`).
    pub quick_ack: bool,
    /// Turns Nagle's algorithm off (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Holds partial segments back for at most 200 ms (`TCP_CORK`).
    pub cork: bool,
    /// Keepalive, off by default (`SO_KEEPALIVE`).
    pub keepalive: Option<Keepalive>,
    /// The times that keepalive has when it is turned on.
    pub keepalive_times: Keepalive,
    /// Longest time that sent data may stay unacknowledged (RFC 5482, `TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// Offer and accept window scaling (RFC 7323 §2).
    pub window_scale: bool,
    /// Offer and accept timestamps (RFC 7323 §3).
    pub timestamps: bool,
    /// Offer and accept selective acknowledgments (RFC 2018).
    pub sack: bool,
    /// Report what arrives twice, and learn from the peer's reports (RFC 2883).
    pub dsack: bool,
    /// Find losses by time and probe for lost tails (RFC 8985); otherwise by count (RFC 6675).
    pub rack_tlp: bool,
    /// Count the retransmission timeout from when the oldest segment left where few are out (RFC
    /// 7765).
    pub rto_restart: bool,
    /// Suspect the size of segments when the retransmission timer expires again and again, and try
    /// larger ones later (RFC 4821). Off by default, as in Linux: a peer that is gone looks the same.
    pub mtu_probing: bool,
    /// Upper bound of the MSS, both ways (`TCP_MAXSEG`).
    pub mss_max: Option<u16>,
    /// The congestion controller (`TCP_CONGESTION`).
    pub congestion: Algorithm,
    /// After idling for longer than a retransmission timeout the window starts again from the
    /// initial one (RFC 5681 §4.1); BBR paces instead.
    pub slow_start_after_idle: bool,
    /// Data leaves at a rate, 2 windows a round trip in slow start and 1.2 after it, instead of as
    /// fast as the window allows. BBR paces whatever this says.
    pub pacing: bool,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: EcnMode,
    /// How long an orphaned connection may stay in FIN-WAIT-2 (`TCP_LINGER2`).
    pub fin_wait_2: Duration,
    /// 2 MSL: the length of TIME-WAIT.
    pub time_wait: Duration,
    /// What `close` does with unsent data (`SO_LINGER`).
    pub linger: Linger,
    /// Challenge ACKs a second that one connection sends at most (RFC 5961 §7).
    pub challenge_acks_per_s: u16,
    /// When a listener answers SYNs with cookies (RFC 4987 §3.6).
    pub syn_cookies: SynCookies,
    /// How long a listener waits for the first data of a connection before `accept` gives it out
    /// without (`TCP_DEFER_ACCEPT`); zero does not wait.
    pub defer_accept: Duration,
    /// Connections of a listener that may be opened by a fast open cookie and whose handshake has
    /// not ended (`TCP_FASTOPEN`); zero turns fast open off.
    pub fast_open_queue: u32,
    /// `connect` waits for the first write and sends it with the SYN, where a cookie allows it
    /// (`TCP_FASTOPEN_CONNECT`).
    pub fast_open_connect: bool,
    /// How long whoever waits for data, room or a connection in the socket's name does so
    /// (`SO_RCVTIMEO`, `SO_SNDTIMEO`); `None` is for ever. The stack itself never waits.
    pub recv_timeout: Option<Duration>,
    /// See `recv_timeout`.
    pub send_timeout: Option<Duration>,
}

impl Default for TcpConfig {
    /// What the RFCs say, and what Linux does where they leave the choice.
    fn default() -> Self {
        TcpConfig {
            recv_buffer_bytes: 6 << 20,
            recv_autotune: true,
            send_buffer_bytes: 4 << 20,
            send_autotune: true,
            initial_window_segments: 10,
            rto_min: Duration::from_millis(200),
            rto_initial: Duration::from_secs(1),
            rto_max: Duration::from_secs(120),
            syn_retries: 6,
            syn_ack_retries: 5,
            data_retries: 15,
            delayed_ack: Duration::from_millis(40),
            quick_acks: 16,
            quick_ack: false,
            nodelay: false,
            cork: false,
            keepalive: None,
            keepalive_times: Keepalive::default(),
            user_timeout: None,
            window_scale: true,
            timestamps: true,
            sack: true,
            dsack: true,
            rack_tlp: true,
            rto_restart: false,
            mtu_probing: false,
            mss_max: None,
            congestion: Algorithm::Cubic,
            slow_start_after_idle: true,
            pacing: false,
            ecn: EcnMode::WhenAsked,
            fin_wait_2: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            linger: Linger::Background,
            challenge_acks_per_s: 10,
            syn_cookies: SynCookies::Auto,
            defer_accept: Duration::ZERO,
            fast_open_queue: 0,
            fast_open_connect: false,
            recv_timeout: None,
            send_timeout: None,
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
    /// The ECN field of its IP header. Devices join only segments in which it is the same.
    pub ecn: Ecn,
    /// How much packet memory there is to keep the payload in.
    pub memory: Memory,
}

/// What a segment carries besides its header and its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    /// As in [`Segment`].
    pub(crate) len: u32,
    pub(crate) wire_segments: u16,
    pub(crate) ecn: Ecn,
    pub(crate) memory: Memory,
}

impl Text {
    #[inline]
    fn of(segment: &Segment<'_>) -> Text {
        let &Segment { payload_len: len, wire_segments, ecn, memory, .. } = segment;
        Text { len, wire_segments, ecn, memory }
    }

    /// The segment with this header and these bytes.
    pub(crate) fn segment<'a>(
        &self,
        header: &'a TcpHeader,
        payload: &'a mut Vec<PacketSlice>,
    ) -> Segment<'a> {
        let &Text { len: payload_len, wire_segments, ecn, memory } = self;
        Segment { header, payload, payload_len, wire_segments, ecn, memory }
    }
}

/// What packet memory allows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Memory {
    /// Buffers may grow.
    #[default]
    Plenty,
    /// Buffers must not grow.
    Scarce,
    /// This payload cannot be kept: it counts as lost, the rest of the segment as received.
    Exhausted,
}

/// What the device and the moment allow one transmission to be.
#[derive(Clone, Copy, Debug)]
pub struct TxLimits {
    /// Most payload bytes in a super-segment; one MSS or more. Without TSO software cuts it.
    pub max_bytes: u32,
    /// Most payload pieces in a super-segment.
    pub max_pieces: u16,
    /// Who makes wire segments of it.
    pub cut: Cut,
}

/// Who cuts super-segments: where software does, what is written from then on lies a segment to a slot
/// where it fits, behind room for its headers, and leaves in one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// The device, or nobody needs to.
    #[default]
    Device,
    /// Software, and the device completes checksums.
    Software,
    /// Software, which completes checksums, too: payload is summed while it is copied in.
    SoftwareSums,
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
    /// The ECN field of the IP header of each.
    pub ecn: Ecn,
}

/// What has become of a connection after a segment, a timeout or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// It goes on; answer the segment with this RST (ports left zero).
    Reset(TcpHeader),
    /// It is in CLOSED: poll what it has left to send (a last RST), then forget its 4-tuple.
    /// Received data and the error can still be read.
    Closed,
    /// It is in TIME-WAIT: poll its last ACK, then give its 4-tuple to its [`TimeWait`], at once or
    /// when the application lets go of it. Received data can still be read.
    TimeWait,
}

/// What the socket layer chooses for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The initial sequence number, from [`FlowNumbers::isn`].
    pub iss: u32,
    /// The offset of the timestamp clock, from [`FlowNumbers::ts_offset`].
    pub ts_offset: u32,
    /// The largest segment that our link takes: MTU less IP and TCP headers without options.
    pub mss: u16,
}

bitflags! {
    /// What a call on a socket would not have to wait for. Other sockets use it, too.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Readiness: u8 {
        /// Reading (or accepting) answers at once: with data, the end of the stream or an error.
        const READABLE = 1 << 0;
        /// Writing takes something, or answers with an error.
        const WRITABLE = 1 << 1;
        /// Nothing more will arrive; what has can still be read.
        const READ_CLOSED = 1 << 2;
        /// Nothing more can be written.
        const WRITE_CLOSED = 1 << 3;
        /// An error waits to be taken.
        const ERROR = 1 << 4;
    }
}

/// An ICMP message about a segment that we sent (RFC 5461, RFC 5927).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Soft: the route may come back.
    HostUnreachable,
    /// Soft.
    NetworkUnreachable,
    /// Hard: nothing listens there.
    PortUnreachable,
    /// Hard: the host speaks no TCP.
    ProtocolUnreachable,
    /// The segment was too large for a link on the way (RFC 1191, RFC 8201).
    FragmentationNeeded {
        /// The link's MTU less IP and TCP headers without options: the block does not know which
        /// IP it runs over.
        mss: u16,
    },
}

/// Why a segment, or its payload, was dropped. The socket layer counts each by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Sequence numbers outside the window: old, duplicate or forged (RFC 9293 §3.10.7.4).
    OutsideWindow,
    /// A zero-window probe, or data that the closed window has no room for.
    ZeroWindow,
    /// An older timestamp than one already seen (RFC 7323 §5, PAWS).
    OldTimestamp,
    /// No timestamp although they were agreed on (RFC 7323 §3.2).
    MissingTimestamp,
    /// An RST that does not match exactly (RFC 5961 §3).
    BadReset,
    /// A SYN inside a connection (RFC 5961 §4).
    UnexpectedSyn,
    /// Neither ACK nor SYN nor RST.
    NoAck,
    /// An ACK of what was never sent, or of too long ago (RFC 5961 §5).
    BadAck,
    /// A SACK block of what was never sent, or one too many to remember; the rest counts.
    BadSack,
    /// Too much packet memory is pinned by data that was not read.
    ReceiveMemory,
    /// Too much data out of sequence.
    Reassembly,
    /// Data after the peer's FIN.
    AfterFin,
    /// The application has shut down reading: acknowledged and discarded.
    ReadShut,
    /// The connection is in CLOSED.
    Closed,
    /// A segment that deserved a challenge ACK came when this second's were used up.
    ChallengeLimit,
}

/// Figures about a connection in bytes and spans of time, for tests and tools of our own;
/// [`TcpInfo`] has the kernel's names and units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// State.
    pub state: State,
    /// Smoothed round-trip time, once measured.
    pub srtt: Option<Duration>,
    /// Its variation.
    pub rttvar: Duration,
    /// Retransmission timeout, backed off.
    pub rto: Duration,
    /// Congestion controller.
    pub congestion: Algorithm,
    /// Congestion window.
    pub cwnd_bytes: u32,
    /// Slow start threshold.
    pub ssthresh_bytes: u32,
    /// The peer's window.
    pub snd_wnd_bytes: u32,
    /// The window that we advertised, as far as it is not used.
    pub rcv_wnd_bytes: u32,
    /// Payload of a full segment that we send.
    pub mss: u16,
    /// Sent and not acknowledged.
    pub in_flight_bytes: u32,
    /// Bytes a second at which data leaves, if it is paced.
    pub pacing_rate: Option<u64>,
    /// The shortest round trip yet, by what was sent only once.
    pub min_rtt: Option<Duration>,
    /// Bytes known to have arrived, in order or not.
    pub delivered_bytes: u64,
    /// Explicit congestion notification is in use.
    pub ecn: bool,
    /// Segments sent again.
    pub retransmissions: u32,
    /// Payload bytes acknowledged by the peer.
    pub bytes_acked: u64,
    /// Payload bytes received in sequence.
    pub bytes_received: u64,
    /// Bytes in the network as far as is known: neither reported by the peer nor lost.
    pub pipe_bytes: u32,
    /// Bytes that the peer has reported behind gaps.
    pub sacked_bytes: u32,
    /// Bytes that are lost and not sent again yet.
    pub lost_bytes: u32,
    /// Recoveries and timeouts that turned out to have been needless, and were undone.
    pub undone: u16,
    /// Selective acknowledgments are in use.
    pub sack: bool,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// Shifts of the peer's and of our window, if scaling is in use.
    pub window_scales: Option<(u8, u8)>,
    /// Packet memory that received data keeps from being freed.
    pub pinned_bytes: u64,
}

/// The flags of an RST that acknowledges something.
const RST_ACK: TcpFlags = TcpFlags::RST.union(TcpFlags::ACK);

/// The RST that answers a segment to a port in CLOSED (RFC 9293 §3.10.7.1), ports left zero; `None`
/// if it was an RST itself.
pub fn reset_for(header: &TcpHeader, payload_len: u32) -> Option<TcpHeader> {
    if header.flags.contains(TcpFlags::RST) {
        return None;
    }
    if header.flags.contains(TcpFlags::ACK) {
        return Some(reset_with_seq(header.ack));
    }
    let len = payload_len
        + u32::from(header.flags.contains(TcpFlags::SYN))
        + u32::from(header.flags.contains(TcpFlags::FIN));
    Some(TcpHeader {
        ack: (SeqNum::new(header.seq) + len).get(),
        flags: RST_ACK,
        ..TcpHeader::default()
    })
}

/// `<SEQ=SEG.ACK><CTL=RST>`.
fn reset_with_seq(seq: u32) -> TcpHeader {
    TcpHeader { seq, flags: TcpFlags::RST, ..TcpHeader::default() }
}

#[cfg(test)]
mod tests;
