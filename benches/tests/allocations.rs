//! Nothing is allocated on the hot path once a connection has seen what it carries.
//!
//! `allocation-counter` counts what the test's own thread asks the allocator for. It is a crate
//! because an allocator is `unsafe` code, which the project keeps to the driver; and it stands here
//! rather than in the stack's tests so that those keep the system's allocator, sanitizers included.

use barewire_benches::cores::{self, Load};
use barewire_benches::{Pair, Resting, Setup, Unit, Workload, ours};

/// Operations before anything is counted, and again while it is: queues and tables reach their size.
const ROUNDS: u64 = 2_000;
const BYTES: u64 = 128 << 20;

/// Allocations of many operations after as many.
fn allocations(workload: Workload, setup: &Setup) -> u64 {
    let operations = match workload.unit() {
        Unit::Rounds => ROUNDS,
        Unit::Bits => BYTES,
    };
    let mut pair = ours::Pair::new(setup);
    // Timers fire for the first time, and what an idle connection gives back it gets again.
    workload.run(&mut pair, workload.a_few());
    pair.rest();
    workload.run(&mut pair, operations);
    allocation_counter::measure(|| workload.run(&mut pair, operations)).count_total
}

#[test]
fn a_request_and_its_answer_allocate_nothing() {
    assert_eq!(allocations(Workload::Echo, &Workload::Echo.setup()), 0);
}

#[test]
fn idle_connections_beside_it_change_nothing() {
    let setup = Setup { idle: 500, ..Workload::EchoIdle.setup() };
    assert_eq!(allocations(Workload::EchoIdle, &setup), 0);
}

#[test]
fn a_datagram_and_its_answer_allocate_nothing() {
    assert_eq!(allocations(Workload::Datagrams, &Workload::Datagrams.setup()), 0);
}

#[test]
fn bulk_transfers_allocate_nothing() {
    let bulk = [
        Workload::Bulk1500Checksums,
        Workload::Bulk1500,
        Workload::Bulk9000Checksums,
        Workload::Bulk9000,
        Workload::Owned1500Checksums,
        Workload::Owned1500,
        Workload::Owned9000Checksums,
        Workload::Owned9000,
        Workload::BulkSegmentation,
    ];
    for workload in bulk {
        assert_eq!(allocations(workload, &workload.setup()), 0, "{}", workload.name());
    }
}

/// Allocations that engines, executor and handlers included, make for `ROUNDS` more operations than
/// as many.
fn engines_allocate(load: Load) -> u64 {
    let of = |rounds| allocation_counter::measure(|| cores::operations(load, rounds)).count_total;
    of(2 * ROUNDS) - of(ROUNDS)
}

#[test]
fn a_request_to_a_handler_and_its_answer_allocate_nothing() {
    assert_eq!(engines_allocate(Load::Echo), 0);
}

#[test]
fn a_connection_allocates_its_handler() {
    // The future, and what wakes it. Tables have grown to their size, but for one or the other.
    let allocated = engines_allocate(Load::Connections);
    assert!((2 * ROUNDS..2 * ROUNDS + 100).contains(&allocated), "{allocated}");
}

#[test]
fn an_allocation_is_seen() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}
