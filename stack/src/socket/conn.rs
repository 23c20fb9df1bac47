//! A connection in the socket table: its `Tcb` and what ties it to the stack.

use crate::hint::rarely;
use crate::route::PathCache;
use crate::socket::SocketId;
use crate::socket::block::Block;
use crate::socket::demux::FlowKey;
use crate::tcp::{Readiness, Tcb};
use crate::time::{Duration, Instant};
use crate::timer::{TimerKey, Wheel};

/// The one timer that a connection has in the wheel. It is re-armed lazily: a later deadline
/// leaves it where it is, and firing early costs one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LazyTimer {
    key: Option<TimerKey>,
    /// When the entry fires; [`Instant::FAR_FUTURE`] without one.
    at: Instant,
}

impl Default for LazyTimer {
    fn default() -> LazyTimer {
        LazyTimer { key: None, at: Instant::FAR_FUTURE }
    }
}

impl LazyTimer {
    /// Makes sure that the wheel fires, as `token`, no later than `at`.
    #[inline]
    pub(crate) fn arm(&mut self, wheel: &mut Wheel, at: Instant, token: u32) {
        if rarely(at < self.at) {
            self.move_to(wheel, at, token);
        }
    }

    #[inline(never)]
    fn move_to(&mut self, wheel: &mut Wheel, at: Instant, token: u32) {
        self.at = at;
        if !self.key.is_some_and(|key| wheel.reschedule(key, at)) {
            self.key = Some(wheel.insert(at, token));
        }
    }

    /// The timer of what the owner has become, which fires as `token`.
    pub(crate) fn rename(&self, wheel: &mut Wheel, token: u32) {
        if let Some(key) = self.key {
            wheel.rename(key, token);
        }
    }

    /// The same, and it fires at `at`: no entry is made where there is one.
    pub(crate) fn handed_over(mut self, wheel: &mut Wheel, at: Instant, token: u32) -> LazyTimer {
        self.rename(wheel, token);
        self.move_to(wheel, at, token);
        self
    }

    /// When it fires; never without an entry in the wheel.
    #[cfg(feature = "sim")]
    pub(crate) fn fires_at(&self) -> Instant {
        self.at
    }

    /// The entry has fired.
    pub(crate) fn fired(&mut self) {
        *self = LazyTimer::default();
    }

    /// Takes the entry out of the wheel.
    pub(crate) fn cancel(&mut self, wheel: &mut Wheel) {
        if let Some(key) = self.key {
            wheel.cancel(key);
        }
        *self = LazyTimer::default();
    }
}

/// Who holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The application, by its handle.
    Application,
    /// A listener's accept queue.
    Listener(SocketId),
    /// Nobody: closed, and ending in the background.
    Nobody,
}

/// How a connection's queue stood when memory was scarce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    since: Instant,
    acked: u64,
    /// What `acked` becomes when all that was queued then is gone.
    target: u64,
}

impl Drain {
    pub(crate) fn new(since: Instant, acked: u64, queued: u64) -> Drain {
        Drain { since, acked, target: acked + queued }
    }

    /// Whether what was queued is still not gone after `patience`, at less than so many bytes a
    /// second; `None` while it is too early to say.
    pub(crate) fn is_stalled(
        &self,
        acked: u64,
        now: Instant,
        patience: Duration,
        bytes_per_s: u32,
    ) -> Option<bool> {
        let elapsed = now - self.since;
        if acked >= self.target {
            return Some(false);
        }
        if elapsed < patience {
            return None;
        }
        let least = u128::from(bytes_per_s) * elapsed.as_millis() / 1000;
        Some(u128::from(acked - self.acked) < least)
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) key: FlowKey,
    pub(crate) tcb: Block,
    pub(crate) timer: LazyTimer,
    pub(crate) path: PathCache,
    pub(crate) holder: Holder,
    /// Readiness as last told to the application.
    pub(crate) told: Readiness,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// In the list of connections that want to send, or waiting for a neighbour.
    pub(crate) in_tx_list: bool,
    pub(crate) in_event_list: bool,
    /// Waiting for its turn to send by its rate.
    pub(crate) in_pacing: bool,
    /// A write had to wait because the connection has used its share of scarce memory.
    pub(crate) held_back: bool,
    /// How it drained when memory was last scarce.
    pub(crate) drain: Option<Box<Drain>>,
    /// The flow is in the flow table and counted at its port.
    pub(crate) linked: bool,
}

impl Connection {
    pub(crate) fn new(
        key: FlowKey,
        tcb: Box<Tcb>,
        holder: Holder,
        way: (PathCache, u8, u8),
    ) -> Connection {
        let (path, ttl, tos) = way;
        Connection {
            key,
            tcb: Block::Whole(tcb),
            timer: LazyTimer::default(),
            path,
            holder,
            told: Readiness::empty(),
            ttl,
            tos,
            in_tx_list: false,
            in_event_list: false,
            in_pacing: false,
            held_back: false,
            drain: None,
            linked: true,
        }
    }

    /// Kept headers have another TTL or TOS than is wanted.
    pub(crate) fn forget_headers(&mut self) {
        if let Some(tcb) = self.tcb.whole_calm() {
            tcb.front.forget();
        }
    }

    /// Puts it to rest if nothing happens, here or in its control block.
    pub(crate) fn rest(&mut self, now: Instant) {
        let listed = self.in_tx_list || self.in_pacing || self.held_back;
        if !listed && self.drain.is_none() && self.holder != Holder::Nobody {
            self.tcb.rest(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use crate::stack::Socket;

    #[test]
    fn an_idle_connection_is_as_small_as_promised() {
        assert!(size_of::<Socket>() <= 328, "{}", size_of::<Socket>());
    }
}
