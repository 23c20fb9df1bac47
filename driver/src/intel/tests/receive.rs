//! Frames from the wire to the burst: order, flows, checksums, tags, sleeping.

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::device::{Arm, RxChecksum};
use crate::sys;

fn frames_arrive_whole_and_in_order_over_many_rounds_of_the_ring(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let mut next = 0u32;
    for burst in [1, 5, 31, 32, 33, 63, 2, 60, 63, 63, 7] {
        let frames: Vec<_> =
            (next..next + burst).map(|n| tcp(n as u16, &n.to_be_bytes().repeat(20))).collect();
        next += burst;
        frames.iter().for_each(|frame| rig.model.receive(frame));
        let mut received = rig.receive();
        received.extend(rig.receive());
        assert_eq!(received, frames);
    }
    let counters = rig.queues[0].counters();
    assert_eq!((counters.rx_frames, counters.rx_malformed), (u64::from(next), 0));
    rig.end();
}

fn a_burst_is_no_longer_than_asked_for(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    (0..20).for_each(|port| rig.model.receive(&tcp(port, b"")));
    let mut counts = Vec::new();
    for _ in 0..4 {
        rig.burst.clear();
        counts.push(rig.queues[0].rx_burst(&mut rig.burst, 8).unwrap());
    }
    assert_eq!(counts, [8, 8, 4, 0]);
    rig.end();
}

fn a_jumbo_frame_spans_slots_also_when_it_comes_in_parts(kind: Kind) {
    // What the hardware fills of a slot of 9 KiB: an 82574 has no such size.
    let most = if kind == Kind::I82574 { 4096 } else { 9216 };
    for (slot_len, filled) in [(2048, 2048), (4096, 4096), (9216, most)] {
        let pool = PoolConfig { slot_len, ..memory(256) };
        let mut rig = Rig::with_pools(kind, NicConfig { mtu: 9000, ..small(1) }, pool);
        for len in [1994, 1995, 2000, 4042, 8946] {
            let frame = tcp(1, &(0..len).map(|i| i as u8).collect::<Vec<_>>());
            rig.model.receive(&frame);
            assert_eq!(rig.receive(), std::slice::from_ref(&frame));
            let segments = rig.burst.segments(&rig.burst.frames()[0]).len();
            assert_eq!(segments, frame.len().div_ceil(filled));
        }
        rig.end();
    }
}

fn a_full_ring_loses_frames_and_goes_on(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    (0..100).for_each(|port| rig.model.receive(&tcp(port, b"")));
    // One descriptor stays empty.
    assert_eq!(rig.receive().len() + rig.receive().len(), 63);
    rig.model.receive(&tcp(1, b"after"));
    assert_eq!(
        rig.receive(),
        [{
            let mut frame = tcp(1, b"after");
            frame.resize(60, 0);
            frame
        }]
    );
    let lost = rig.nic.statistics().into_iter().find(|(name, _)| *name == "RNBC");
    assert_eq!(lost, Some(("RNBC", 37)));
    rig.end();
}

fn an_empty_pool_leaves_descriptors_empty_and_is_counted(kind: Kind) {
    let mut rig = Rig::with_slots(kind, small(1), 40);
    assert_eq!(rig.pools[0].audit().posted, 40);
    let mut held = Vec::new();
    for port in 0..40 {
        rig.model.receive(&tcp(port, b"kept"));
        rig.receive();
        held.extend(rig.burst.segments(&rig.burst.frames()[0]).to_vec());
    }
    assert_eq!(rig.pools[0].audit().posted, 0);
    rig.model.receive(&tcp(41, b"lost"));
    assert_eq!(rig.receive().len(), 0);
    assert!(rig.queues[0].counters().rx_no_buffer > 0);
    // Nobody tells the queue when slots come home, so it does not sleep without an end.
    assert!(matches!(rig.queues[0].arm(), Arm::Sleep { until_ns: Some(_), .. }));
    rig.queues[0].disarm();
    held.clear();
    rig.burst.clear();
    rig.receive();
    rig.model.receive(&tcp(42, b"found"));
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

fn checksums_are_judged_by_the_device(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let (good, mut bad) = (tcp(1, &[1; 100]), tcp(1, &[1; 100]));
    bad[100] ^= 1;
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    [&good, &bad, &arp].into_iter().for_each(|frame| rig.model.receive(frame));
    rig.receive();
    let verdicts: Vec<_> = rig.burst.frames().iter().map(|frame| frame.checksum).collect();
    assert_eq!(verdicts, [RxChecksum::Good, RxChecksum::Bad, RxChecksum::Unknown]);
    rig.end();
}

fn flows_spread_over_queues_as_the_device_tells(kind: Kind) {
    let mut rig = Rig::new(kind, small(kind.queues().min(4)));
    let last = rig.queues.len() - 1;
    let steering = rig.nic.steering().unwrap();
    let mut counts = vec![0; rig.queues.len()];
    for port in 1000..1064 {
        rig.model.receive(&tcp(port, b"flow"));
        let remote = SocketAddr::new(IpAddr::from([10, 0, 0, 2]), port);
        let local = SocketAddr::new(IpAddr::from([10, 0, 0, 1]), 80);
        let queue = usize::from(rig.nic.flow_queue(remote, local).unwrap().0);
        let (SocketAddr::V4(remote), SocketAddr::V4(local)) = (remote, local) else { panic!() };
        assert_eq!(usize::from(steering.queue_v4(remote, local)), queue);
        assert_eq!(rig.receive_on(queue).len(), 1, "port {port}");
        assert!(rig.burst.frames()[0].rss_hash.get().is_some());
        counts[queue] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 8), "{counts:?}");
    // A table of one's own: everything to the last queue.
    rig.nic.set_rss_table(&[last as u8; 128]).unwrap();
    (0..20).for_each(|port| rig.model.receive(&tcp(port, b"")));
    assert_eq!(rig.receive_on(last).len(), 20);
    // Its flows go to a queue that runs when it stops.
    rig.burst.clear();
    rig.queues[last].stop();
    rig.model.receive(&tcp(1, b""));
    assert_eq!(rig.receive_on(0).len(), 1);
    rig.end();
}

fn tags_are_stripped_told_and_filtered(kind: Kind) {
    let mut rig = Rig::new(kind, NicConfig { vlan: true, ..small(1) });
    let untagged = tcp(1, &[3; 50]);
    let tagged = |vlan: u16| {
        let mut frame = untagged.clone();
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
        frame
    };
    rig.model.receive(&tagged(0x2005));
    rig.model.receive(&untagged);
    assert_eq!(rig.receive(), [untagged.clone(), untagged.clone()]);
    let vlans: Vec<_> = rig.burst.frames().iter().map(|frame| frame.vlan.get()).collect();
    assert_eq!(vlans, [Some(0x2005), None]);
    rig.nic.set_vlan_filter(&[5]).unwrap();
    rig.model.receive(&tagged(6));
    rig.model.receive(&tagged(5));
    rig.receive();
    assert_eq!(rig.burst.frames().iter().map(|f| f.vlan.get()).collect::<Vec<_>>(), [Some(5)]);
    rig.end();
}

fn a_sleeping_queue_is_woken_and_none_is_slept_over(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    for round in 0..3 {
        let Arm::Sleep { fd: Some(fd), until_ns: Some(_) } = rig.queues[0].arm() else {
            panic!("round {round}: there is nothing yet")
        };
        assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 0, "round {round}");
        rig.model.receive(&tcp(round, b"wake"));
        assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 1, "round {round}");
        rig.queues[0].disarm();
        assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 0, "round {round}");
        assert_eq!(rig.receive().len(), 1);
        // Awake, frames come without interrupts.
        rig.model.receive(&tcp(round, b"quiet"));
        assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 0, "round {round}");
        assert_eq!(rig.queues[0].arm(), Arm::Ready);
        rig.queues[0].disarm();
        assert_eq!(rig.receive().len(), 1);
    }
    rig.end();
}

fn a_sleeping_engine_wakes_for_the_link_and_looks_after_it(kind: Kind) {
    const CTRL: u32 = 0x0000;
    const RFCE: u32 = 1 << 27;
    let flow_control = crate::intel::FlowControl::Full;
    let mut rig = Rig::new(kind, NicConfig { flow_control, ..small(1) });
    // Nobody else asks about the link.
    let pauses = |rig: &Rig| rig.model.peek(CTRL) & RFCE != 0;
    assert!(!pauses(&rig), "not before the link was looked at");
    for round in 0..3 {
        let Arm::Sleep { fd: Some(fd), .. } = rig.queues[0].arm() else { panic!("round {round}") };
        assert!(pauses(&rig), "round {round}");
        for up in [false, true] {
            assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 0, "round {round}, {up}");
            rig.model.set_cable(up);
            assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 1, "round {round}, {up}");
            rig.queues[0].disarm();
            rig.queues[0].arm();
        }
        rig.queues[0].disarm();
    }
    // What happened is told once to whoever asks.
    assert!(rig.nic.poll_link().is_some_and(|link| link.up));
    assert_eq!(rig.nic.poll_link(), None);
    rig.end();
}

fn no_register_is_read_while_frames_flow(kind: Kind) {
    use crate::model::Access;
    let mut rig = Rig::new(kind, small(1));
    rig.model.take_record();
    (0..64).for_each(|port| rig.model.receive(&tcp(port, b"")));
    rig.receive();
    rig.push(&[&tcp(1, b"out")], TxFrame::default());
    rig.push(&[&tcp(2, b"out")], TxFrame::default());
    assert_eq!(rig.send(), 2);
    rig.queues[0].reclaim();
    let record = rig.model.take_record();
    let tails = [Access::Write(0x2818, 62), Access::Write(0x3818, 2)];
    assert_eq!(record, tails, "one doorbell a burst, nothing else");
    rig.end();
}

on_every_kind!(
    frames_arrive_whole_and_in_order_over_many_rounds_of_the_ring,
    a_burst_is_no_longer_than_asked_for,
    a_jumbo_frame_spans_slots_also_when_it_comes_in_parts,
    a_full_ring_loses_frames_and_goes_on,
    an_empty_pool_leaves_descriptors_empty_and_is_counted,
    checksums_are_judged_by_the_device,
    flows_spread_over_queues_as_the_device_tells,
    tags_are_stripped_told_and_filtered,
    a_sleeping_queue_is_woken_and_none_is_slept_over,
    a_sleeping_engine_wakes_for_the_link_and_looks_after_it,
    no_register_is_read_while_frames_flow,
);
