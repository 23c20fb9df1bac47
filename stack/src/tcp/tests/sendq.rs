//! The send queue: gathering, acknowledging and sending again.

use super::*;
use barewire_driver::PoolConfig;
use proptest::prelude::*;

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 512, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
}

fn flat(pieces: &[PacketSlice]) -> Vec<u8> {
    pieces.iter().flat_map(|p| p.iter().copied()).collect()
}

#[test]
fn records_split_join_and_shrink() {
    let (t1, t2) = (Instant::from_millis(1), Instant::from_millis(2));
    let s = |n| SeqNum::new(n);
    let mut q = SendQueue::default();
    q.record_sent(s(100), 1000, t1);
    q.record_sent(s(1100), 500, t1);
    assert_eq!(q.records.len(), 1, "the same moment is one record");
    q.record_resent(s(300), 200, t2);
    let seen: Vec<_> =
        q.records.iter().map(|r| (r.start.get(), r.len, r.retransmissions)).collect();
    assert_eq!(seen, [(100, 200, 0), (300, 200, 1), (500, 1100, 0)]);
    let acked = q.ack_records(s(200));
    assert_eq!((acked.sent_once_at, acked.resent_at), (Some(t1), None));
    assert_eq!(acked.round.newly(), 100);
    let acked = q.ack_records(s(600));
    assert_eq!((acked.sent_once_at, acked.resent_at), (Some(t1), Some(t2)));
    assert_eq!(acked.round.newly(), 400);
    assert_eq!(q.first_record().map(|r| (r.start.get(), r.len)), Some((600, 1000)));
}

#[test]
fn records_are_bounded_and_joined_ones_give_no_sample() {
    let mut q = SendQueue::default();
    for i in 0..2 * RECORDS_MAX as u32 {
        q.record_sent(SeqNum::new(i), 1, Instant::from_millis(u64::from(i)));
    }
    assert_eq!(q.records.len(), RECORDS_MAX);
    let _ = q.ack_records(SeqNum::new(RECORDS_MAX as u32 - 1));
    let last = q.ack_records(SeqNum::new(2 * RECORDS_MAX as u32));
    assert_eq!((last.sent_once_at, last.resent_at), (None, None));
    assert!(q.first_record().is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Own(usize),
    Send(u32, u16),
    Probe,
    Ack(u32),
    Again(u32, u32, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..5000).prop_map(Step::Write),
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
    fn the_queue_behaves_as_a_byte_vector(steps in proptest::collection::vec(step(), 1..60)) {
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
                Step::Write(n) => {
                    let data = fresh(n);
                    prop_assert_eq!(q.copy_in(&pool, &data), n);
                    held.extend(data);
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
