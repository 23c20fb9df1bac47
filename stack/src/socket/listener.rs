//! Listening sockets and the two states of a connection that are not a `Tcb`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use crate::socket::SocketId;
use crate::socket::conn::LazyTimer;
use crate::socket::demux::{FlowKey, Hashed};
use crate::socket::ports::{Lease, Reuse};
use crate::tcp::fast_open::FastOpenQueue;
use crate::tcp::{HalfOpen, TcpConfig, TimeWait};
use crate::time::Instant;

/// Half-open connections that a listener may have whatever its backlog: they cost little, and those
/// that get a cookie instead lose their options.
const MIN_HALF_OPEN: usize = 128;

/// Settings of a socket that a connection made from it inherits.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) config: Rc<TcpConfig>,
    pub(crate) reuse: Reuse,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) priority: u8,
}

/// A TCP socket that neither listens nor connects yet.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) template: Template,
    pub(crate) bound: Option<Bound>,
}

impl Fresh {
    /// The address and port that it is bound to.
    #[inline]
    pub(crate) fn bound_to(&self) -> Option<(Option<Ipv4Addr>, u16)> {
        self.bound.as_ref().map(|bound| (bound.addr, bound.lease.port()))
    }
}

/// A local address and port that a socket holds.
#[derive(Debug)]
pub(crate) struct Bound {
    /// `None` is the wildcard.
    pub(crate) addr: Option<Ipv4Addr>,
    pub(crate) lease: Lease,
}

impl Bound {
    pub(crate) fn socket_addr(&self) -> std::net::SocketAddr {
        let addr = self.addr.unwrap_or(Ipv4Addr::UNSPECIFIED);
        (IpAddr::V4(addr), self.lease.port()).into()
    }
}

/// A listening socket: the two queues of SOCKETS §1.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) template: Template,
    pub(crate) bound: Bound,
    /// Most connections in `accept_queue`.
    pub(crate) backlog: usize,
    /// Connections in SYN-RECEIVED, in the table of half-open ones.
    pub(crate) half_open: usize,
    /// Established connections that wait for `accept`, oldest first.
    pub(crate) accept_queue: VecDeque<SocketId>,
    /// Half-open connections whose last ACK came while `accept_queue` was full, oldest first. An
    /// entry that has gone since is skipped; each is in it once.
    pub(crate) turned_away: VecDeque<u32>,
    /// When a cookie was last sent: ACKs without a connection are only looked at soon after.
    pub(crate) cookie_sent: Option<Instant>,
    pub(crate) in_event_list: bool,
    /// Connections opened by a fast open cookie whose handshake has not ended.
    pub(crate) fast_open: Rc<FastOpenQueue>,
}

impl Listener {
    /// It has as many half-open connections as it may have.
    pub(crate) fn is_full_of_half_open(&self) -> bool {
        self.half_open >= self.backlog.max(MIN_HALF_OPEN)
    }
}

/// A connection in SYN-RECEIVED that a listener's SYN made.
#[derive(Debug)]
pub(crate) struct HalfOpenEntry {
    pub(crate) key: FlowKey,
    pub(crate) state: HalfOpen,
    pub(crate) listener: SocketId,
    pub(crate) timer: LazyTimer,
    /// It is in its listener's `turned_away`.
    pub(crate) turned_away: bool,
}

/// A connection in TIME-WAIT that no application holds.
#[derive(Debug)]
pub(crate) struct TimeWaitEntry {
    pub(crate) flow: Hashed,
    pub(crate) state: TimeWait,
    pub(crate) timer: LazyTimer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_yet_or_no_longer_a_connection_is_small() {
        assert!(size_of::<HalfOpenEntry>() <= 96, "{}", size_of::<HalfOpenEntry>());
        assert!(size_of::<TimeWaitEntry>() <= 64, "{}", size_of::<TimeWaitEntry>());
    }
}
