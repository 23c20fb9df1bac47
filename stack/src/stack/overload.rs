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

use super::Stack;
use crate::socket::{OPERATOR_PRIORITY, SocketId};

impl Stack {
    /// Says whether frames arrive faster than they are worked on: a turn has taken as many as it
    /// may, and more wait. While it is so, SYNs are dropped, and counted in `listen_shed`.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// True if connections to this listener may be shed.
    pub(super) fn may_shed(&mut self, id: SocketId) -> bool {
        self.listener_mut(id).is_some_and(|listener| listener.template.priority < OPERATOR_PRIORITY)
    }
}
