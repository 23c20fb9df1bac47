//! `TCP_INFO`: what a connection tells about itself, with the kernel's names and units.
//!
//! Only fields that are really kept are here. Counts of segments are of wire segments, also where
//! several travel as one. Beside them stands what Linux does not tell: why nothing is sent now.

use super::congestion::CongestionControl;
use super::output::Blocked;
use super::state::State;
use super::tcb::{Status, Tcb};
use super::timers::Timer;
use crate::hint::rarely;
use crate::time::{Duration, Instant};

/// The kernel's value of `tcpi_snd_ssthresh` before a loss: no threshold.
const INFINITE_SSTHRESH: u32 = 0x7fff_ffff;

/// The kernel's value of `tcpi_min_rtt` before a measurement.
const NO_RTT: u32 = u32::MAX;

/// `tcpi_options`: timestamps are in use.
pub const TCPI_OPT_TIMESTAMPS: u8 = 1;
/// `tcpi_options`: selective acknowledgments are in use.
pub const TCPI_OPT_SACK: u8 = 2;
/// `tcpi_options`: window scaling is in use.
pub const TCPI_OPT_WSCALE: u8 = 4;

/// `tcpi_options`: explicit congestion notification is in use.
pub const TCPI_OPT_ECN: u8 = 8;

/// `tcpi_options`: data went with the SYN, and was acknowledged by the SYN-ACK.
pub const TCPI_OPT_SYN_DATA: u8 = 32;

/// Why a connection is not sending now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendLimit {
    /// The application: everything that it wrote has been sent.
    Application,
    /// Nothing: it sends when its turn comes.
    Nothing,
    /// The handshake has not ended.
    Handshake,
    /// The connection sends no more: it is closed, or its FIN is out.
    Closed,
    /// The congestion window is full.
    CongestionWindow,
    /// The peer's window takes no more.
    PeerWindow,
    /// The next segment's time has not come: data leaves at a rate.
    Pacing,
    /// Nagle's algorithm: a partial segment waits for the ACK of an earlier one.
    Nagle,
    /// `TCP_CORK` or `MSG_MORE`: a partial segment waits for more.
    Cork,
    /// The next hop's link address is being asked for.
    Neighbor,
}

impl std::fmt::Display for SendLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SendLimit::Application => "application",
            SendLimit::Nothing => "nothing",
            SendLimit::Handshake => "handshake",
            SendLimit::Closed => "closed",
            SendLimit::CongestionWindow => "cwnd",
            SendLimit::PeerWindow => "rwnd",
            SendLimit::Pacing => "pacing",
            SendLimit::Nagle => "nagle",
            SendLimit::Cork => "cork",
            SendLimit::Neighbor => "neighbor",
        })
    }
}

/// Declares the fields of [`TcpInfo`] once, with their names for people and programs.
macro_rules! tcp_info {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// Figures about a connection (`TCP_INFO`), named and measured as in Linux' `struct
        /// tcp_info`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct TcpInfo {
            /// State, by the RFC's name.
            pub state: State,
            /// Why it is not sending now.
            pub limit: SendLimit,
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl TcpInfo {
            /// The fields that Linux has, too, with their names.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), u64::from(self.$name)),)*].into_iter()
            }
        }
    };
}

tcp_info! {
    /// State, by the kernel's number.
    tcpi_state: u8,
    /// What loss recovery is doing: 0 open, 1 disorder, 2 reduced for a mark, 3 recovery, 4 loss.
    tcpi_ca_state: u8,
    /// Timeouts of what stands at snd.una.
    tcpi_retransmits: u8,
    /// Zero-window and keepalive probes without an answer.
    tcpi_probes: u8,
    /// Doublings of the retransmission or probe timer.
    tcpi_backoff: u8,
    /// Options in use: [`TCPI_OPT_TIMESTAMPS`], [`TCPI_OPT_SACK`], [`TCPI_OPT_WSCALE`],
    /// [`TCPI_OPT_ECN`], [`TCPI_OPT_SYN_DATA`].
    tcpi_options: u8,
    /// Shift of the peer's window.
    tcpi_snd_wscale: u8,
    /// Shift of our window.
    tcpi_rcv_wscale: u8,
    /// Retransmission timeout, backed off, in microseconds.
    tcpi_rto: u32,
    /// How long an ACK may wait, in microseconds; 0 while none does.
    tcpi_ato: u32,
    /// Payload of a full segment that we send.
    tcpi_snd_mss: u32,
    /// Payload of the largest segment that the peer has sent.
    tcpi_rcv_mss: u32,
    /// Segments sent and not acknowledged.
    tcpi_unacked: u32,
    /// Segments that the peer has reported behind gaps.
    tcpi_sacked: u32,
    /// Segments found lost and not acknowledged, sent again or not.
    tcpi_lost: u32,
    /// Segments sent again and not acknowledged.
    tcpi_retrans: u32,
    /// Milliseconds since data was sent last, or since the handshake ended.
    tcpi_last_data_sent: u32,
    /// Milliseconds since data came last, or since the handshake ended.
    tcpi_last_data_recv: u32,
    /// Milliseconds since any segment came last.
    tcpi_last_ack_recv: u32,
    /// Smoothed round-trip time in microseconds.
    tcpi_rtt: u32,
    /// Its variation in microseconds.
    tcpi_rttvar: u32,
    /// Slow start threshold in segments.
    tcpi_snd_ssthresh: u32,
    /// Congestion window in segments.
    tcpi_snd_cwnd: u32,
    /// The MSS that we announced.
    tcpi_advmss: u32,
    /// The receive buffer as it is now, in bytes.
    tcpi_rcv_space: u32,
    /// Segments sent again.
    tcpi_total_retrans: u32,
    /// Bytes a second at which data leaves; `u64::MAX` if at once.
    tcpi_pacing_rate: u64,
    /// Payload bytes that the peer has acknowledged.
    tcpi_bytes_acked: u64,
    /// Payload bytes received in sequence.
    tcpi_bytes_received: u64,
    /// Segments sent.
    tcpi_segs_out: u32,
    /// Segments received.
    tcpi_segs_in: u32,
    /// Bytes written and not sent yet.
    tcpi_notsent_bytes: u32,
    /// Smallest round-trip time of the last minutes in microseconds; `u32::MAX` without one.
    tcpi_min_rtt: u32,
    /// Segments received with data.
    tcpi_data_segs_in: u32,
    /// Segments sent with data.
    tcpi_data_segs_out: u32,
    /// Microseconds in which something was to be sent or acknowledged.
    tcpi_busy_time: u64,
    /// Those of them in which the peer's window held data back.
    tcpi_rwnd_limited: u64,
    /// Payload bytes sent, again or for the first time.
    tcpi_bytes_sent: u64,
    /// Payload bytes sent again.
    tcpi_bytes_retrans: u64,
    /// Segments received out of sequence.
    tcpi_rcv_ooopack: u32,
    /// The peer's window in bytes.
    tcpi_snd_wnd: u32,
    /// Our window in bytes, as far as it is not used.
    tcpi_rcv_wnd: u32,
}

/// What a connection is busy with, for the two times of [`TcpInfo`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Idle,
    Busy,
    /// Busy, and the peer's window holds data back.
    WindowLimited,
}

/// What is counted for [`TcpInfo`] and for nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    segs_in: u32,
    segs_out: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    pub(super) out_of_order: u32,
    bytes_sent: u64,
    pub(super) bytes_resent: u64,
    /// Milliseconds of the stack's clock, wrapping.
    data_sent_ms: u32,
    data_received_ms: u32,
    activity: Activity,
    since: Instant,
    busy_ns: u64,
    window_limited_ns: u64,
}

impl Tally {
    /// The handshake has ended: times without data count from here.
    #[inline]
    pub(super) fn established(&mut self, now: Instant) {
        (self.data_sent_ms, self.data_received_ms) =
            (now.as_millis() as u32, now.as_millis() as u32);
    }

    /// A segment has arrived, or `wire_segments` joined into one.
    #[inline]
    pub(super) fn received(&mut self, now: Instant, payload_len: u32, wire_segments: u16) {
        let count = u32::from(wire_segments);
        self.segs_in = self.segs_in.wrapping_add(count);
        if payload_len > 0 {
            self.data_segs_in = self.data_segs_in.wrapping_add(count);
            self.data_received_ms = now.as_millis() as u32;
        }
    }

    /// A segment leaves, or a super-segment whose parts have `mss` bytes.
    #[inline]
    pub(super) fn sent(&mut self, now: Instant, payload_len: u32, mss: u16) {
        if payload_len == 0 {
            self.segs_out = self.segs_out.wrapping_add(1);
            return;
        }
        let count = match payload_len <= u32::from(mss) {
            true => 1,
            false => payload_len.div_ceil(u32::from(mss).max(1)),
        };
        self.segs_out = self.segs_out.wrapping_add(count);
        self.data_segs_out = self.data_segs_out.wrapping_add(count);
        self.bytes_sent += u64::from(payload_len);
        self.data_sent_ms = now.as_millis() as u32;
    }

    /// One segment with data leaves.
    #[inline(always)]
    pub(super) fn sent_one(&mut self, now: Instant, payload_len: u32) {
        self.segs_out = self.segs_out.wrapping_add(1);
        self.data_segs_out = self.data_segs_out.wrapping_add(1);
        self.bytes_sent += u64::from(payload_len);
        self.data_sent_ms = now.as_millis() as u32;
    }

    /// Nothing is to be sent or acknowledged from now on.
    #[inline]
    pub(super) fn idle(&mut self, now: Instant) {
        self.turn_to(now, Activity::Idle);
    }

    /// Something is, and nothing but its ACK is waited for.
    #[inline]
    pub(super) fn busy(&mut self, now: Instant) {
        self.turn_to(now, Activity::Busy);
    }

    #[inline]
    fn turn_to(&mut self, now: Instant, activity: Activity) {
        if activity != self.activity {
            let span = now.nanos_since(self.since);
            let (busy, limited) = match self.activity {
                Activity::Idle => (0, 0),
                Activity::Busy => (span, 0),
                Activity::WindowLimited => (span, span),
            };
            self.busy_ns += busy;
            self.window_limited_ns += limited;
            (self.activity, self.since) = (activity, now);
        }
    }
}

impl Tcb {
    /// Notes what the connection is busy with from now on; asked after everything that is sent.
    #[inline]
    pub(super) fn note_activity(&mut self, now: Instant) {
        let unsent = self.sendq.unsent();
        let activity = if unsent > 0 && rarely(self.peer_room() < unsent.min(self.mss())) {
            Activity::WindowLimited
        } else if unsent > 0 || self.snd.una != self.snd.nxt {
            Activity::Busy
        } else {
            Activity::Idle
        };
        self.tally.turn_to(now, activity);
    }

    /// Why nothing is sent now, as far as the connection itself knows.
    pub fn send_limit(&self) -> SendLimit {
        let unsent = self.sendq.unsent().max(u32::from(self.fin_waits()));
        if self.state.is_opening() {
            return SendLimit::Handshake;
        }
        if !self.state.can_transmit_data() || self.status.contains(Status::FIN_SENT) {
            return SendLimit::Closed;
        }
        if self.wants_transmit() {
            return SendLimit::Nothing;
        }
        if unsent == 0 && self.sendq.records.lost() == 0 {
            return SendLimit::Application;
        }
        if self.timers.is_set(Timer::Pacing) {
            return SendLimit::Pacing;
        }
        if self.peer_room() < unsent.min(self.mss()) {
            return SendLimit::PeerWindow;
        }
        if self.cwnd_room() < unsent.min(self.mss()) || unsent == 0 {
            return SendLimit::CongestionWindow;
        }
        match self.blocked() {
            Blocked::Cork => SendLimit::Cork,
            Blocked::Window => SendLimit::PeerWindow,
            Blocked::No if self.status.contains(Status::NODELAY) => SendLimit::CongestionWindow,
            Blocked::No => SendLimit::Nagle,
        }
    }

    /// Figures for `TCP_INFO`.
    pub fn tcp_info(&self, now: Instant) -> TcpInfo {
        let mss = self.mss();
        let segments = |bytes: u32| bytes.div_ceil(mss);
        let ago = |then_ms: u32| (now.as_millis() as u32).wrapping_sub(then_ms);
        let mut tally = self.tally;
        // The running span counts, too.
        let activity = tally.activity;
        tally.turn_to(now, Activity::Idle);
        tally.turn_to(now, activity);
        let (scaling, snd) = (self.status.contains(Status::SCALING), &self.snd);
        let shift = |shift: u8| if scaling { shift } else { 0 };
        let ssthresh = self.controller.ssthresh();
        let (lost, resent) = self.sendq.records.outstanding_losses();
        let waits = self.timers.is_set(Timer::DelayedAck);
        TcpInfo {
            state: self.state,
            limit: self.send_limit(),
            tcpi_state: kernel_state(self.state),
            tcpi_ca_state: match self.recovery.ca_state(self.sendq.records.sacked() > 0) {
                0 | 1 if self.ecn_answered() => 2,
                state => state,
            },
            tcpi_retransmits: self.retries,
            tcpi_probes: self.probes,
            tcpi_backoff: self.rtt.backoff().max(self.persist_backoff),
            tcpi_options: self.options_in_use(),
            tcpi_snd_wscale: shift(snd.scale.shift()),
            tcpi_rcv_wscale: shift(self.rcv.scale.shift()),
            tcpi_rto: micros(self.rtt.rto()),
            tcpi_ato: if waits { micros(self.config.delayed_ack) } else { 0 },
            tcpi_snd_mss: mss,
            tcpi_rcv_mss: u32::from(self.rcv.peer_segment),
            tcpi_unacked: segments(snd.nxt.since(snd.una)),
            tcpi_sacked: segments(self.sendq.records.sacked()),
            tcpi_lost: segments(lost),
            tcpi_retrans: segments(resent),
            tcpi_last_data_sent: ago(tally.data_sent_ms),
            tcpi_last_data_recv: ago(tally.data_received_ms),
            tcpi_last_ack_recv: ago(self.last_heard.as_millis() as u32),
            tcpi_rtt: self.rtt.srtt().map_or(0, micros),
            tcpi_rttvar: micros(self.rtt.rttvar()),
            tcpi_snd_ssthresh: if ssthresh >= 1 << 30 { INFINITE_SSTHRESH } else { ssthresh / mss },
            tcpi_snd_cwnd: self.controller.cwnd() / mss,
            tcpi_advmss: u32::from(self.rcv.our_mss),
            tcpi_rcv_space: self.rcv.buffer,
            tcpi_total_retrans: self.retransmissions,
            tcpi_pacing_rate: self.pacing_rate().unwrap_or(u64::MAX),
            tcpi_bytes_acked: self.bytes_acked,
            tcpi_bytes_received: self.bytes_received,
            tcpi_segs_out: tally.segs_out,
            tcpi_segs_in: tally.segs_in,
            tcpi_notsent_bytes: self.sendq.unsent(),
            tcpi_min_rtt: self.recovery.min_rtt().map_or(NO_RTT, micros),
            tcpi_data_segs_in: tally.data_segs_in,
            tcpi_data_segs_out: tally.data_segs_out,
            tcpi_busy_time: tally.busy_ns / 1000,
            tcpi_rwnd_limited: tally.window_limited_ns / 1000,
            tcpi_bytes_sent: tally.bytes_sent,
            tcpi_bytes_retrans: tally.bytes_resent,
            tcpi_rcv_ooopack: tally.out_of_order,
            tcpi_snd_wnd: snd.wnd,
            tcpi_rcv_wnd: self.rcv.edge.since(self.rcv.nxt),
        }
    }

    fn options_in_use(&self) -> u8 {
        let in_use = |on: bool, bit: u8| if on { bit } else { 0 };
        in_use(self.status.contains(Status::TIMESTAMPS), TCPI_OPT_TIMESTAMPS)
            | in_use(self.has_sack(), TCPI_OPT_SACK)
            | in_use(self.status.contains(Status::SCALING), TCPI_OPT_WSCALE)
            | in_use(self.ecn.agreed, TCPI_OPT_ECN)
            | in_use(self.status.contains(Status::SYN_DATA), TCPI_OPT_SYN_DATA)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// The numbers that Linux gives the states (`TCP_ESTABLISHED` and so on).
fn kernel_state(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
    }
}
