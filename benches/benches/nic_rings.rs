//! What the igb rings cost a forwarded packet: received on a queue, handed to the same queue's
//! transmit ring, reported, let go of.
//!
//! ```text
//!   model: finishes receive descriptors ─▶ rx_burst ─▶ burst ─▶ tx_burst ─▶ model: reports ─▶ reclaim
//!          not measured                    measured    not      measured    not               measured
//! ```
//!
//! The model only touches descriptors, so what is measured is the driver. Instructions a packet,
//! with the driver's functions alone counted:
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*NicQueue*burst*' \
//!     --toggle-collect='*NicQueue*reclaim*' BENCH --bench 'forward/32' --profile-time 1
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use barewire_driver::intel::{NicConfig, open};
use barewire_driver::model::IgbModel;
use barewire_driver::{
    Features, MacAddr, Pool, PoolConfig, Queue, QueueId, RxBurst, TxBurst, TxFrame,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const FRAME_LEN: u16 = 60;

struct Forwarder {
    model: IgbModel,
    queue: Box<dyn Queue>,
    rx: RxBurst,
    tx: TxBurst,
    _pool: Pool,
}

impl Forwarder {
    fn new() -> Forwarder {
        let model = IgbModel::new(MacAddr::local(1)).expect("eventfds");
        let nic = open(Arc::new(model.clone()), NicConfig::default()).expect("the model opens");
        model.set_faults(|faults| (faults.hold_transmit, faults.discard_sent) = (true, true));
        let config = PoolConfig { slots: 2048, slot_len: 2048, cells: 16, try_huge: false };
        let pool = Pool::new(config).expect("memory");
        let mut queue = nic.queue(QueueId(0)).expect("the first").open();
        queue.start(&pool, Features::all()).expect("the queue starts");
        Forwarder { model, queue, rx: RxBurst::new(), tx: TxBurst::new(), _pool: pool }
    }

    /// Forwards `batch` packets; gives the time that the driver took.
    fn round(&mut self, batch: usize) -> Duration {
        assert_eq!(self.model.complete_receive(0, batch as u32, FRAME_LEN), batch as u32);
        let start = Instant::now();
        let received = self.queue.rx_burst(&mut self.rx, batch).expect("the device is there");
        let mut took = start.elapsed();
        assert_eq!(received, batch);
        for frame in self.rx.frames() {
            for segment in self.rx.segments(frame) {
                self.tx.push_segment(segment.clone());
            }
            self.tx.finish_frame(TxFrame::default());
        }
        self.rx.clear();
        let start = Instant::now();
        let sent = self.queue.tx_burst(&mut self.tx).expect("the device is there");
        took += start.elapsed();
        assert_eq!(sent, batch);
        self.model.run_transmit();
        let start = Instant::now();
        let reclaimed = self.queue.reclaim();
        took += start.elapsed();
        assert_eq!(reclaimed, batch);
        took
    }
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    for batch in [1, 8, 32, 64] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            let mut forwarder = Forwarder::new();
            b.iter_custom(|rounds| (0..rounds).map(|_| forwarder.round(batch)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
