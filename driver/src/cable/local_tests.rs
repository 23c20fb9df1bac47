use super::*;
use crate::device::{RxChecksum, TxChecksum, TxFrame};
use crate::mem::PoolConfig;
use etherparse::PacketBuilder;

fn pool(slots: u32) -> Pool {
    Pool::new(PoolConfig { slots, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
}

fn config(ring_len: usize) -> CableConfig {
    CableConfig { ring_len, ..CableConfig::new("local") }
}

fn push(burst: &mut TxBurst, pool: &Pool, bytes: &[u8], meta: TxFrame) {
    burst.push_segment(pool.copy_from(bytes).unwrap().freeze());
    burst.finish_frame(meta);
}

#[test]
fn frames_cross_without_a_copy_and_wait_when_the_ring_is_full() {
    let (mut a, mut b) = local(config(2)).unwrap();
    let (pool_a, pool_b) = (pool(8), pool(8));
    let (mut tx, mut rx) = (TxBurst::new(), RxBurst::new());
    a.start(&pool_a, Features::empty()).unwrap();
    b.start(&pool_b, Features::empty()).unwrap();
    (0..3).for_each(|i| push(&mut tx, &pool_a, &[i; 60], TxFrame::default()));
    let address = tx.front().unwrap().1[0].as_ptr();
    assert_eq!((a.tx_room(), a.tx_burst(&mut tx).unwrap(), a.tx_room()), (2, 2, 0));
    assert_eq!((tx.len(), a.counters().tx_full), (1, 1));
    assert_eq!(b.arm(), Arm::Ready);
    assert_eq!(b.rx_burst(&mut rx, 1).unwrap(), 1);
    assert_eq!(rx.segments(&rx.frames()[0])[0].as_ptr(), address, "the very same slot");
    assert_eq!(a.tx_burst(&mut tx).unwrap(), 1);
    assert_eq!(b.rx_burst(&mut rx, 9).unwrap(), 2);
    assert_eq!(b.arm(), Arm::Sleep { fd: None, until_ns: None });
    assert_eq!(rx.frames().iter().map(|f| rx.segments(f)[0][0]).collect::<Vec<_>>(), [0, 1, 2]);
    rx.clear();
    assert!(pool_a.audit().all_free() && pool_b.audit().all_free());
}

#[test]
fn what_the_receiver_was_not_granted_is_done_for_it() {
    let (mut a, mut b) = local(config(64)).unwrap();
    let (pool_a, pool_b) = (pool(8), pool(8));
    let (mut tx, mut rx) = (TxBurst::new(), RxBurst::new());
    a.start(&pool_a, Features::all()).unwrap();
    assert_eq!(b.start(&pool_b, Features::LARGE_RECEIVE).unwrap(), Features::empty());
    let mut bytes = Vec::new();
    let headers = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 64);
    headers.tcp(1, 2, 3, 4).write(&mut bytes, &[9; 1900]).unwrap();
    let meta = TxFrame {
        checksum: TxChecksum::Partial { start: 34, offset: 16 },
        tso_mss: 1000,
        header_len: 54,
        ..TxFrame::default()
    };
    push(&mut tx, &pool_a, &bytes, meta);
    assert_eq!(a.tx_burst(&mut tx).unwrap(), 1);
    assert!(pool_a.audit().all_free(), "the segments are the receiver's");
    assert_eq!(b.rx_burst(&mut rx, 9).unwrap(), 2);
    assert_eq!(rx.frames().iter().map(|f| f.len).collect::<Vec<_>>(), [1054, 954]);
    assert!(rx.frames().iter().all(|f| f.checksum == RxChecksum::Unknown));

    // Without a slot there is nothing to cut it into.
    let hog: Vec<_> = std::iter::from_fn(|| pool_b.alloc()).collect();
    push(&mut tx, &pool_a, &bytes, meta);
    a.tx_burst(&mut tx).unwrap();
    assert_eq!((b.rx_burst(&mut rx, 9).unwrap(), b.counters().rx_no_buffer), (0, 2));
    drop(hog);
    rx.clear();
    drop((a, b));
    assert!(pool_a.audit().all_free() && pool_b.audit().all_free());
}

#[test]
fn a_stopped_end_loses_frames_and_holds_none() {
    let (mut a, mut b) = local(config(64)).unwrap();
    let pool = pool(8);
    let mut tx = TxBurst::new();
    push(&mut tx, &pool, &[0; 60], TxFrame::default());
    assert_eq!(a.tx_burst(&mut tx).unwrap(), 0, "not started");
    assert_eq!(tx.len(), 1);
    a.start(&pool, Features::empty()).unwrap();
    b.start(&pool, Features::empty()).unwrap();
    a.tx_burst(&mut tx).unwrap();
    b.stop();
    assert!(pool.audit().all_free());
    push(&mut tx, &pool, &[0; 60], TxFrame::default());
    a.tx_burst(&mut tx).unwrap();
    assert_eq!(b.counters().rx_no_buffer, 1);
    assert!(pool.audit().all_free());
    assert!(local(CableConfig { queues: 2, ..config(1) }).is_err());
}
