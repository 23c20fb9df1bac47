//! Whole stacks over a wire in memory, ours and the peer's next to each other in each group.

use barewire_benches::{Pair, Unit, Workload, ours, peer};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes of a stream that one iteration moves.
const BULK_BYTES: u64 = 1 << 20;

fn side<P: Pair>(group: &mut BenchmarkGroup<'_, WallTime>, workload: Workload) {
    let mut pair = P::new(&workload.setup());
    let per_iteration = match workload.unit() {
        Unit::Bits => BULK_BYTES,
        Unit::Rounds => 1,
    };
    group.throughput(match workload.unit() {
        Unit::Bits => Throughput::Bytes(per_iteration),
        Unit::Rounds => Throughput::Elements(1),
    });
    group.bench_function(P::NAME, |b| b.iter(|| workload.run(&mut pair, per_iteration)));
}

fn stacks(c: &mut Criterion) {
    for workload in Workload::ALL {
        let mut group = c.benchmark_group(workload.name());
        side::<ours::Pair>(&mut group, workload);
        side::<peer::Pair>(&mut group, workload);
    }
}

criterion_group!(benches, stacks);
criterion_main!(benches);
