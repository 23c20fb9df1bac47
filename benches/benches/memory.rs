//! Packet memory: checksums, copies, and the pool.

use std::hint::black_box;

use barewire_driver::mem::{Checksum, PostedSlots};
use barewire_driver::{Pool, PoolConfig};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 6] = [64, 256, 1460, 4096, 16 << 10, 64 << 10];

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for size in SIZES {
        let (src, mut dst) = (vec![0xa5; size], vec![0; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("sum", size), |b| {
            b.iter(|| {
                let mut sum = Checksum::new();
                sum.add(black_box(&src));
                sum.finish()
            });
        });
        group.bench_function(BenchmarkId::new("copy_and_sum", size), |b| {
            b.iter(|| {
                let mut sum = Checksum::new();
                sum.add_copied(black_box(&mut dst), black_box(&src));
                sum.finish()
            });
        });
        group.bench_function(BenchmarkId::new("copy", size), |b| {
            b.iter(|| black_box(&mut dst).copy_from_slice(black_box(&src)));
        });
    }
}

fn pool(c: &mut Criterion) {
    let config = PoolConfig { slots: 1024, slot_len: 2048, cells: 1024, try_huge: true };
    let pool = Pool::new(config).expect("memory for a pool");
    let mut group = c.benchmark_group("pool");
    group.bench_function("alloc_free", |b| b.iter(|| black_box(pool.alloc())));
    group.bench_function("cell_alloc_free", |b| b.iter(|| black_box(pool.alloc_cell())));
    let slice = pool.alloc().expect("a free slot").freeze();
    group.bench_function("clone", |b| b.iter(|| black_box(&slice).clone()));
    group.bench_function("slice", |b| b.iter(|| black_box(&slice).slice(54..1514)));
    group.bench_function("alloc_split_freeze", |b| {
        b.iter(|| {
            let mut rest = pool.alloc().expect("a free slot");
            let front = rest.split_to(1460).freeze();
            (front, rest)
        });
    });
    let (mut posted, mut slices) = (PostedSlots::new(&pool, 64), Vec::new());
    group.bench_function("post_complete", |b| {
        b.iter(|| {
            posted.post(0..1, |_, _| {});
            // SAFETY: there is no device.
            unsafe { posted.complete(0..1, 0..=2048, &mut slices, |_| Some(64)) };
            slices.pop()
        });
    });
    let mut burst = Vec::with_capacity(64);
    group.throughput(Throughput::Elements(64));
    group.bench_function("burst_of_64", |b| {
        b.iter(|| {
            burst.extend((0..64).map_while(|_| pool.alloc()));
            burst.clear();
        });
    });
}

criterion_group!(benches, checksums, pool);
criterion_main!(benches);
