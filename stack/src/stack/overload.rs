//! More work than there is time for.
//!
//! A frame that the device has to drop for want of a place may be anything: the request of a
//! connection on which much has been spent, an ACK, an operator's knock. Dropped at random, all of
//! them have to be sent again, and what was begun for them is in vain. So whoever drives a stack tells
//! it how many frames wait for it, and it sheds what has cost nothing yet: new connections. A SYN is
//! dropped as soon as it is known to be right, its client tries again by itself after a second (RFC 6298
//! §2.1), and connections that are open keep what they need.
//!
//! ```text
//!   SYNs shed
//!     all │        ┌────
//!         │      ╱
//!    none └────╱────────  frames that two turns in a row have taken
//!            1/8  3/4     of the most that they may
//! ```
//!
//! A part of them is shed, the larger the more is waiting. All or none would swing from one to the
//! other: what a SYN brings comes some turns after it has been let in, from all that were let in
//! together, and finds the ring of the device full. A single turn that finds much says nothing: so
//! do a sender's burst and a late wake-up, and the next turn finds little. Nor do many frames say
//! it among which there is hardly a SYN: open connections are busy, and the few would free nothing.
//!
//! Listeners of operators are heard all the same, so that an overload can be seen and ended:
//! [`SocketOption::Priority`](crate::SocketOption::Priority).

use super::{Socket, Stack};
use crate::socket::{OPERATOR_PRIORITY, SocketId};
use crate::wire::tcp::{TcpFlags, TcpHeader};

/// The whole that parts of SYNs are counted in.
const ALL: u32 = 256;

/// SYNs that are fewer than one in so many frames are let in.
const FRAMES_A_SYN: usize = 16;

/// Which part of the SYNs is shed.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    /// Of [`ALL`].
    part: u32,
    /// Turns are long enough for SYNs to be counted.
    counts: bool,
    /// Those of this turn, shed or not.
    syns: usize,
    /// What the SYNs since the last one that was shed have added up to: they are shed at even
    /// distances.
    sum: u32,
    /// Frames that the last turn took.
    last: usize,
}

impl Shedding {
    /// A turn took so many frames, of so many that it may.
    fn note(&mut self, taken: usize, most: usize) {
        let standing = taken.min(self.last);
        self.last = taken;
        let (part, syns) = (Shedding::part(standing, most), std::mem::take(&mut self.syns));
        self.counts = part > 0;
        self.part = if syns.saturating_mul(FRAMES_A_SYN) >= taken { part } else { 0 };
    }

    /// The part where two turns in a row took so many frames at least.
    fn part(taken: usize, most: usize) -> u32 {
        // None up to an eighth of a turn, all from three quarters on: five eighths in between.
        let (taken, most) = (taken.min(most) as u64, most.max(1) as u64);
        let over = taken.saturating_mul(8).saturating_sub(most);
        let part = over.saturating_mul(ALL.into()) / most.saturating_mul(5);
        part.min(ALL.into()) as u32
    }

    /// True if the next SYN is to be shed.
    fn takes_next(&mut self) -> bool {
        self.syns += 1;
        self.sum += self.part;
        let shed = self.sum >= ALL;
        self.sum -= if shed { ALL } else { 0 };
        shed
    }
}

impl Stack {
    /// Says how far the stack is behind: how many frames the last turn took, of how many it may take
    /// at most. To be called after each turn. Where two in a row took many, a part of the SYNs is
    /// dropped until the next call, and counted in `listen_shed`: none if they took an eighth of what
    /// they may or had hardly a SYN, all if they took three quarters.
    pub fn note_turn(&mut self, taken: usize, most: usize) {
        self.shedding.note(taken, most);
    }

    /// True, and counted, for a SYN that is to be shed, to a port where nobody but ordinary listeners
    /// are. To be asked once of a SYN: each answer counts towards the next. Its flow is not looked for:
    /// a lost SYN is sent again.
    #[inline]
    pub(super) fn sheds(&mut self, header: &TcpHeader) -> bool {
        let sheds =
            self.shedding.counts && self.opens_ordinary(header) && self.shedding.takes_next();
        self.egress.counters.listen_shed += u64::from(sheds);
        sheds
    }

    #[cold]
    fn opens_ordinary(&self, header: &TcpHeader) -> bool {
        let opening = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST;
        if header.flags & opening != TcpFlags::SYN {
            return false;
        }
        let ordinary = |id: &SocketId| match self.get(*id) {
            Some(Socket::Listener(listener)) => listener.template.priority < OPERATOR_PRIORITY,
            Some(Socket::Fresh(_) | Socket::Connection(_) | Socket::Datagram(_)) | None => false,
        };
        let listeners = self.listeners.get(&header.dst_port);
        listeners.is_some_and(|ids| !ids.is_empty() && ids.iter().all(ordinary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_a_turn_takes_the_more_is_shed() {
        let part = |taken| Shedding::part(taken, 256);
        assert_eq!([0, 1, 32].map(part), [0; 3]);
        assert_eq!([112, 192, 193, 256].map(part), [128, 256, 256, 256]);
        assert!((0..256).all(|taken| part(taken) <= part(taken + 1)));
        assert_eq!((Shedding::part(0, 0), Shedding::part(usize::MAX, 1)), (0, ALL));
    }

    #[test]
    fn one_turn_that_finds_much_is_no_overload() {
        let mut shedding = Shedding::default();
        let mut shed = |taken| {
            shedding.note(taken, 256);
            let shed = shedding.takes_next();
            shedding.syns = taken;
            shed
        };
        assert_eq!(
            [256, 10, 256, 256, 256, 10, 256].map(&mut shed),
            [false, false, false, true, true, false, false]
        );
    }

    #[test]
    fn a_few_syns_among_the_frames_of_others_are_let_in() {
        for syns in [1, 15, 16, 256] {
            let mut shedding = Shedding::default();
            for _ in 0..3 {
                shedding.note(256, 256);
                shedding.syns = syns;
            }
            shedding.note(256, 256);
            assert_eq!(shedding.takes_next(), syns >= 16, "{syns} of 256");
        }
    }

    #[test]
    fn a_part_is_shed_at_even_distances() {
        let mut shedding = Shedding { part: ALL / 4, ..Shedding::default() };
        let shed: Vec<bool> = (0..8).map(|_| shedding.takes_next()).collect();
        assert_eq!(shed, [false, false, false, true, false, false, false, true]);
        shedding.part = ALL;
        assert!((0..8).all(|_| shedding.takes_next()));
    }
}
