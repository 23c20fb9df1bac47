//! Frames from the burst to the wire: gathering, contexts, segments, reports.

use super::*;
use crate::device::LinkState;
use crate::model::wire;

fn frames_go_out_as_they_are_in_one_piece_or_many(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let frame = tcp(1, &(0..200).collect::<Vec<u8>>());
    rig.push(&[&frame], TxFrame::default());
    rig.push(&[&frame[..54], &frame[54..60], b"", &frame[60..]], TxFrame::default());
    assert_eq!(rig.send(), 2);
    assert_eq!(rig.model.take_sent(), [frame.clone(), frame]);
    assert_eq!((rig.queues[0].pending_tx(), rig.queues[0].reclaim()), (2, 2));
    assert_eq!(rig.pools[0].audit().queued, 0);
    rig.end();
}

fn many_rounds_of_the_ring_lose_nothing(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let mut sent = Vec::new();
    for round in 0..50u8 {
        for n in 0..=round % 7 * 9 {
            let frame = tcp(u16::from(round), &[n; 80]);
            rig.push(&[&frame[..54], &frame[54..]], TxFrame::default());
            sent.push(frame);
        }
        for _ in 0..4 {
            rig.send();
            rig.queues[0].reclaim();
        }
        assert!(rig.tx.is_empty(), "round {round} did not go out");
    }
    assert_eq!(rig.model.take_sent(), sent);
    assert_eq!(rig.queues[0].pending_tx(), 0);
    rig.end();
}

fn a_full_ring_keeps_frames_in_the_burst(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.hold_transmit = true);
    for port in 0..80 {
        rig.push(&[&tcp(port, b"wait")], TxFrame::default());
    }
    let first = rig.send();
    assert!((60..64).contains(&first), "{first}");
    assert_eq!((rig.tx.len(), rig.queues[0].tx_room()), (80 - first, 0));
    assert_eq!((rig.queues[0].counters().tx_full, rig.pools[0].audit().queued), (1, first as u32));
    assert_eq!(rig.send(), 0);
    rig.model.set_faults(|faults| faults.hold_transmit = false);
    rig.model.run_transmit();
    assert_eq!(rig.send(), 80 - first);
    assert_eq!(rig.model.take_sent().len(), 80);
    assert_eq!(rig.queues[0].reclaim(), 80 - first);
    rig.end();
}

/// A UDP datagram over IPv4.
fn udp(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([4; 6], MAC.0)
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .udp(53, 5353)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

fn the_device_fills_checksums_in(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let (frame, checksum) = partial(tcp(1, &[5; 333]), 34, 16, 6);
    rig.push(&[&frame[..54], &frame[54..]], TxFrame { checksum, ..TxFrame::default() });
    let (udp, checksum) = partial(udp(&[6; 99]), 34, 6, 17);
    rig.push(&[&udp], TxFrame { checksum, ..TxFrame::default() });
    let mut v6 = Vec::new();
    etherparse::PacketBuilder::ethernet2([4; 6], MAC.0)
        .ipv6([1; 16], [2; 16], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut v6, &[7; 101])
        .unwrap();
    let (v6, checksum) = partial(v6, 54, 16, 6);
    rig.push(&[&v6], TxFrame { checksum, ..TxFrame::default() });
    assert_eq!(rig.send(), 3);
    let sent = rig.model.take_sent();
    assert_eq!(sent.len(), 3);
    sent.iter().for_each(|frame| assert_valid(frame));
    rig.end();
}

/// Sends one frame to be cut up and checks every segment.
#[track_caller]
fn cut(rig: &mut Rig, frame: Vec<u8>, l4_at: usize, pieces: &[usize]) {
    let header = l4_at + 20;
    let payload = frame[header..].to_vec();
    let (frame, checksum) = partial(frame, l4_at, 16, 6);
    let mut segments = Vec::new();
    let mut rest = &frame[..];
    for &len in pieces {
        let (piece, after) = rest.split_at(len);
        segments.push(piece);
        rest = after;
    }
    segments.push(rest);
    let meta = TxFrame { checksum, tso_mss: 1000, header_len: header as u16, ..TxFrame::default() };
    rig.push(&segments, meta);
    assert_eq!(rig.send(), 1);
    let sent = rig.model.take_sent();
    assert_eq!(sent.len(), payload.len().div_ceil(1000));
    let mut at = 0;
    for (i, segment) in sent.iter().enumerate() {
        assert_valid(segment);
        let sequence = u32::from_be_bytes(segment[l4_at + 4..l4_at + 8].try_into().unwrap());
        assert_eq!(sequence, 7 + at as u32);
        assert_eq!(segment[l4_at + 13] & 8 != 0, i + 1 == sent.len(), "PSH with the last");
        let len = (payload.len() - at).min(1000);
        assert_eq!(segment[header..header + len], payload[at..at + len]);
        at += len;
    }
    assert_eq!(at, payload.len());
}

fn large_segments_are_cut_up_by_the_device(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let payload: Vec<u8> = (0..9_999u32).map(|i| (i % 251) as u8).collect();
    let build = |v6: bool| {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([4; 6], MAC.0);
        match v6 {
            false => builder
                .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
                .tcp(80, 81, 7, 512)
                .psh()
                .write(&mut frame, &payload),
            true => builder
                .ipv6([1; 16], [2; 16], 64)
                .tcp(80, 81, 7, 512)
                .psh()
                .write(&mut frame, &payload),
        }
        .unwrap();
        frame
    };
    let slots = [2048, 2048, 2048, 2048];
    // The header alone in the first segment.
    cut(&mut rig, build(false), 34, &[&[54][..], &slots].concat());
    // The same once more, and with a piece of payload behind the header.
    cut(&mut rig, build(false), 34, &[&[54][..], &slots].concat());
    cut(&mut rig, build(false), 34, &[&[200][..], &slots].concat());
    cut(&mut rig, build(true), 54, &[&[74][..], &slots].concat());
    let cut_up = rig.nic.statistics().into_iter().find(|(name, _)| *name == "TSCTC");
    assert_eq!(cut_up, Some(("TSCTC", 4)));
    rig.end();
}

fn one_context_serves_frames_of_a_kind(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let tail = |rig: &Rig| rig.model.peek(0x3818);
    let (frame, checksum) = partial(tcp(1, &[5; 100]), 34, 16, 6);
    let meta = TxFrame { checksum, ..TxFrame::default() };
    for (sent, expected) in [(1, 2), (2, 3), (3, 4)] {
        rig.push(&[&frame], meta);
        rig.send();
        assert_eq!(tail(&rig), expected, "frame {sent}");
    }
    // Another kind needs another context, and so does the first one after it.
    let (udp, checksum) = {
        let mut udp = frame.clone();
        udp[23] = 17;
        partial(udp, 34, 6, 17)
    };
    rig.push(&[&udp], TxFrame { checksum, ..TxFrame::default() });
    rig.push(&[&tcp(1, b"plain")], TxFrame::default());
    rig.push(&[&frame], meta);
    rig.send();
    assert_eq!(tail(&rig), 4 + 2 + 1 + 2);
    rig.end();
}

/// Of an 82574 the second note to §7.2.6.
fn one_queues_frames_do_not_go_by_anothers_context(kind: Kind) {
    let mut rig = Rig::new(kind, small(2));
    for round in 0..6 {
        let queue = round % 2;
        let (frame, checksum) = match queue {
            0 => partial(tcp(1, &[5; 100]), 34, 16, 6),
            _ => partial(udp(&[6; 99]), 34, 6, 17),
        };
        rig.push_on(queue, &[&frame], TxFrame { checksum, ..TxFrame::default() });
        assert_eq!(rig.send_on(queue), 1);
        let sent = rig.model.take_sent();
        assert_eq!(sent.len(), 1, "round {round}");
        assert_valid(&sent[0]);
    }
    rig.end();
}

fn tags_are_inserted(kind: Kind) {
    let mut rig = Rig::new(kind, NicConfig { vlan: true, ..small(1) });
    let frame = tcp(1, &[1; 60]);
    rig.push(&[&frame], TxFrame { vlan: Some(0x6007), ..TxFrame::default() });
    rig.push(&[&frame], TxFrame::default());
    rig.send();
    let sent = rig.model.take_sent();
    assert_eq!(sent[0][12..16], [0x81, 0, 0x60, 0x07]);
    assert_eq!((&sent[0][16..], &sent[1][..]), (&frame[12..], &frame[..]));
    rig.end();
}

fn what_the_device_must_not_see_is_dropped_and_counted(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let frame = tcp(1, &[1; 60]);
    let stranger = pool(4);
    rig.push(&[&frame[..16]], TxFrame::default());
    rig.push(&[&[0; 2000]], TxFrame::default());
    rig.push(&[&frame], TxFrame { vlan: Some(1), ..TxFrame::default() });
    rig.push(&[&frame[..1]; 41], TxFrame::default());
    // In this pool's region the address would be another packet's.
    rig.tx.push_segment(stranger.copy_from(&frame).unwrap().freeze());
    rig.tx.finish_frame(TxFrame::default());
    rig.push(&[&frame], TxFrame::default());
    assert_eq!(rig.send(), 1);
    assert_eq!((rig.queues[0].counters().tx_errors, rig.tx.len()), (5, 0));
    assert_eq!(rig.model.take_sent(), [frame]);
    assert!(stranger.audit().all_free());
    rig.end();
}

fn a_quiet_sender_gets_its_memory_back(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.hold_transmit = true);
    rig.push(&[&tcp(1, b"last word")], TxFrame::default());
    rig.send();
    rig.model.set_faults(|faults| faults.hold_transmit = false);
    rig.model.run_transmit();
    assert_eq!((rig.queues[0].reclaim(), rig.pools[0].audit().queued), (1, 0));
    rig.end();
}

fn two_drivers_talk_over_a_wire(kind: Kind) {
    let (mut a, mut b) = (Rig::new(kind, small(1)), Rig::new(kind, small(1)));
    wire(&a.model, &b.model);
    assert_eq!(b.nic.link(), LinkState { up: true, speed_mbps: Some(1000) });
    let (frame, checksum) = partial(tcp(1, &[9; 1000]), 34, 16, 6);
    a.push(&[&frame], TxFrame { checksum, ..TxFrame::default() });
    a.send();
    let received = b.receive();
    assert_eq!(received.len(), 1);
    assert_valid(&received[0]);
    assert_eq!(b.burst.frames()[0].checksum, crate::device::RxChecksum::Good);
    a.end();
    b.end();
}

on_every_kind!(
    frames_go_out_as_they_are_in_one_piece_or_many,
    many_rounds_of_the_ring_lose_nothing,
    a_full_ring_keeps_frames_in_the_burst,
    the_device_fills_checksums_in,
    large_segments_are_cut_up_by_the_device,
    one_context_serves_frames_of_a_kind,
    one_queues_frames_do_not_go_by_anothers_context,
    tags_are_inserted,
    what_the_device_must_not_see_is_dropped_and_counted,
    a_quiet_sender_gets_its_memory_back,
    two_drivers_talk_over_a_wire,
);
