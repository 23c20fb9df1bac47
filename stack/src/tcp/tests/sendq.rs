//! The send queue: gathering, acknowledging and sending again.

use super::*;
use barewire_driver::PoolConfig;
use proptest::prelude::*;

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 512, slot_len: 2048, cells: 64, try_huge: false }).unwrap()
}

fn header() -> PlainTcp {
    let flags = crate::wire::tcp::TcpFlags::ACK;
    let (seq, ack, window, timestamps) = (1, 2, 3, None);
    PlainTcp { src_port: 4, dst_port: 5, seq, ack, flags, window, timestamps }
}

fn flat(pieces: &[PacketSlice]) -> Vec<u8> {
    pieces.iter().flat_map(|p| p.iter().copied()).collect()
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![Just(Cut::Device), Just(Cut::Software), Just(Cut::SoftwareSums)]
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, bool),
    Own(usize),
    SendSmall,
    Send(u32, u16),
    Probe,
    Ack(u32),
    Again(u32, u32, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..5000, any::<bool>()).prop_map(|(n, alone)| Step::Write(n, alone)),
        (1usize..250).prop_map(|n| Step::Write(n, true)),
        Just(Step::SendSmall),
        (1usize..2000).prop_map(Step::Own),
        (1u32..9000, 1u16..9).prop_map(|(n, p)| Step::Send(n, p)),
        Just(Step::Probe),
        (0u32..6000).prop_map(Step::Ack),
        (0u32..9000, 1u32..9000, 1u16..9).prop_map(|(o, n, p)| Step::Again(o, n, p)),
    ]
}

proptest! {
    /// The queue against plain vectors: whatever is written, sent, probed, acknowledged and sent
    /// again, the bytes are those of the stream.
    #[test]
    fn the_queue_behaves_as_a_byte_vector(
        steps in proptest::collection::vec(step(), 1..60),
        (mss, cut) in (prop_oneof![Just(500), Just(1448)], cut()),
    ) {
        let shape = Shape { mss, cut };
        let pool = pool();
        let mut q = SendQueue::default();
        let mut held: Vec<u8> = vec![];
        let (mut sent, mut next) = (0usize, 0u32);
        let mut fresh = |n: usize| -> Vec<u8> {
            next += n as u32;
            (next - n as u32..next).map(|i| (i.wrapping_mul(37) >> 3) as u8).collect()
        };
        for step in steps {
            let mut out = vec![];
            match step {
                Step::Write(n, alone) => {
                    let data = fresh(n);
                    prop_assert_eq!(q.copy_in(&pool, &data, alone, shape), n);
                    held.extend(data);
                }
                Step::SendSmall => {
                    if let Some(n) = q.small_len() {
                        prop_assert_eq!(n as usize, held.len() - sent);
                        let (front, header) = (Front::default(), header());
                        let frame = q.send_small(&front, &header, false).unwrap();
                        prop_assert_eq!(&frame[front.len()..], &held[sent..]);
                        sent = held.len();
                    }
                }
                Step::Own(n) => {
                    let data = fresh(n);
                    q.push(pool.copy_from(&data).unwrap().freeze());
                    held.extend(data);
                }
                Step::Send(n, pieces) => {
                    let n = q.take_unsent(n, pieces, 1000, &mut out) as usize;
                    prop_assert!(out.len() <= pieces as usize);
                    prop_assert_eq!(flat(&out), &held[sent..sent + n]);
                    sent += n;
                }
                Step::Probe => {
                    q.peek_unsent(1, &mut out);
                    let byte = usize::from(sent < held.len());
                    prop_assert_eq!(flat(&out), &held[sent..sent + byte]);
                    q.skip_unsent(1);
                    sent += byte;
                }
                Step::Ack(n) => {
                    let n = n.min(sent as u32);
                    q.ack_bytes(n);
                    held.drain(..n as usize);
                    sent -= n as usize;
                }
                Step::Again(offset, n, pieces) => {
                    let offset = offset.min(sent as u32);
                    let n = q.again(offset, n, pieces, 1000, &mut out) as usize;
                    let from = offset as usize;
                    prop_assert!(from + n <= sent && out.len() <= pieces as usize);
                    prop_assert_eq!(flat(&out), &held[from..from + n]);
                }
            }
            prop_assert_eq!((q.len() as usize, q.sent() as usize), (held.len(), sent));
        }
        drop(q);
        prop_assert!(pool.audit().all_free());
    }
}

/// Sends all that is unsent, in at most 64 pieces.
fn send_all(q: &mut SendQueue) -> Vec<PacketSlice> {
    let mut out = vec![];
    q.take_unsent(u32::MAX, 64, 1448, &mut out);
    out
}

#[test]
fn what_software_cuts_lies_a_segment_to_a_slot_behind_headroom() {
    let pool = pool();
    let data: Vec<u8> = (0..6000u32).map(|n| (n * 7 + n / 11) as u8).collect();
    for cut in [Cut::Software, Cut::SoftwareSums] {
        let (mut q, shape) = (SendQueue::default(), Shape { mss: 1448, cut });
        // In odd parts, so that sums go on at odd places.
        for part in data[..4000].chunks(1001) {
            assert_eq!(q.copy_in(&pool, part, true, shape), part.len());
        }
        let sent = send_all(&mut q);
        assert_eq!(sent.iter().map(|s| s.len()).collect::<Vec<_>>(), [1448, 1448, 1104]);
        assert_eq!(flat(&sent), data[..4000]);
        for piece in &sent {
            let mut sum = None;
            let write = |room: &mut [u8; HEADROOM]| {
                sum = headroom::sum(room, piece.len());
                0
            };
            assert!(piece.with_headers(write).is_some());
            let mut expected = barewire_driver::mem::Checksum::new();
            expected.add(piece);
            assert_eq!(sum, (cut == Cut::SoftwareSums).then(|| expected.partial()));
        }
        // What is left of a slot of which a part was sent takes what fits in it, and no beginning of
        // a longer text: its segments would lie across slots.
        assert_eq!(q.copy_in(&pool, &data[4000..4200], true, shape), 200);
        assert_eq!(send_all(&mut q).iter().map(|s| s.len()).collect::<Vec<_>>(), [200]);
        assert_eq!(q.copy_in(&pool, &data[4200..], true, shape), 1800);
        let sent = send_all(&mut q);
        assert_eq!(sent.iter().map(|s| s.len()).collect::<Vec<_>>(), [1448, 352]);
        assert_eq!(flat(&sent), data[4200..]);
    }
    assert!(pool.audit().all_free());
}

#[test]
fn what_the_device_cuts_fills_its_slots() {
    let (pool, mut q) = (pool(), SendQueue::default());
    let shape = Shape { mss: 1448, cut: Cut::Device };
    assert_eq!(q.copy_in(&pool, &[7; 5000], true, shape), 5000);
    assert_eq!(send_all(&mut q).iter().map(|s| s.len()).collect::<Vec<_>>(), [2048, 2048, 904]);
    // Nor does a slot that holds two segments go to one.
    let mut q = SendQueue::default();
    let shape = Shape { mss: 500, cut: Cut::Software };
    assert_eq!(q.copy_in(&pool, &[7; 5000], true, shape), 5000);
    assert_eq!(send_all(&mut q).iter().map(|s| s.len()).collect::<Vec<_>>(), [2048, 2048, 904]);
}

#[test]
fn headroom_that_another_queue_left_is_not_trusted() {
    let (pool, mut from, mut to) = (pool(), SendQueue::default(), SendQueue::default());
    let shape = Shape { mss: 1448, cut: Cut::SoftwareSums };
    assert_eq!(from.copy_in(&pool, &[7; 1448], true, shape), 1448);
    for piece in send_all(&mut from) {
        to.push(piece);
    }
    assert!(
        send_all(&mut to)[0].with_headers(|_| unreachable!("its sum is the other's")).is_none()
    );
}
