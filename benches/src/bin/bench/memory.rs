//! The memory of an idle connection's end: what the allocator has given for it, and packet memory.
//!
//! The same hosts are set up with and without idle connections, and the difference is shared among
//! their ends. Tables that have grown ahead of need are in it. There is no application here: what a
//! handler keeps for its connection comes on top.
//!
//! `allocation-counter` is this program's allocator. It counts a thread's own allocations, so that
//! nothing else in the process is in the figure, and it is a crate of its own because an allocator
//! is `unsafe` code, which stands in the driver only.

use barewire_benches::{Resting, Setup};

/// Send and receive buffer of the peer's sockets, which it has whole from the start: 4 KiB is the
/// least that a request and an answer of a page fit in. Ours is that large when it holds something.
const BUFFER_BYTES: usize = 4 << 10;

/// Bytes of one end of an established connection that has carried nothing for a while.
pub(crate) fn endpoint_bytes<P: Resting>(connections: usize) -> f64 {
    let with = host_bytes::<P>(connections);
    let without = host_bytes::<P>(0);
    (with - without) as f64 / (2 * connections) as f64
}

fn host_bytes<P: Resting>(idle: usize) -> i64 {
    let setup = Setup { connected: false, buffer_bytes: BUFFER_BYTES, idle, ..Setup::default() };
    let mut kept = None;
    let heap = allocation_counter::measure(|| {
        let mut pair = P::new(&setup);
        pair.rest();
        kept = Some(pair);
    });
    let packets = kept.map_or(0, |pair| pair.packet_bytes());
    heap.bytes_current + packets as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_benches::peer;

    #[test]
    fn the_peers_buffers_are_in_its_figure() {
        let bytes = endpoint_bytes::<peer::Pair>(64);
        let buffers = 2.0 * BUFFER_BYTES as f64;
        assert!(bytes > buffers && bytes < 2.0 * buffers, "{bytes}");
    }
}
