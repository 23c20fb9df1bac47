//! Datagram sockets: UDP, and ICMP echo.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::PacketSlice;

use crate::error::SocketError;
use crate::route::Way;
use crate::socket::line::Line;
use crate::socket::listener::Bound;
use crate::socket::ports::Reuse;
use crate::socket::{Received, SocketKind};
use crate::tcp::Readiness;
use crate::wire::front::DatagramFront;
use crate::wire::ipv4::DEFAULT_TTL;

/// Bytes of packet memory that an unread queue may pin, by default.
pub(crate) const DEFAULT_RECV_BYTES: usize = 512 << 10;

/// The longest datagram that may be sent, by default: any that IPv4 has room for.
pub(crate) const DEFAULT_SEND_BYTES: u32 = 208 << 10;

/// A datagram that waits to be read.
#[derive(Debug)]
pub(crate) struct Datagram {
    from: (Ipv4Addr, u16),
    first: Option<PacketSlice>,
    /// None for datagrams in one piece.
    rest: Option<Box<[PacketSlice]>>,
}

impl Datagram {
    pub(crate) fn new(from: (Ipv4Addr, u16), pieces: &mut Vec<PacketSlice>) -> Datagram {
        let mut pieces = pieces.drain(..);
        let first = pieces.next();
        let rest = (pieces.len() > 0).then(|| pieces.collect());
        Datagram { from, first, rest }
    }

    /// A datagram in one piece.
    #[inline]
    pub(crate) fn whole(from: (Ipv4Addr, u16), piece: PacketSlice) -> Datagram {
        Datagram { from, first: Some(piece), rest: None }
    }

    /// Who has sent it.
    #[inline]
    pub(crate) fn from(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.from.0), self.from.1)
    }

    /// Its bytes, all together.
    pub(crate) fn len(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }

    #[inline]
    fn pieces(&self) -> impl Iterator<Item = &PacketSlice> {
        self.first.iter().chain(self.rest.iter().flatten())
    }

    /// What the datagram keeps from being used otherwise: whole slots.
    fn pinned_bytes(&self) -> usize {
        self.pieces().map(|p| p.slot_len()).sum()
    }

    /// Copies what fits and says how much that was.
    #[inline]
    pub(crate) fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut at = 0;
        for piece in self.pieces() {
            let take = piece.len().min(out.len() - at);
            out[at..at + take].copy_from_slice(&piece[..take]);
            at += take;
        }
        at
    }
}

#[derive(Debug)]
pub(crate) struct DatagramSocket {
    pub(crate) kind: SocketKind,
    pub(crate) bound: Option<Bound>,
    pub(crate) peer: Option<(Ipv4Addr, u16)>,
    pub(crate) reuse: Reuse,
    pub(crate) broadcast: bool,
    pub(crate) dont_fragment: bool,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) error: Option<SocketError>,
    pub(crate) read_closed: bool,
    pub(crate) write_closed: bool,
    /// A send had to wait: tell when there is room.
    pub(crate) blocked: bool,
    pub(crate) in_event_list: bool,
    pub(crate) recv_limit_bytes: usize,
    /// Where it sent last.
    pub(crate) way: Way,
    /// `SO_SNDBUF`: a longer datagram is refused. None ever waits here.
    pub(crate) send_limit_bytes: u32,
    pub(crate) recv_timeout: Option<Duration>,
    pub(crate) send_timeout: Option<Duration>,
    /// The headers of the last small datagram, if another may follow: there is no error to tell of, and
    /// sending is open.
    pub(crate) front: DatagramFront,
    /// The sequence number of the next echo request.
    pub(crate) next_seq: u16,
    queue: Line<Datagram>,
    queued_bytes: usize,
}

impl DatagramSocket {
    pub(crate) fn new(kind: SocketKind) -> DatagramSocket {
        DatagramSocket {
            kind,
            bound: None,
            peer: None,
            reuse: Reuse::default(),
            broadcast: false,
            dont_fragment: false,
            ttl: DEFAULT_TTL,
            tos: 0,
            error: None,
            read_closed: false,
            write_closed: false,
            blocked: false,
            in_event_list: false,
            recv_limit_bytes: DEFAULT_RECV_BYTES,
            way: Way::default(),
            send_limit_bytes: DEFAULT_SEND_BYTES,
            recv_timeout: None,
            send_timeout: None,
            front: DatagramFront::default(),
            next_seq: 1,
            queue: Line::default(),
            queued_bytes: 0,
        }
    }

    /// Queues a datagram; gives it back if the queue is full.
    pub(crate) fn deliver(&mut self, datagram: Datagram) -> Result<(), Datagram> {
        let bytes = datagram.pinned_bytes();
        let full = self.queued_bytes + bytes > self.recv_limit_bytes && !self.queue.is_empty();
        if full || self.read_closed {
            return Err(datagram);
        }
        self.queued_bytes += bytes;
        self.queue.push_back(datagram);
        Ok(())
    }

    /// Queues a datagram in one piece; false if the queue is full.
    #[inline(always)]
    pub(crate) fn deliver_whole(&mut self, from: (Ipv4Addr, u16), piece: PacketSlice) -> bool {
        let bytes = self.queued_bytes + piece.slot_len();
        if bytes > self.recv_limit_bytes && !self.queue.is_empty() || self.read_closed {
            return false;
        }
        self.queued_bytes = bytes;
        self.queue.push_back(Datagram::whole(from, piece));
        true
    }

    /// Takes the datagram that has waited longest, cut to `out`, if it is in one piece.
    #[inline(always)]
    pub(crate) fn read_whole(&mut self, out: &mut [u8]) -> Option<Received> {
        let datagram = self.queue.front_mut()?;
        if datagram.rest.is_some() {
            return None;
        }
        let piece = datagram.first.take()?;
        let from = datagram.from();
        // Nothing is left in it: to drop that is a call as well.
        std::mem::forget(self.queue.take_front());
        let bytes: &[u8] = &piece;
        let (full_len, len) = (bytes.len(), bytes.len().min(out.len()));
        out[..len].copy_from_slice(&bytes[..len]);
        self.queued_bytes -= piece.slot_len();
        Some(Received { len, full_len, from })
    }

    pub(crate) fn front(&self) -> Option<&Datagram> {
        self.queue.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.take_front()?;
        self.queued_bytes -= datagram.pinned_bytes();
        Some(datagram)
    }

    #[inline(always)]
    pub(crate) fn readiness(&self) -> Readiness {
        let unusual = self.read_closed | self.write_closed | self.blocked;
        if unusual || self.error.is_some() {
            return self.unusual_readiness();
        }
        let mut ready = Readiness::WRITABLE;
        ready.set(Readiness::READABLE, !self.queue.is_empty());
        ready
    }

    #[inline(never)]
    fn unusual_readiness(&self) -> Readiness {
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, !self.queue.is_empty() || self.read_closed);
        ready.set(Readiness::WRITABLE, !self.blocked);
        ready.set(Readiness::READ_CLOSED, self.read_closed);
        ready.set(Readiness::WRITE_CLOSED, self.write_closed);
        ready.set(Readiness::ERROR, self.error.is_some());
        ready
    }

    /// It is bound to this address.
    #[inline]
    pub(crate) fn is_bound_to(&self, addr: Ipv4Addr) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.addr == Some(addr))
    }

    /// How well the socket fits a datagram from `from` to `to`: `None` not at all, else the number
    /// of addresses that it names.
    #[inline]
    pub(crate) fn score(&self, to: Ipv4Addr, from: (Ipv4Addr, u16)) -> Option<u8> {
        let addr = self.bound.as_ref()?.addr;
        let local = match addr {
            Some(addr) if addr == to => 1,
            Some(_) => return None,
            None => 0,
        };
        match self.peer {
            Some((addr, port)) => {
                let port_matters = self.kind == SocketKind::Udp;
                let same = addr == from.0 && (port == from.1 || !port_matters);
                same.then_some(local + 2)
            }
            None => Some(local),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::{Pool, PoolConfig};

    fn pool() -> Pool {
        Pool::new(PoolConfig { slots: 16, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
    }

    fn datagram(pool: &Pool, parts: &[&[u8]]) -> Datagram {
        let mut pieces = parts.iter().map(|p| pool.copy_from(p).unwrap().freeze()).collect();
        Datagram::new((Ipv4Addr::new(10, 0, 0, 1), 9), &mut pieces)
    }

    #[test]
    fn the_queue_is_bounded_by_the_memory_it_pins() {
        let pool = pool();
        let mut socket = DatagramSocket::new(SocketKind::Udp);
        socket.recv_limit_bytes = 3 * 2048;
        for _ in 0..3 {
            socket.deliver(datagram(&pool, &[b"x"])).unwrap();
        }
        socket.deliver(datagram(&pool, &[b"x"])).unwrap_err();
        assert_eq!(socket.pop().unwrap().len(), 1);
        socket.deliver(datagram(&pool, &[b"y"])).unwrap();
        while socket.pop().is_some() {}
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_datagram_in_pieces_is_read_as_one_and_cut_to_the_buffer() {
        let pool = pool();
        let datagram = datagram(&pool, &[b"hello ", b"", b"world"]);
        let mut out = [0; 20];
        assert_eq!(datagram.copy_to(&mut out), 11);
        assert_eq!(&out[..11], b"hello world");
        assert_eq!(datagram.copy_to(&mut out[..8]), 8);
        assert_eq!(datagram.len(), 11);
    }

    #[test]
    fn a_zero_length_datagram_is_one() {
        let pool = pool();
        let mut socket = DatagramSocket::new(SocketKind::Udp);
        socket.deliver(datagram(&pool, &[])).unwrap();
        assert!(socket.readiness().contains(Readiness::READABLE));
        assert_eq!(socket.pop().unwrap().len(), 0);
        assert!(!socket.readiness().contains(Readiness::READABLE));
    }
}
