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
                Step::Write(n, alone) => {
                    let data = fresh(n);
                    prop_assert_eq!(q.copy_in(&pool, &data, alone), n);
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
