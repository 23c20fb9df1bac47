use super::*;
use crate::mem::PoolConfig;
use crate::sys::poll_readable;
use etherparse::PacketBuilder;

fn pool(slots: u32) -> Pool {
    Pool::new(PoolConfig { slots, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
}

fn config(queues: u16, ring_len: usize) -> CableConfig {
    CableConfig { queues, ring_len, mtu: 9000, ..CableConfig::new("t") }
}

fn open(device: &CableDevice, id: u16, pool: &Pool, wanted: Features) -> Box<dyn Queue> {
    let mut queue = device.queue(QueueId(id)).unwrap().open();
    assert_eq!(queue.start(pool, wanted).unwrap(), wanted & super::super::FEATURES);
    queue
}

fn push(burst: &mut TxBurst, pool: &Pool, bytes: &[u8]) {
    for piece in bytes.chunks(1500) {
        burst.push_segment(pool.copy_from(piece).unwrap().freeze());
    }
    burst.finish_frame(crate::device::TxFrame::default());
}

/// All frames that have arrived, their segments joined.
fn receive(queue: &mut dyn Queue) -> Vec<Vec<u8>> {
    let mut burst = RxBurst::new();
    queue.rx_burst(&mut burst, 1024).unwrap();
    let join = |f| burst.segments(f).iter().flat_map(|s| s.to_vec()).collect();
    burst.frames().iter().map(join).collect()
}

#[test]
fn frames_are_copied_into_the_receivers_own_slots() {
    let (a, b) = pair(config(1, 64)).unwrap();
    let (pool_a, pool_b) = (pool(64), pool(64));
    let mut qa = open(&a, 0, &pool_a, Features::empty());
    let mut qb = open(&b, 0, &pool_b, Features::empty());
    let mut burst = TxBurst::new();
    let sent: Vec<Vec<u8>> = [60, 2048, 2049, 9000].map(|n| vec![n as u8; n]).to_vec();
    sent.iter().for_each(|bytes| push(&mut burst, &pool_a, bytes));
    assert_eq!(qa.tx_burst(&mut burst).unwrap(), 4);
    assert_eq!(pool_a.audit().held, 0, "the copy is made at once");
    assert_eq!(receive(&mut *qb), sent);
    assert_eq!(qb.counters().rx_bytes, qa.counters().tx_bytes);
    drop((qa, qb));
    assert!(pool_a.audit().all_free() && pool_b.audit().all_free());
}

#[test]
fn a_frame_without_a_posted_slot_is_lost_and_counted() {
    let (a, b) = pair(config(1, 3)).unwrap();
    let (pool_a, pool_b) = (pool(64), pool(64));
    let mut qa = open(&a, 0, &pool_a, Features::empty());
    let mut burst = TxBurst::new();
    push(&mut burst, &pool_a, &[1; 60]);
    assert_eq!(qa.tx_burst(&mut burst).unwrap(), 1);
    let mut qb = open(&b, 0, &pool_b, Features::empty());
    assert_eq!(qb.counters().rx_no_buffer, 1, "nobody was there yet");
    // Two slots, then two that do not fit the last one, which therefore still takes a small frame.
    for len in [4000, 4000, 60] {
        push(&mut burst, &pool_a, &vec![2; len]);
    }
    qa.tx_burst(&mut burst).unwrap();
    assert_eq!(qb.counters().rx_no_buffer, 2);
    assert_eq!(receive(&mut *qb).iter().map(Vec::len).collect::<Vec<_>>(), [4000, 60]);
    // The slots have been posted again.
    push(&mut burst, &pool_a, &[3; 6000]);
    qa.tx_burst(&mut burst).unwrap();
    assert_eq!(receive(&mut *qb).len(), 1);
    push(&mut burst, &pool_a, &[4; 9015]);
    assert_eq!(qa.tx_burst(&mut burst).unwrap(), 0);
    assert_eq!(qa.counters().tx_errors, 1, "larger than the MTU");
    drop((qa, qb));
    assert!(pool_a.audit().all_free() && pool_b.audit().all_free());
}

#[test]
fn flows_find_their_queue() {
    let (a, b) = pair(config(4, 64)).unwrap();
    let (pool_a, pool_b) = (pool(256), pool(512));
    let mut qa = open(&a, 1, &pool_a, Features::empty());
    let mut queues: Vec<_> = (0..4).map(|i| open(&b, i, &pool_b, Features::RSS_HASH)).collect();
    let mut burst = TxBurst::new();
    let (mut expected, steering) = (vec![0; 4], b.steering().unwrap());
    for port in 0..100 {
        let mut bytes = Vec::new();
        let headers =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        headers.udp(port, 9).write(&mut bytes, b"x").unwrap();
        let (remote, local) = (([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 9).into());
        let queue = b.flow_queue(remote, local).unwrap().0;
        assert_eq!(steering.queue_of_frame(&bytes), queue);
        expected[usize::from(queue)] += 1;
        push(&mut burst, &pool_a, &bytes);
    }
    assert_eq!(qa.tx_burst(&mut burst).unwrap(), 100);
    let mut rx = RxBurst::new();
    for (queue, expected) in queues.iter_mut().zip(&expected) {
        assert_eq!(queue.rx_burst(&mut rx, 100).unwrap(), *expected);
        assert!(*expected > 0);
    }
    let hash = FlowHash::new(&b.config().rss_key);
    for frame in rx.frames() {
        assert_eq!(frame.rss_hash.get(), hash.frame(&rx.segments(frame)[0]));
    }
    rx.clear();
    drop((qa, queues));
    assert!(pool_a.audit().all_free() && pool_b.audit().all_free());
}

/// A receiver that sleeps whenever it may, and two senders on threads of their own: every frame
/// either arrives, whole and in its sender's order, or is counted as lost; and no sleep lasts.
#[test]
fn threads_send_while_the_receiver_sleeps() {
    const FRAMES: u32 = 3_000;
    let (a, b) = pair(config(2, 256)).unwrap();
    let senders: Vec<_> = (0..2u16)
        .map(|id| {
            let seed = a.queue(QueueId(id)).unwrap();
            std::thread::spawn(move || {
                let (pool, mut queue) = (pool(64), seed.open());
                queue.start(&pool, Features::empty()).unwrap();
                let mut burst = TxBurst::new();
                for i in 0..FRAMES {
                    let mut bytes = vec![id as u8; 60 + (i as usize * 37) % 4000];
                    bytes[20..24].copy_from_slice(&i.to_be_bytes());
                    push(&mut burst, &pool, &bytes);
                    queue.tx_burst(&mut burst).unwrap();
                    if i % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
                drop(queue);
                assert!(pool.audit().all_free());
            })
        })
        .collect();
    let pool_b = pool(1024);
    let mut queue = open(&b, 0, &pool_b, Features::empty());
    let (mut received, mut next) = (0, [0u32; 2]);
    let mut silent = 0;
    while silent < 2 {
        let done = senders.iter().all(|s| s.is_finished());
        let frames = receive(&mut *queue);
        for bytes in &frames {
            let index = u32::from_be_bytes(bytes[20..24].try_into().unwrap());
            let sender = usize::from(bytes[0]);
            assert!(index >= next[sender], "order within one sender");
            assert_eq!(bytes.len(), 60 + (index as usize * 37) % 4000);
            assert!(bytes[24..].iter().all(|&b| b == bytes[0]));
            next[sender] = index + 1;
        }
        received += frames.len() as u64;
        silent = if frames.is_empty() && done { silent + 1 } else { 0 };
        if frames.is_empty() && !done {
            if let Arm::Sleep { fd: Some(fd), .. } = queue.arm() {
                poll_readable(&[fd], Some(20_000_000)).unwrap();
            }
            queue.disarm();
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
    let lost = queue.counters().rx_no_buffer;
    assert_eq!(received + lost, 2 * u64::from(FRAMES));
    assert!(received > 0);
    drop(queue);
    assert!(pool_b.audit().all_free());
}

#[test]
fn a_sleeping_receiver_is_woken_once() {
    let (a, b) = pair(config(1, 64)).unwrap();
    let (pool_a, pool_b) = (pool(64), pool(64));
    let mut qa = open(&a, 0, &pool_a, Features::empty());
    let mut qb = open(&b, 0, &pool_b, Features::empty());
    let mut burst = TxBurst::new();
    let mut send = |qa: &mut Box<dyn Queue>| {
        push(&mut burst, &pool_a, &[1; 60]);
        qa.tx_burst(&mut burst).unwrap();
        qa.counters().syscalls
    };
    assert_eq!(send(&mut qa), 0, "nobody sleeps");
    assert_eq!(qb.arm(), Arm::Ready);
    receive(&mut *qb);
    let Arm::Sleep { fd: Some(fd), until_ns: None } = qb.arm() else { panic!("nothing is there") };
    assert_eq!(poll_readable(&[fd], Some(0)).unwrap(), 0);
    assert_eq!(send(&mut qa), 1);
    assert_eq!(send(&mut qa), 1, "it has been woken already");
    assert_eq!(poll_readable(&[fd], None).unwrap(), 1);
    qb.disarm();
    assert_eq!(poll_readable(&[fd], Some(0)).unwrap(), 0);
    assert_eq!(receive(&mut *qb).len(), 2);
}

#[test]
fn a_starving_receiver_looks_again_by_itself() {
    let (_a, b) = pair(config(1, 64)).unwrap();
    let pool_b = pool(8);
    let hog: Vec<_> = (0..8).map(|_| pool_b.alloc().unwrap()).collect();
    let mut qb = open(&b, 0, &pool_b, Features::empty());
    assert!(matches!(qb.arm(), Arm::Sleep { until_ns: Some(_), .. }));
    drop(hog);
    assert!(matches!(qb.arm(), Arm::Sleep { until_ns: None, .. }));
    assert_eq!(pool_b.audit().remote, 4, "half of the pool is posted");
}

#[test]
fn queues_are_taken_once_and_sizes_have_limits() {
    let (a, _b) = pair(config(2, 8)).unwrap();
    assert!(a.queue(QueueId(1)).is_ok());
    assert!(matches!(a.queue(QueueId(1)), Err(DeviceError::QueueTaken(1))));
    assert!(matches!(a.queue(QueueId(2)), Err(DeviceError::NoQueue(2, 2))));
    for bad in [config(0, 8), config(17, 8), config(1, 0), config(1, 1 << 16)] {
        assert!(matches!(pair(bad), Err(DeviceError::Config(_))));
    }
    let impossible = CableConfig { features: Features::VLAN, ..config(1, 8) };
    assert!(pair(impossible).unwrap_err().to_string().contains("VLAN"));
}
