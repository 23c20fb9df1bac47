//! Buffers that grow with the path, so that nobody has to know its bandwidth-delay product.
//!
//! The receive buffer doubles when a whole window arrived within two round trips and the
//! application kept up: the window, not the path, was the limit. The send buffer follows the
//! congestion window: twice as much, so that what is written meanwhile does not wait for an ACK.
//! While packet memory is scarce nothing grows, and receive buffers fall back towards their start;
//! the right edge of the window never moves back (RFC 9293 §3.8.6), it only stops.

use super::TcpConfig;
use super::congestion::CongestionControl;
use super::seq::SeqNum;
use super::tcb::{Status, Tcb};
use crate::hint::rarely;
use crate::time::{Duration, Instant};

/// What an autotuned buffer starts with, if its limit is not lower.
pub(super) const START_BYTES: u32 = 256 << 10;

/// The timer's resolution: a round trip that is measured shorter may have been this long.
const SLACK: Duration = Duration::from_millis(1);

/// No window is as wide: a deadline in sequence numbers that is not reached before it is set again.
const NEVER: u32 = 1 << 30;

/// When the receive buffer is looked at next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tuning {
    /// When rcv.nxt reaches this,
    at: SeqNum,
    /// since then.
    since: Instant,
}

/// The receive buffer of a new connection.
pub(super) fn recv_start(config: &TcpConfig) -> u32 {
    start(config.recv_autotune, config.recv_buffer_bytes)
}

/// The send buffer of a new connection.
pub(super) fn send_start(config: &TcpConfig) -> u32 {
    start(config.send_autotune, config.send_buffer_bytes)
}

fn start(autotune: bool, limit: u32) -> u32 {
    if autotune { limit.min(START_BYTES) } else { limit }
}

impl Tcb {
    /// The receive buffer as it is now.
    pub fn recv_buffer_bytes(&self) -> u32 {
        self.rcv.buffer
    }

    /// The send buffer as it is now.
    pub fn send_buffer_bytes(&self) -> u32 {
        self.snd.buffer
    }

    /// The settings have changed: a fixed buffer has its size at once, an autotuned one keeps what
    /// it has grown to within its limits.
    pub(super) fn retune(&mut self) {
        let config = &self.config;
        let (recv, send) = (recv_start(config), send_start(config));
        self.rcv.buffer = self.rcv.buffer.clamp(recv, config.recv_buffer_bytes.max(recv));
        self.snd.buffer = self.snd.buffer.clamp(send, config.send_buffer_bytes.max(send));
    }

    /// A new window begins.
    pub(super) fn begin_tuning(&mut self, now: Instant) {
        let ahead = if self.config.recv_autotune { self.rcv.buffer } else { NEVER };
        self.rcv.tuning = Tuning { at: self.rcv.nxt + ahead, since: now };
    }

    /// Text has arrived in sequence.
    #[inline]
    pub(super) fn tune_receive(&mut self, now: Instant) {
        if self.rcv.nxt.after_eq(self.rcv.tuning.at) {
            self.tune_receive_now(now);
        }
    }

    #[cold]
    fn tune_receive_now(&mut self, now: Instant) {
        let (start, most) = (recv_start(&self.config), self.config.recv_buffer_bytes);
        if self.status.contains(Status::MEMORY_SCARCE) {
            self.rcv.buffer = (self.rcv.buffer / 2).max(start);
        } else if self.config.recv_autotune && self.window_was_the_limit(now) {
            self.rcv.buffer = self.rcv.buffer.saturating_mul(2).min(most).max(start);
        }
        self.still = self.still_windows();
        self.begin_tuning(now);
    }

    fn window_was_the_limit(&self, now: Instant) -> bool {
        let in_time = match self.rtt.srtt() {
            Some(srtt) => now - self.rcv.tuning.since <= 2 * srtt + SLACK,
            None => false,
        };
        in_time && self.recvq.len() <= self.rcv.buffer / 2
    }

    /// The congestion window has grown.
    #[inline]
    pub(super) fn tune_send(&mut self) {
        let wanted = self.controller.cwnd().saturating_mul(2);
        if rarely(wanted > self.snd.buffer)
            && self.config.send_autotune
            && !self.status.contains(Status::MEMORY_SCARCE)
        {
            self.snd.buffer = wanted.min(self.config.send_buffer_bytes).max(self.snd.buffer);
        }
    }
}
