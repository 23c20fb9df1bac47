use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::cable::{self, CableConfig};
use crate::device::TxFrame;
use crate::mem::PoolConfig;

/// A file in memory that a test can look into, and whose disk can be full.
#[derive(Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A block as a reader sees it: type, fixed part and options, both lengths checked.
#[derive(Debug, PartialEq)]
enum Block {
    Section { application: Vec<u8> },
    Interface { link: u16, snaplen: u32, name: Vec<u8>, resolution: Vec<u8> },
    Packet { interface: u32, time_ns: u64, len: u32, bytes: Vec<u8>, flags: u32 },
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// The value of option `code`; the list has to end with an end-of-options.
fn option_of(mut options: &[u8], code: u16) -> Vec<u8> {
    let mut found = None;
    loop {
        let (this, len) = (u16_at(options, 0), usize::from(u16_at(options, 2)));
        if this == 0 {
            assert_eq!(options.len(), 4, "nothing follows the end");
            return found.unwrap();
        }
        if this == code {
            found = Some(options[4..4 + len].to_vec());
        }
        options = &options[4 + len.next_multiple_of(4)..];
    }
}

fn parse(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let (kind, len) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert!(len.is_multiple_of(4) && u32_at(file, len - 4) as usize == len);
        let body = &file[8..len - 4];
        blocks.push(match kind {
            0x0a0d_0d0a => {
                assert_eq!(u32_at(body, 0), 0x1a2b_3c4d);
                assert_eq!((u16_at(body, 4), u16_at(body, 6)), (1, 0));
                assert_eq!(body[8..16], [0xff; 8]);
                Block::Section { application: option_of(&body[16..], 4) }
            }
            1 => Block::Interface {
                link: u16_at(body, 0),
                snaplen: u32_at(body, 4),
                name: option_of(&body[8..], 2),
                resolution: option_of(&body[8..], 9),
            },
            6 => {
                let kept = u32_at(body, 12) as usize;
                Block::Packet {
                    interface: u32_at(body, 0),
                    time_ns: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    len: u32_at(body, 16),
                    bytes: body[20..20 + kept].to_vec(),
                    flags: u32_at(&option_of(&body[20 + kept.next_multiple_of(4)..], 2), 0),
                }
            }
            other => panic!("block type {other}"),
        });
        file = &file[len..];
    }
    blocks
}

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 64, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
}

fn push(burst: &mut TxBurst, pool: &Pool, pieces: &[&[u8]]) {
    for piece in pieces {
        burst.push_segment(pool.copy_from(piece).unwrap().freeze());
    }
    burst.finish_frame(TxFrame::default());
}

#[test]
fn both_directions_are_read_back_block_by_block() {
    let (disk, pool) = (Disk::default(), pool());
    let (clock, hand) = Clock::manual();
    let epoch = 1_700_000_000_000_000_000;
    let file = CaptureFile::to_writer(Box::new(disk.clone()), 100, clock, epoch).unwrap();
    let (a, mut b) = cable::local(CableConfig { ring_len: 2, ..CableConfig::new("c") }).unwrap();
    let mut a = Captured::new(Box::new(a), Arc::clone(&file), "cable:c");
    a.start(&pool, Features::empty()).unwrap();
    b.start(&pool, Features::empty()).unwrap();

    let mut burst = TxBurst::new();
    push(&mut burst, &pool, &[&[1; 20], &[2; 41]]);
    push(&mut burst, &pool, &[&[3; 90], &[4; 90]]);
    push(&mut burst, &pool, &[&[5; 60]]);
    hand.advance(Duration::from_nanos(5));
    assert_eq!(a.tx_burst(&mut burst).unwrap(), 2, "the third has to wait, and is not captured");
    let mut back = TxBurst::new();
    push(&mut back, &pool, &[&[6; 14]]);
    b.tx_burst(&mut back).unwrap();
    hand.advance(Duration::from_secs(5));
    let mut received = RxBurst::new();
    assert_eq!(a.rx_burst(&mut received, 9).unwrap(), 1);
    assert!(a.arm() != Arm::Ready);
    assert_eq!(file.counters(), CaptureCounters { written: 3, cut: 1, ..Default::default() });

    let long = [[3; 90].as_slice(), &[4; 10]].concat();
    let packet = |time, len, bytes: &[u8], flags| Block::Packet {
        interface: 0,
        time_ns: epoch + time,
        len,
        bytes: bytes.to_vec(),
        flags,
    };
    let expected = [
        Block::Section { application: b"barewire".to_vec() },
        Block::Interface { link: 1, snaplen: 100, name: b"cable:c".to_vec(), resolution: vec![9] },
        packet(5, 61, &[[1; 20].as_slice(), &[2; 41]].concat(), 2),
        packet(5, 180, &long, 2),
        packet(5_000_000_005, 14, &[6; 14], 1),
    ];
    assert_eq!(parse(&disk.bytes.lock().unwrap()), expected);
    received.clear();
    burst.clear();
    drop((a, b));
    assert!(pool.audit().all_free());
}

#[test]
fn a_full_disk_ends_the_capture_and_nothing_else() {
    let (disk, pool) = (Disk::default(), pool());
    let clock = Clock::manual().0;
    let file = CaptureFile::to_writer(Box::new(disk.clone()), DEFAULT_SNAPLEN, clock, 0).unwrap();
    let (a, mut b) = cable::local(CableConfig::new("c")).unwrap();
    let mut a = Captured::new(Box::new(a), Arc::clone(&file), "x");
    a.start(&pool, Features::empty()).unwrap();
    b.start(&pool, Features::empty()).unwrap();
    let mut burst = TxBurst::new();
    for round in 0..3 {
        push(&mut burst, &pool, &[&[round; 60]]);
        assert_eq!(a.tx_burst(&mut burst).unwrap(), 1);
        disk.full.store(true, Ordering::Relaxed);
        a.arm();
    }
    let counted = file.counters();
    assert_eq!((counted.written, counted.errors, counted.missed), (1, 1, 2));
    let mut received = RxBurst::new();
    assert_eq!(b.rx_burst(&mut received, 9).unwrap(), 3);
    let refused = CaptureFile::to_writer(Box::new(disk), 1, Clock::monotonic(), 0);
    assert!(refused.is_err(), "a disk that is full from the start is told");
}

#[test]
fn queues_on_several_threads_share_a_file() {
    let disk = Disk::default();
    let clock = Clock::manual().0;
    let file = CaptureFile::to_writer(Box::new(disk.clone()), 64, clock, 0).unwrap();
    let (a, _b) = cable::pair(CableConfig { queues: 2, ..CableConfig::new("c") }).unwrap();
    let device = CapturedDevice::new(Arc::new(a), Arc::clone(&file));
    let threads = [0, 1].map(|id| {
        let seed = device.queue(QueueId(id)).unwrap();
        std::thread::spawn(move || {
            let (pool, mut queue) = (pool(), seed.open());
            queue.start(&pool, Features::empty()).unwrap();
            let mut burst = TxBurst::new();
            for _ in 0..500 {
                push(&mut burst, &pool, &[&[id as u8; 60]]);
                queue.tx_burst(&mut burst).unwrap();
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let (mut names, mut packets) = (Vec::new(), [0; 2]);
    for block in parse(&disk.bytes.lock().unwrap()) {
        match block {
            Block::Section { .. } => {}
            Block::Interface { name, .. } => names.push(name),
            Block::Packet { interface, bytes, .. } => {
                let name = format!("cable:c queue {}", bytes[0]);
                assert_eq!(names[interface as usize], name.as_bytes());
                packets[usize::from(bytes[0])] += 1;
            }
        }
    }
    assert_eq!(packets, [500, 500]);
}
