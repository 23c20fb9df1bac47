//! Readiness as `poll(2)` tells it.

use bitflags::bitflags;

use super::{Socket, Stack};
use crate::socket::SocketId;
use crate::tcp::Readiness;

bitflags! {
    /// The bits of `poll(2)`, with the values that Linux gives them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct PollFlags: u16 {
        /// `POLLIN`: a read (or accept) answers at once.
        const IN = 0x001;
        /// `POLLOUT`: a write answers at once.
        const OUT = 0x004;
        /// `POLLERR`: an error waits to be taken.
        const ERR = 0x008;
        /// `POLLHUP`: both directions are closed.
        const HUP = 0x010;
        /// `POLLNVAL`: the handle names no socket.
        const NVAL = 0x020;
        /// `POLLRDHUP`: the peer, or this side, has closed the receiving direction.
        const RDHUP = 0x2000;
    }
}

impl From<Readiness> for PollFlags {
    fn from(ready: Readiness) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, ready.contains(Readiness::READABLE));
        flags.set(PollFlags::OUT, ready.contains(Readiness::WRITABLE));
        flags.set(PollFlags::ERR, ready.contains(Readiness::ERROR));
        flags.set(PollFlags::RDHUP, ready.contains(Readiness::READ_CLOSED));
        let both = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        flags.set(PollFlags::HUP, ready.contains(both));
        flags
    }
}

impl Stack {
    /// What `poll(2)` would tell about the socket now.
    pub fn poll_flags(&self, id: SocketId) -> PollFlags {
        match self.get(id) {
            None => PollFlags::NVAL,
            // As Linux has it for a TCP socket that was never connected.
            Some(Socket::Fresh(_)) => PollFlags::OUT | PollFlags::HUP,
            Some(Socket::Listener(_) | Socket::Connection(_) | Socket::Datagram(_)) => {
                self.readiness(id).unwrap_or_default().into()
            }
        }
    }
}
