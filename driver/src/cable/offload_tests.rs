use super::*;
use crate::mem::{Pool, PoolConfig};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 128, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
}

fn link(receiver: Features) -> Link {
    Link { sender: Features::TX_CHECKSUM | Features::TSO4, receiver, mtu: 1500 }
}

/// A TCP frame with all flags that segmentation treats apart, its checksum left to the device.
fn large(pool: &Pool, payload: &[u8], mss: u16, cut: usize) -> (TxFrame, Vec<PacketSlice>) {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(A, B, 64)
        .tcp(1000, 80, u32::MAX - 2000, 500)
        .ack(77)
        .psh()
        .fin()
        .cwr()
        .options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
        .unwrap()
        .write(&mut bytes, payload)
        .unwrap();
    // Identification just before it wraps; the checksum is computed anew in each segment.
    bytes[18..20].copy_from_slice(&[0xff, 0xff]);
    // What the device has to replace must not matter.
    bytes[50..52].copy_from_slice(&[0xde, 0xad]);
    let header_len = 66;
    let mut segments = vec![pool.copy_from(&bytes[..header_len]).unwrap().freeze()];
    segments.extend(bytes[header_len..].chunks(cut).map(|c| pool.copy_from(c).unwrap().freeze()));
    let frame = TxFrame {
        count: segments.len() as u16,
        len: bytes.len() as u32,
        checksum: TxChecksum::Partial { start: 34, offset: 16 },
        tso_mss: mss,
        header_len: header_len as u16,
        vlan: None,
    };
    (frame, segments)
}

/// Everything that comes out, as bytes scattered over slots of `slot` bytes.
fn carried(
    frame: &TxFrame,
    source: &[PacketSlice],
    link: Link,
    slot: usize,
) -> Result<Vec<(Vec<u8>, RxFrame)>, Misfit> {
    let mut out = Vec::new();
    carry(frame, source, link, |wire| {
        let mut bufs = vec![vec![0xa5; slot]; wire.len().div_ceil(slot)];
        let last = wire.copy_into(&mut bufs);
        bufs.last_mut().unwrap().truncate(last);
        out.push((bufs.concat(), wire.meta));
    })?;
    Ok(out)
}

proptest! {
    #[test]
    fn segments_are_what_a_card_would_send(
        payload in proptest::collection::vec(any::<u8>(), 1..20_000),
        mss in 100u16..1449,
        cut in 1000usize..2048,
        slot in 64usize..2048,
    ) {
        let pool = pool();
        let (frame, source) = large(&pool, &payload, mss, cut);
        let out = carried(&frame, &source, link(Features::empty()), slot).unwrap();
        prop_assert_eq!(out.len(), payload.len().div_ceil(usize::from(mss)));
        let mut stream = Vec::new();
        for (i, (bytes, meta)) in out.iter().enumerate() {
            let packet = SlicedPacket::from_ethernet(bytes).unwrap();
            let ip = packet.net.as_ref().unwrap().ipv4_ref().unwrap().header().to_header();
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("not TCP") };
            let last = i + 1 == out.len();
            let seq = (u32::MAX - 2000).wrapping_add(stream.len() as u32);
            if out.len() > 1 {
                prop_assert_eq!(ip.identification, 0xffff_u16.wrapping_add(i as u16));
                prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            }
            prop_assert_eq!(usize::from(ip.total_len), bytes.len() - 14);
            if out.len() > 1 {
                let sum = tcp.calc_checksum_ipv4(A, B).unwrap();
                prop_assert_eq!(sum, tcp.checksum());
            }
            prop_assert_eq!(tcp.sequence_number(), seq);
            prop_assert_eq!((tcp.psh(), tcp.fin(), tcp.cwr(), tcp.ack()), (last, last, i == 0, true));
            prop_assert_eq!(tcp.options().len(), 12);
            prop_assert_eq!((meta.checksum, meta.gso_bytes), (RxChecksum::Unknown, 0));
            stream.extend_from_slice(tcp.payload());
        }
        prop_assert_eq!(stream, payload);
    }

    #[test]
    fn a_partial_checksum_is_completed(
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
        cut in 1usize..100,
    ) {
        let pool = pool();
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(A, B, 64).udp(7, 9);
        builder.write(&mut bytes, &payload).unwrap();
        let finished = bytes.clone();
        let mut seed = Checksum::new();
        seed.add(&bytes[26..34]);
        seed.add_u16(17);
        seed.add_u16((bytes.len() - 34) as u16);
        bytes[40..42].copy_from_slice(&seed.partial().to_be_bytes());
        let mut source = vec![pool.copy_from(&bytes[..42]).unwrap().freeze()];
        source.extend(bytes[42..].chunks(cut.max(20)).map(|c| pool.copy_from(c).unwrap().freeze()));
        let checksum = TxChecksum::Partial { start: 34, offset: 6 };
        let frame = TxFrame { len: bytes.len() as u32, checksum, ..TxFrame::default() };
        let out = carried(&frame, &source, link(Features::empty()), 2048).unwrap();
        prop_assert_eq!(&out[0].0, &finished);
        prop_assert_eq!(out[0].1.checksum, RxChecksum::Unknown);
        let out = carried(&frame, &source, link(Features::RX_CHECKSUM), 2048).unwrap();
        prop_assert_eq!(&out[0].0, &bytes);
        prop_assert_eq!(out[0].1.checksum, RxChecksum::Good);
    }
}

#[test]
fn large_frames_stay_whole_for_those_who_take_them() {
    let pool = pool();
    let (frame, source) = large(&pool, &[3; 5000], 1400, 2000);
    let takes = Features::RX_CHECKSUM | Features::LARGE_RECEIVE;
    let out = carried(&frame, &source, link(takes), 2048).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].1.checksum, out[0].1.gso_bytes), (RxChecksum::Good, 1400));
    let cut = carried(&frame, &source, link(Features::RX_CHECKSUM), 2048).unwrap();
    assert_eq!(cut.len(), 4);
    assert!(cut.iter().all(|(_, meta)| meta.checksum == RxChecksum::Good));
}

#[test]
fn a_zero_sum_is_sent_as_all_ones() {
    let pool = pool();
    let mut bytes = vec![0; 60];
    bytes[34] = 0xff;
    bytes[35] = 0xff;
    let source = [pool.copy_from(&bytes).unwrap().freeze()];
    let checksum = TxChecksum::Partial { start: 34, offset: 6 };
    let frame = TxFrame { len: 60, checksum, ..TxFrame::default() };
    let out = carried(&frame, &source, link(Features::empty()), 2048).unwrap();
    assert_eq!(out[0].0[40..42], [0xff, 0xff]);
}

#[test]
fn frames_that_do_not_fit_their_metadata_are_refused() {
    let pool = pool();
    let (good, source) = large(&pool, &[3; 5000], 1400, 2000);
    let refused = |frame: TxFrame, source: &[PacketSlice], link: Link| {
        assert_eq!(carried(&frame, source, link, 2048).err(), Some(Misfit), "{frame:?}");
    };
    let plain = link(Features::empty());
    refused(good, &source, Link { sender: Features::empty(), ..plain });
    refused(good, &source, Link { sender: Features::TX_CHECKSUM, ..plain });
    refused(TxFrame { tso_mss: 1449, ..good }, &source, plain);
    refused(TxFrame { header_len: 54, ..good }, &source, plain);
    refused(TxFrame { header_len: 67, ..good }, &source, plain);
    refused(TxFrame { checksum: TxChecksum::Complete, ..good }, &source, plain);
    refused(TxFrame { tso_mss: 0, ..good }, &source, plain);
    refused(TxFrame { vlan: Some(1), ..good }, &source, plain);
    for (start, offset) in [(33, 16), (34, 15), (u16::MAX, u16::MAX)] {
        let checksum = TxChecksum::Partial { start, offset };
        refused(TxFrame { checksum, ..good }, &source, plain);
        let small = TxFrame { checksum, tso_mss: 0, len: 1000, ..good };
        if start == u16::MAX {
            refused(small, &source, plain);
        }
    }
    let mut fragment = pool.copy_from(&source[0]).unwrap();
    fragment[20] |= 0x20;
    refused(good, &[fragment.freeze()], plain);
    refused(TxFrame { len: 13, ..TxFrame::default() }, &[source[0].slice(0..13)], plain);
    refused(TxFrame::default(), &[], plain);
}
