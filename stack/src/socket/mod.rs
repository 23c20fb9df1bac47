//! Sockets: handles, options, and the tables that lead a packet to one.
//!
//! ```text
//!   packet ─ 4-tuple ─▶ demux::FlowTable ─▶ tag ─┬─▶ Slab<Socket>       connections
//!      └── no flow ──▶ port tables               ├─▶ Slab<HalfOpen>     SYN-RECEIVED
//!                       (listeners, UDP)         └─▶ Slab<TimeWait>     TIME-WAIT
//!   application ─ SocketId ─▶ Slab<Socket>
//! ```
//!
//! Every way through these tables is O(1) in the number of sockets.

pub(crate) mod block;
pub(crate) mod conn;
pub mod demux;
pub(crate) mod line;
pub(crate) mod listener;
pub mod options;
pub mod ports;
pub mod slab;
pub(crate) mod udp;

use std::fmt;

pub use options::{OPERATOR_PRIORITY, OptionName, SocketOption};

/// Names an open socket of one stack. A handle that has been closed never names a later socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl SocketId {
    /// The handle's place in the table, below the socket limit: usable as an array index. Places
    /// are used again after `close`.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The handle as one number, for messages and logs.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The handle that [`SocketId::to_bits`] made a number of. Any number is safe: one that names
    /// no open socket is refused by every call.
    pub fn from_bits(bits: u64) -> SocketId {
        SocketId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// What kind of socket to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// A TCP stream or listener.
    Tcp,
    /// UDP datagrams.
    Udp,
    /// ICMP echo: a datagram sent is the payload of a request, a datagram received that of its
    /// answer. The local port is the identifier.
    Ping,
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6. Not built yet: `socket` answers `AddressFamily`.
    V6,
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes copied into the caller's buffer.
    pub len: usize,
    /// Bytes of the datagram; more than `len` if it was cut to the buffer.
    pub full_len: usize,
    /// Its sender.
    pub from: std::net::SocketAddr,
}
