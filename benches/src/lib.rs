//! # Benchmarks: two hosts, one thread, a wire in memory
//!
//! ```text
//!   workload ─▶ Pair ─┬─ ours::Pair    Stack ◀─ local cable (slices) ─▶ Stack
//!                     ├─ peer::Pair    smoltcp ◀─ wire of reused buffers ─▶ smoltcp
//!                     └─ kernel::Pair  sockets ◀─ veth between two namespaces ─▶ sockets
//! ```
//!
//! All pairs do the same work through the same trait, [`Pair`], in the same process, and the first two
//! on the same virtual clock, so that a ratio can be read from one run. The terms are equal where they
//! can be, and the peer's best where they cannot:
//!
//! * buffers, MTU, checksums and the depth of the wire are those of [`Setup`] at both;
//! * the peer's wire hands filled buffers over and reuses them: no copy, no allocation a frame;
//! * the peer is driven by its own fine-grained calls, not by the `poll` that does everything;
//! * neither uses congestion control beyond its default: our controller runs, the peer's is off;
//! * our timestamps (RFC 7323) are on, as by default; the peer's are off, as by default.
//!
//! The clock moves a microsecond a turn, and to the next deadline when nothing moves; reading a
//! real clock would be the same cost to both. The kernel has its own clock, and no process switch:
//! its two hosts are sockets of one thread.

pub mod arguments;
pub mod balance;
pub mod cores;
pub mod handler;
pub mod kernel;
pub mod latency;
pub mod loss;
pub mod measure;
pub mod million;
pub mod ours;
pub mod overload;
pub mod peer;
pub mod threads;
pub mod workload;

use std::path::PathBuf;

pub use workload::{Unit, Workload};

/// Bytes of a request, and of its answer.
pub const MESSAGE_BYTES: usize = 64;

/// Frames that the wire holds in each direction.
pub const WIRE_FRAMES: usize = 512;

/// Bytes after which the stream of a bulk transfer repeats itself.
pub const PATTERN_BYTES: usize = 64 << 10;

/// How long hosts rest before what an idle connection keeps is counted: longer than either stack
/// holds on to memory for the next request.
pub const REST: std::time::Duration = std::time::Duration::from_secs(10);

/// Turns without progress, each after a jump to the next deadline, that mean a stall.
pub const MAX_IDLE_TURNS: usize = 64;

/// How a pair of hosts is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Largest IP packet on the wire.
    pub mtu: u16,
    /// Checksums are computed and verified in software; else the wire is trusted.
    pub software_checksums: bool,
    /// The device cuts and joins segments of up to 64 KiB.
    pub segmentation: bool,
    /// Bulk data is handed over as it lies in packet memory, or in the peer's ring buffer, instead
    /// of being copied from and to the application's memory.
    pub in_place: bool,
    /// Send and receive buffer of each socket.
    pub buffer_bytes: usize,
    /// A connection is established beforehand. Without it there are no more sockets than the
    /// workload needs, for the peer looks at each in every turn.
    pub connected: bool,
    /// Established connections that carry nothing, beside the one that is measured.
    pub idle: usize,
    /// The network namespace of the kernel's server, as a file; without one both ends are on the
    /// loopback device. The other pairs have no use for it.
    pub namespace: Option<PathBuf>,
    /// Every byte of bulk transfers is compared at the receiver. Costs time: for tests.
    pub verify: bool,
}

impl Default for Setup {
    /// An Ethernet of 1,500 bytes with software checksums, and buffers of 256 KiB.
    fn default() -> Self {
        Setup {
            mtu: 1500,
            software_checksums: true,
            segmentation: false,
            in_place: false,
            buffer_bytes: 256 << 10,
            connected: true,
            idle: 0,
            namespace: None,
            verify: false,
        }
    }
}

/// Two hosts joined by a wire, one connection between them established.
///
/// # Panics
/// Every method panics if the hosts stop making progress or bytes arrive changed: a figure of a
/// broken run would be worse than none.
pub trait Pair {
    /// What it is called in tables.
    const NAME: &str;

    /// Two hosts, with an established connection if the setup wants it.
    fn new(setup: &Setup) -> Self;

    /// `rounds` requests of 64 bytes over the connection, each answered before the next.
    fn echo(&mut self, rounds: u64);

    /// The same with datagrams.
    fn datagrams(&mut self, rounds: u64);

    /// `rounds` connections: opened, one request, its answer, closed by both sides.
    fn connections(&mut self, rounds: u64);

    /// Sends `bytes` through the connection in one direction until they are all read.
    fn bulk(&mut self, bytes: u64);
}

/// Hosts whose memory can be counted: all of it lies in this process.
pub trait Resting: Pair {
    /// Lets [`REST`] pass, and what is due in that time be done.
    fn rest(&mut self);

    /// Bytes of packet memory that both hosts hold, which a counting allocator does not see.
    fn packet_bytes(&self) -> usize;
}

/// The byte at `offset` of a bulk stream is `pattern()[offset % PATTERN_BYTES]`.
pub fn pattern() -> Vec<u8> {
    (0..PATTERN_BYTES).map(|at| (at.wrapping_mul(0x9e37) >> 7) as u8 ^ at as u8).collect()
}

/// Panics unless `bytes` are those of the stream from `offset` on.
pub fn check_pattern(pattern: &[u8], offset: u64, bytes: &[u8]) {
    let mut at = (offset % PATTERN_BYTES as u64) as usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = rest.len().min(PATTERN_BYTES - at);
        assert!(rest[..len] == pattern[at..at + len], "the stream differs at {offset}");
        (rest, at) = (&rest[len..], 0);
    }
}

/// The request of a round: no two rounds in a row have the same.
pub(crate) fn message(round: u64) -> [u8; MESSAGE_BYTES] {
    let mut message = [0x5a; MESSAGE_BYTES];
    message[..8].copy_from_slice(&round.to_be_bytes());
    message
}
