//! When paced connections may send again: to the nanosecond, where the wheel has milliseconds.
//!
//! A heap of those that wait, each at most once. Insertion and removal take the logarithm of their
//! number; connections without pacing never enter it. A wheel of microseconds would take constant
//! time and round every gap up: at 10 Gbit/s by a large part of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Socket, Stack};
use crate::socket::SocketId;
use crate::time::Instant;

/// Connections that wait for their turn, by time. The entry of one that has ended stays until its
/// time, which is at most a second away.
#[derive(Debug, Default)]
pub(crate) struct PacingQueue {
    waiting: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl PacingQueue {
    /// Has [`Stack::release_paced`] look at a connection at `at`.
    pub(crate) fn push(&mut self, at: Instant, id: SocketId) {
        self.waiting.push(Reverse((at, id.index, id.generation)));
    }

    /// The next time that a connection may send.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|&Reverse((at, ..))| at)
    }

    /// True if this connection is among those that wait.
    #[cfg(feature = "sim")]
    pub(crate) fn knows(&self, index: u32, generation: Option<u32>) -> bool {
        self.waiting.iter().any(|&Reverse((_, i, g))| i == index && Some(g) == generation)
    }

    fn pop_due(&mut self, now: Instant) -> Option<SocketId> {
        if self.next()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse((_, index, generation))| SocketId { index, generation })
    }
}

impl Stack {
    /// Lets the connections send again whose time has come.
    #[inline]
    pub(super) fn release_paced(&mut self) {
        let now = self.egress.now;
        if self.pacing.next().is_some_and(|at| at <= now) {
            self.release_paced_now(now);
        }
    }

    #[inline(never)]
    fn release_paced_now(&mut self, now: Instant) {
        while let Some(id) = self.pacing.pop_due(now) {
            // The entry may have become another socket's.
            if let Some((generation, Socket::Connection(connection))) =
                self.sockets.entry_mut(id.index)
                && generation == id.generation
            {
                connection.in_pacing = false;
                self.with_tcb(id.index, |tcb| ((), tcb.handle_timeout(now)));
            }
        }
    }
}
