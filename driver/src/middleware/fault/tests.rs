use std::time::Duration;

use super::*;
use crate::cable::{self, CableConfig, LocalQueue};
use crate::mem::{PacketSlice, PoolConfig};
use crate::sys::ClockHand;

/// A bad link between two queues on virtual time.
struct Rig {
    bad: Faulty,
    good: LocalQueue,
    pool: Pool,
    hand: ClockHand,
}

impl Rig {
    fn new(text: &str) -> Rig {
        let pool = PoolConfig { slots: 6000, slot_len: 2048, cells: 1, try_huge: false };
        Rig::with_pool(text, Pool::new(pool).unwrap())
    }

    fn with_pool(text: &str, pool: Pool) -> Rig {
        let config = CableConfig { ring_len: 8192, ..CableConfig::new("faults") };
        let (a, mut good) = cable::local(config).unwrap();
        let (clock, hand) = Clock::manual();
        let config = text.parse().unwrap();
        let mut bad = Faulty::with_clock(Box::new(a), config, clock, Arc::default());
        let granted = bad.start(&pool, Features::all()).unwrap();
        assert!(!granted.intersects(WITHDRAWN) && granted.contains(Features::SCATTER_GATHER));
        assert_eq!(bad.capabilities().tso_max_bytes, 0);
        good.start(&pool, Features::empty()).unwrap();
        Rig { bad, good, pool, hand }
    }

    fn frames(&self, numbers: std::ops::Range<u32>) -> TxBurst {
        let mut burst = TxBurst::new();
        for i in numbers {
            let mut bytes = [0; 100];
            bytes[20..24].copy_from_slice(&i.to_be_bytes());
            burst.push_segment(self.pool.copy_from(&bytes).unwrap().freeze());
            burst.finish_frame(TxFrame::default());
        }
        burst
    }

    /// Sends numbered frames through the bad link's tx.
    fn send(&mut self, numbers: std::ops::Range<u32>) {
        let mut burst = self.frames(numbers);
        let count = burst.len();
        assert_eq!(self.bad.tx_burst(&mut burst).unwrap(), count);
    }

    /// What has arrived at the good end.
    fn arrived(&mut self) -> Vec<u32> {
        numbers(&mut self.good)
    }

    fn tx(&self) -> LaneCounters {
        self.bad.figures().tx.get()
    }

    fn close(self) {
        let Rig { mut bad, good, pool, .. } = self;
        bad.stop();
        drop((bad, good));
        assert!(pool.audit().all_free(), "{:?}", pool.audit());
    }
}

fn number(segment: &PacketSlice) -> u32 {
    u32::from_be_bytes(segment[20..24].try_into().unwrap())
}

fn numbers(queue: &mut dyn Queue) -> Vec<u32> {
    let mut burst = RxBurst::new();
    queue.rx_burst(&mut burst, 10_000).unwrap();
    burst.frames().iter().map(|f| number(&burst.segments(f)[0])).collect()
}

#[test]
fn without_faults_everything_passes_at_once_both_ways() {
    let mut rig = Rig::new("seed=1");
    rig.send(0..100);
    assert_eq!(rig.arrived(), (0..100).collect::<Vec<_>>());
    let mut burst = rig.frames(0..50);
    rig.good.tx_burst(&mut burst).unwrap();
    assert_eq!(numbers(&mut rig.bad), (0..50).collect::<Vec<_>>());
    assert_eq!(rig.bad.arm(), Arm::Sleep { fd: None, until_ns: None });
    assert_eq!(rig.tx(), LaneCounters { passed: 100, ..LaneCounters::default() });
    rig.close();
}

#[test]
fn rates_are_what_was_asked_for() {
    let mut rig = Rig::new("loss=10%,duplicate=5%,reorder=20%,corrupt=2%,seed=3");
    for round in 0..20 {
        rig.send(round * 1000..(round + 1) * 1000);
        rig.arrived();
    }
    let counted = rig.tx();
    // Five standard deviations around the mean of 20,000 draws (18,000 for what is left).
    for (count, mean, deviation) in [
        (counted.lost, 2_000.0, 42.4),
        (counted.duplicated, 900.0, 29.2),
        (counted.reordered, 3_600.0, 53.7),
        (counted.corrupted, 360.0, 18.8),
    ] {
        let off: f64 = (count as f64 - mean).abs();
        assert!(off < 5.0 * deviation, "{count} instead of about {mean}");
    }
    rig.hand.advance(MAX_REORDER_HOLD);
    rig.bad.reclaim();
    let counted = rig.tx();
    assert_eq!(counted.passed, 20_000 - counted.lost + counted.duplicated);
    assert_eq!(rig.bad.pending_tx(), 0);
    rig.arrived();
    rig.close();
}

#[test]
fn a_seed_repeats_its_faults_and_another_gives_others() {
    let run = |seed: u32| {
        let mut rig = Rig::new(&format!("loss=5%,duplicate=5%,reorder=5%,seed={seed}"));
        rig.send(0..500);
        let mut burst = rig.frames(0..500);
        rig.good.tx_burst(&mut burst).unwrap();
        (rig.arrived(), numbers(&mut rig.bad))
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    assert_ne!(first.0, first.1, "the directions draw numbers of their own");
}

#[test]
fn reordering_is_bounded_in_frames_and_in_time() {
    let mut rig = Rig::new("reorder=10%,seed=5");
    rig.send(0..1000);
    let arrived = rig.arrived();
    let mut late = 0;
    for (at, number) in arrived.iter().enumerate() {
        let overtaken = arrived[..at].iter().filter(|n| *n > number).count() as u64;
        assert!(overtaken <= MAX_REORDER_FRAMES, "{number} was overtaken by {overtaken}");
        late += u64::from(overtaken > 0);
    }
    assert!(late > 50);
    rig.close();

    let mut rig = Rig::new("reorder=100%,seed=5");
    rig.send(0..1);
    assert_eq!(rig.arrived(), []);
    let hold_ns = MAX_REORDER_HOLD.as_nanos() as u64;
    assert_eq!(rig.bad.arm(), Arm::Sleep { fd: None, until_ns: Some(hold_ns) });
    rig.hand.advance(MAX_REORDER_HOLD);
    assert_eq!(rig.bad.arm(), Arm::Ready);
    rig.bad.reclaim();
    assert_eq!(rig.arrived(), [0]);
    rig.close();
}

#[test]
fn corruption_flips_one_bit_of_a_copy() {
    let mut rig = Rig::new("tx.corrupt=100%,seed=2");
    let mut burst = TxBurst::new();
    for byte in 0..50 {
        for len in [30, 70] {
            burst.push_segment(rig.pool.copy_from(&vec![byte; len]).unwrap().freeze());
        }
        burst.finish_frame(TxFrame::default());
    }
    let originals: Vec<Vec<PacketSlice>> = burst.iter().map(|(_, s)| s.to_vec()).collect();
    rig.bad.tx_burst(&mut burst).unwrap();
    let mut received = RxBurst::new();
    assert_eq!(rig.good.rx_burst(&mut received, 100).unwrap(), 50);
    let join = |s: &[PacketSlice]| s.iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>();
    let mut places = std::collections::BTreeSet::new();
    for (i, (frame, original)) in received.frames().iter().zip(&originals).enumerate() {
        let (arrived, original) = (join(received.segments(frame)), join(original));
        assert_eq!(original, [i as u8; 100], "the sender's own bytes");
        let differing: Vec<_> = (0..100).filter(|&at| arrived[at] != original[at]).collect();
        let [at] = differing[..] else { panic!("{differing:?} are not one byte") };
        assert_eq!((arrived[at] ^ original[at]).count_ones(), 1);
        places.insert(at);
    }
    // 50 draws of 100 bytes: every place is as likely as any other.
    assert!(places.len() > 25 && places.iter().any(|&at| at >= 30), "{places:?}");
    received.clear();
    drop(originals);
    rig.close();
}

#[test]
fn corruption_without_a_slot_drops_the_frame() {
    let pool = PoolConfig { slots: 1, slot_len: 2048, cells: 1, try_huge: false };
    let mut rig = Rig::with_pool("corrupt=100%", Pool::new(pool).unwrap());
    rig.send(0..1);
    assert_eq!((rig.arrived().len(), rig.tx().no_buffer, rig.tx().corrupted), (0, 1, 0));
    rig.close();
}

#[test]
fn delayed_frames_arrive_in_order_and_in_time() {
    let mut rig = Rig::new("tx.delay=10ms,tx.jitter=5ms,seed=4");
    rig.send(0..100);
    assert_eq!(rig.bad.pending_tx(), 100);
    rig.hand.advance(Duration::from_micros(9_999));
    rig.bad.reclaim();
    assert_eq!(rig.arrived(), []);
    let mut arrived = Vec::new();
    while let Arm::Sleep { until_ns: Some(next), .. } = rig.bad.arm() {
        assert!((10_000_000..=15_000_000).contains(&next), "{next}");
        rig.hand.advance_to(next);
        rig.bad.reclaim();
        arrived.extend(rig.arrived());
    }
    assert_eq!(arrived, (0..100).collect::<Vec<_>>());
    rig.close();
}

#[test]
fn a_throttled_link_has_its_rate_and_a_bounded_queue() {
    // Frames of 100 bytes: 1,000 a second; 100 ms of them may wait.
    let mut rig = Rig::new("tx.rate=100kB");
    rig.send(0..500);
    assert_eq!(rig.tx().throttled, 500 - 101);
    rig.hand.advance(Duration::from_millis(50));
    rig.bad.reclaim();
    assert_eq!(rig.arrived(), (0..50).collect::<Vec<_>>());
    rig.hand.advance(Duration::from_secs(1));
    rig.bad.reclaim();
    assert_eq!(rig.arrived(), (50..101).collect::<Vec<_>>());
    rig.close();
}

#[test]
fn frames_under_way_are_bounded_and_let_go_at_stop() {
    let mut rig = Rig::new("tx.delay=1s");
    rig.send(0..MAX_HELD_FRAMES as u32 + 10);
    assert_eq!((rig.bad.pending_tx(), rig.tx().overflowed), (MAX_HELD_FRAMES, 10));
    rig.close();
}

#[test]
fn a_full_inner_queue_holds_the_sender_back() {
    let pool = PoolConfig { slots: 2000, slot_len: 2048, cells: 1, try_huge: false };
    let pool = Pool::new(pool).unwrap();
    let config = CableConfig { ring_len: 10, ..CableConfig::new("full") };
    let (a, mut good) = cable::local(config).unwrap();
    let mut bad = Faulty::new(Box::new(a), FaultConfig::default());
    bad.start(&pool, Features::empty()).unwrap();
    good.start(&pool, Features::empty()).unwrap();
    let mut burst = TxBurst::new();
    for _ in 0..1000 {
        burst.push_segment(pool.copy_from(&[0; 60]).unwrap().freeze());
        burst.finish_frame(TxFrame::default());
    }
    let mut arrived = 0;
    for _ in 0..200 {
        bad.tx_burst(&mut burst).unwrap();
        bad.inner_mut().reclaim();
        let mut received = RxBurst::new();
        arrived += good.rx_burst(&mut received, 100).unwrap();
    }
    assert_eq!((arrived, burst.len(), bad.pending_tx()), (1000, 0, 0));
    assert!(bad.counters().tx_full > 0);
    bad.stop();
    assert!(pool.audit().all_free());
}

#[test]
fn the_queues_of_a_device_draw_numbers_of_their_own_and_count_together() {
    let (a, _b) = cable::pair(CableConfig { queues: 2, ..CableConfig::new("dev") }).unwrap();
    let device = FaultyDevice::new(Arc::new(a), "tx.loss=50%,seed=9".parse().unwrap());
    assert!(!device.capabilities().features.intersects(WITHDRAWN));
    let mut lost = Vec::new();
    for id in 0..2 {
        let pool = PoolConfig { slots: 64, slot_len: 2048, cells: 1, try_huge: false };
        let pool = Pool::new(pool).unwrap();
        let mut queue = device.queue(QueueId(id)).unwrap().open();
        queue.start(&pool, Features::all()).unwrap();
        let mut pattern = 0u64;
        for _ in 0..64 {
            let before = device.figures().tx.get().lost;
            let mut burst = TxBurst::new();
            burst.push_segment(pool.copy_from(&[0; 60]).unwrap().freeze());
            burst.finish_frame(TxFrame::default());
            assert_eq!(queue.tx_burst(&mut burst).unwrap(), 1);
            pattern = pattern << 1 | (device.figures().tx.get().lost - before);
        }
        lost.push(pattern);
        queue.stop();
        assert!(pool.audit().all_free());
    }
    assert_ne!(lost[0], lost[1]);
    let counted = device.figures().tx.get();
    assert_eq!(counted.lost, u64::from(lost[0].count_ones() + lost[1].count_ones()));
    assert_eq!(counted.lost + counted.passed, 128);
}
