//! What a segment and a connection look up: flows, entries, timers, neighbours, routes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use barewire_driver::{MacAddr, PacketSlice, Pool, PoolConfig};
use barewire_stack::neighbor::{Cache, NeighborConfig};
use barewire_stack::route::{Route, Table};
use barewire_stack::socket::demux::{FlowKey, FlowTable, Tag};
use barewire_stack::socket::slab::Slab;
use barewire_stack::tcp::{
    Cut, Memory, Open, Outcome, Segment, State, Tcb, TcpConfig, Transmit, TxLimits,
};
use barewire_stack::time::Duration;
use barewire_stack::timer::Wheel;
use barewire_stack::{Cidr, IfaceId, Instant};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const COUNTS: [u32; 3] = [1, 1_000, 100_000];

fn key(n: u32) -> FlowKey {
    FlowKey {
        local: Ipv4Addr::new(10, 0, 0, 2),
        remote: Ipv4Addr::from_bits(0x0a00_0100 + (n >> 14)),
        local_port: 80,
        remote_port: 32_768 + (n & 0x3fff) as u16,
    }
}

fn flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("flows");
    group.bench_function("hash", |b| b.iter(|| black_box(key(7)).hash(black_box((1, 2)))));
    for count in COUNTS {
        let mut table = FlowTable::new((1, 2));
        for n in 0..count {
            table.set(key(n), Tag::Connection(n));
        }
        let hot = key(count / 2);
        group.bench_function(BenchmarkId::new("get_hot", count), |b| {
            b.iter(|| table.get(black_box(&hot)));
        });
        // A step that is coprime to the count visits all in an order that no cache foresees.
        let mut n = 0u32;
        group.bench_function(BenchmarkId::new("get_rotating", count), |b| {
            b.iter(|| {
                n = (n + 7919) % count;
                table.get(black_box(&key(n)))
            });
        });
        let new = key(count + 1);
        group.bench_function(BenchmarkId::new("set_remove", count), |b| {
            b.iter(|| {
                table.set(new, Tag::TimeWait(1));
                table.remove(&new, Tag::TimeWait(1));
            });
        });
    }
}

fn slab(c: &mut Criterion) {
    let mut slab: Slab<[u64; 32]> = Slab::new(1 << 20);
    for n in 0..10_000 {
        slab.insert([n; 32]).expect("within the limit");
    }
    c.bench_function("slab/get", |b| b.iter(|| slab.get(black_box(5_000)).map(|v| v[0])));
    c.bench_function("slab/insert_remove", |b| {
        b.iter(|| {
            let (index, _) = slab.insert([1; 32]).expect("within the limit");
            slab.remove(index).is_some()
        });
    });
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for count in COUNTS {
        let mut wheel = Wheel::new();
        for n in 0..count {
            let at = Duration::from_secs(3600) + Duration::from_millis(u64::from(n) % 60_000);
            wheel.insert(Instant::ZERO + at, n);
        }
        let at = Instant::from_millis(200);
        group.bench_function(BenchmarkId::new("insert_cancel", count), |b| {
            b.iter(|| {
                let key = wheel.insert(black_box(at), 1);
                wheel.cancel(key)
            });
        });
        group.bench_function(BenchmarkId::new("next_deadline", count), |b| {
            b.iter(|| black_box(&wheel).next_deadline());
        });
        let mut fired = Vec::new();
        group.bench_function(BenchmarkId::new("advance_nothing_due", count), |b| {
            b.iter(|| wheel.advance(black_box(Instant::ZERO), &mut fired));
        });
        assert!(fired.is_empty(), "the timers are an hour away");
    }
    let mut wheel = Wheel::new();
    let (mut now, mut fired) = (Instant::ZERO, Vec::new());
    group.bench_function("insert_fire", |b| {
        b.iter(|| {
            wheel.insert(now + Duration::from_millis(40), 1);
            now += Duration::from_millis(42);
            wheel.advance(now, &mut fired);
            assert_eq!(fired.pop(), Some(1));
        });
    });
}

fn neighbors(c: &mut Criterion) {
    let config = NeighborConfig { reachable: Duration::from_secs(3600), ..<_>::default() };
    let mut cache: Cache<()> = Cache::new(config);
    let addr = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + n));
    for n in 0..256 {
        let mac = MacAddr::local(u64::from(n) + 1);
        cache.handle_reply(Instant::ZERO, addr(n), mac, true, &mut Vec::new());
    }
    c.bench_function("neighbors/lookup/256", |b| {
        b.iter(|| cache.lookup(Instant::ZERO, black_box(addr(100))));
    });
}

fn routes(c: &mut Criterion) {
    let mut table = Table::new();
    let mut add = |addr: [u8; 4], prefix, gateway: Option<[u8; 4]>| {
        let to = Cidr::new(IpAddr::from(addr), prefix).expect("a prefix of at most 32");
        let gateway = gateway.map(IpAddr::from);
        table.add(to, Route { iface: IfaceId(0), gateway, metric: 0 }).expect("room");
    };
    add([0, 0, 0, 0], 0, Some([10, 0, 0, 254]));
    add([10, 0, 0, 0], 24, None);
    for (name, to) in [("on_link", [10, 0, 0, 1]), ("default", [192, 0, 2, 1])] {
        c.bench_function(&format!("routes/{name}"), |b| {
            b.iter(|| table.lookup(black_box(IpAddr::from(to))));
        });
    }
}

/// Two control blocks without a stack: a simultaneous open connects them.
struct Blocks {
    pool: Pool,
    ends: [Tcb; 2],
    now: Instant,
    pieces: Vec<PacketSlice>,
}

impl Blocks {
    fn new() -> Blocks {
        let config = PoolConfig { slots: 1024, slot_len: 2048, cells: 1024, try_huge: true };
        let pool = Pool::new(config).expect("memory for a pool");
        let config = Rc::new(TcpConfig { nodelay: true, ..TcpConfig::default() });
        let end = |iss| {
            let open = Open { iss, ts_offset: iss, mss: 1460 };
            Tcb::connect(Rc::clone(&config), open, Instant::ZERO)
        };
        let mut blocks =
            Blocks { pool, ends: [end(1000), end(2000)], now: Instant::ZERO, pieces: Vec::new() };
        let syns = [blocks.poll(0), blocks.poll(1)];
        for (syn, to) in syns.into_iter().zip([1, 0]) {
            blocks.give(syn.expect("a SYN"), to);
        }
        while blocks.carry(0) + blocks.carry(1) > 0 {}
        for end in &blocks.ends {
            assert_eq!(end.state(), State::Established);
        }
        blocks
    }

    fn poll(&mut self, from: usize) -> Option<Transmit> {
        let limits = TxLimits { max_bytes: 64 << 10, max_pieces: 64, cut: Cut::Device };
        self.ends[from].poll_transmit(self.now, &limits, &mut self.pieces)
    }

    fn give(&mut self, segment: Transmit, to: usize) {
        let Transmit { header, payload_len, mss, ecn } = segment;
        let wire_segments = payload_len.div_ceil(u32::from(mss)).max(1) as u16;
        let payload = &mut self.pieces;
        let segment = Segment {
            header: &header,
            payload,
            payload_len,
            wire_segments,
            ecn,
            memory: Memory::Plenty,
        };
        assert_eq!(self.ends[to].handle_segment(self.now, segment), Outcome::Continue);
        self.pieces.clear();
    }

    /// Carries everything that one end has to send to the other.
    fn carry(&mut self, from: usize) -> usize {
        let mut segments = 0;
        while let Some(segment) = self.poll(from) {
            self.give(segment, 1 - from);
            segments += 1;
        }
        segments
    }

    fn transfer(&mut self, data: &[u8], out: &mut [u8], from: usize) {
        assert_eq!(self.ends[from].write(&self.pool, data), Ok(data.len()));
        let mut got = 0;
        while got < data.len() {
            // The way back: an ACK, where the congestion window did not take all of it.
            assert!(self.carry(from) + self.carry(1 - from) > 0, "the transfer stalls");
            got += self.ends[1 - from].read(&mut out[got..]).expect("data was carried");
        }
        self.now += Duration::from_micros(1);
    }
}

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tcb");
    for size in [64, 16 << 10] {
        let (data, mut out) = (vec![0x5a; size], vec![0; size]);
        let mut blocks = Blocks::new();
        group.bench_function(BenchmarkId::new("request_response", size), |b| {
            b.iter(|| {
                blocks.transfer(&data, &mut out, 0);
                blocks.transfer(&data, &mut out, 1);
            });
        });
    }
}

criterion_group!(benches, flows, slab, timers, neighbors, routes, blocks);
criterion_main!(benches);
