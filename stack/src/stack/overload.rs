//! More work than there is time for.
//!
//! A frame that the device has to drop for want of a place may be anything: the request of a
//! connection on which much has been spent, an ACK, an operator's knock. Dropped at random, all of
//! them have to be sent again, and what was begun for them is in vain. So whoever drives a stack tells
//! it when frames arrive faster than they are worked on, and it sheds what has cost nothing yet: new
//! connections. A SYN is dropped after one look at it, its client tries again by itself after a second
//! (RFC 6298 §2.1), and connections that are open keep what they need.
//!
//! Listeners of operators are heard all the same, so that an overload can be seen and ended:
//! [`SocketOption::Priority`](crate::SocketOption::Priority).

use super::{Socket, Stack};
use crate::socket::{OPERATOR_PRIORITY, SocketId};
use crate::wire::tcp::TcpFlags;

impl Stack {
    /// Says whether frames arrive faster than they are worked on: a turn has taken as many as it
    /// may, and more wait. While it is so, SYNs are dropped, and counted in `listen_shed`.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// True, and counted, while the stack is behind, for a SYN to a port where nobody but ordinary
    /// listeners are. Nothing more is looked at, not even its checksum: a lost SYN is sent again.
    #[inline]
    pub(super) fn sheds(&mut self, segment: &[u8]) -> bool {
        let sheds = self.behind && self.opens_ordinary(segment);
        self.egress.counters.listen_shed += u64::from(sheds);
        sheds
    }

    #[cold]
    fn opens_ordinary(&self, segment: &[u8]) -> bool {
        let Some(&[_, _, high, low, .., flags]) = segment.first_chunk::<14>() else { return false };
        let opening = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST;
        if TcpFlags::from_bits_truncate(flags) & opening != TcpFlags::SYN {
            return false;
        }
        let ordinary = |id: &SocketId| match self.get(*id) {
            Some(Socket::Listener(listener)) => listener.template.priority < OPERATOR_PRIORITY,
            Some(Socket::Fresh(_) | Socket::Connection(_) | Socket::Datagram(_)) | None => false,
        };
        let listeners = self.listeners.get(&u16::from_be_bytes([high, low]));
        listeners.is_some_and(|ids| !ids.is_empty() && ids.iter().all(ordinary))
    }
}
