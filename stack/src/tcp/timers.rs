//! The deadlines of one connection: a table indexed by name.

use crate::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Timer {
    /// RFC 6298: sent data, SYN or FIN was not acknowledged.
    Retransmit,
    /// RFC 8985 §7.2: the ACK of the last data is overdue.
    Probe,
    /// RFC 8985 §6.2: something that was overtaken will count as lost.
    Reorder,
    /// RFC 9293 §3.8.6.1: the peer's window is closed, or too small to be worth a segment.
    Persist,
    /// An ACK has waited long enough for company.
    DelayedAck,
    /// RFC 9293 §3.8.4. Set from the last segment heard when it was armed; looked at again when due.
    Keepalive,
    /// A partial segment was corked long enough.
    Cork,
    /// The end of TIME-WAIT, of an orphan's FIN-WAIT-2, or of `SO_LINGER`'s patience.
    Lifetime,
    /// RFC 5482: sent data was unacknowledged for too long.
    User,
    /// An idle connection gives back the memory of its queues.
    Trim,
    /// The next paced data may leave. The last: it needs a finer clock than the others.
    Pacing,
}

const COUNT: usize = Timer::Pacing as usize + 1;

/// `Instant::FAR_FUTURE` is "not set".
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    /// No deadline but that of pacing is earlier. Setting one moves it forward, clearing and
    /// postponing leave it where it is: nobody looks through all deadlines for every segment.
    bound: Instant,
    at: [Instant; COUNT],
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { bound: Instant::FAR_FUTURE, at: [Instant::FAR_FUTURE; COUNT] }
    }
}

impl Timers {
    #[inline]
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = at;
        if timer != Timer::Pacing {
            self.bound = self.bound.min(at);
        }
    }

    /// Lowers the bound to `at`: a deadline is going to be set soon that lies behind it. Where the
    /// owner looks that early anyway, nothing has to be moved then.
    #[inline]
    pub(super) fn foresee(&mut self, at: Instant) {
        self.bound = self.bound.min(at);
    }

    #[inline]
    pub(super) fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = Instant::FAR_FUTURE;
    }

    #[inline]
    pub(super) fn get(&self, timer: Timer) -> Instant {
        self.at[timer as usize]
    }

    /// A time before which no deadline lies but that of pacing: it may be earlier than all of them.
    #[inline]
    pub(super) fn bound(&self) -> Instant {
        self.bound
    }

    /// Moves the bound to the earliest deadline.
    pub(super) fn tighten(&mut self) {
        self.bound = earliest(&self.at[..Timer::Pacing as usize]).unwrap_or(Instant::FAR_FUTURE);
    }

    /// True if none is set, or `timer` alone.
    pub(super) fn none_but(&self, timer: Timer) -> bool {
        let others = self.at.iter().enumerate().filter(|&(i, _)| i != timer as usize);
        others.map(|(_, at)| *at).min() == Some(Instant::FAR_FUTURE)
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.get(timer) != Instant::FAR_FUTURE
    }

    /// Clears the timer if it is due, and says whether it was.
    pub(super) fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        let due = self.is_set(timer) && self.get(timer) <= now;
        if due {
            self.clear(timer);
        }
        due
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        earliest(&self.at)
    }
}

fn earliest(deadlines: &[Instant]) -> Option<Instant> {
    let earliest = deadlines.iter().copied().min()?;
    (earliest != Instant::FAR_FUTURE).then_some(earliest)
}
