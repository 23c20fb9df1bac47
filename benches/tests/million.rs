//! Many connections: an idle one is small, any of them can talk, and nothing is left of them.

use std::alloc::System;

use barewire_benches::million::Crowd;
use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// What an idle connection may cost at each end, everything included but the handler.
const BYTES_PER_END_MAX: usize = 512;

/// What may stay when all are closed: spare chunks, and tables that do not shrink below a size.
const LEFT_BYTES_MAX: usize = 4 << 20;

/// The crowd opens, talks, rests and goes.
fn come_and_go(count: usize, messages: usize) {
    let mut crowd = Crowd::new(count);
    let before = HEAP.allocated();
    crowd.open(count);
    crowd.rest();
    assert!(crowd.packet_memory_is_free(), "idle connections hold packet memory");
    let each = (HEAP.allocated() - before) / (2 * count);
    assert!(each <= BYTES_PER_END_MAX, "{each} bytes each end");

    let mut random = 0x9e37_79b9_u64;
    for _ in 0..messages {
        // Knuth's linear congruential generator; its high bits are the good ones.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (random >> 33) as usize % count;
        crowd.exchange(std::iter::once(at));
    }
    crowd.rest();
    let again = (HEAP.allocated() - before) / (2 * count);
    assert!(again <= BYTES_PER_END_MAX, "{again} bytes each end after they have talked");

    crowd.close();
    assert!(crowd.is_empty() && crowd.packet_memory_is_free());
    let left = HEAP.allocated().saturating_sub(before);
    assert!(left <= LEFT_BYTES_MAX, "{left} bytes left");
}

#[test]
fn a_hundred_thousand_connections_come_and_go() {
    come_and_go(100_000, 10_000);
}

#[test]
#[ignore = "takes four gigabytes: scripts/test runs it by itself where there are so many"]
fn a_million_connections_come_and_go() {
    come_and_go(1_000_000, 100_000);
}
