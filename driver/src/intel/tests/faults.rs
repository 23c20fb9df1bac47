//! A device that breaks its contract: counted, never believed, nothing lost.

use std::time::Duration;

use super::*;
use crate::device::{Arm, QueueError};
use crate::model::RxFault;

/// Frames that a broken device reports, then whole ones.
fn broken(kind: Kind, fault: RxFault, frames: u16) -> (Rig, Vec<Vec<u8>>) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.rx = fault);
    (0..frames).for_each(|port| rig.model.receive(&tcp(port, &[1; 50])));
    let received = rig.receive();
    rig.model.set_faults(|faults| faults.rx = RxFault::None);
    (rig, received)
}

fn bogus_lengths_are_counted_and_dropped(kind: Kind) {
    for fault in
        [RxFault::NoLength, RxFault::Length(2049), RxFault::Length(u16::MAX), RxFault::Length(13)]
    {
        let (mut rig, received) = broken(kind, fault, 5);
        assert_eq!((received.len(), rig.queues[0].counters().rx_malformed), (0, 5), "{fault:?}");
        rig.model.receive(&tcp(1, &[2; 50]));
        assert_eq!(rig.receive(), [tcp(1, &[2; 50])], "{fault:?}");
        rig.end();
    }
}

fn a_damaged_frame_is_dropped(kind: Kind) {
    let (mut rig, received) = broken(kind, RxFault::Damaged, 3);
    assert_eq!((received.len(), rig.queues[0].counters().rx_malformed), (0, 3));
    rig.model.receive(&tcp(1, &[2; 50]));
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

fn a_frame_without_end_is_given_up_and_holds_no_memory(kind: Kind) {
    let (mut rig, received) = broken(kind, RxFault::NoEnd, 60);
    assert_eq!((received.len(), rig.queues[0].counters().rx_malformed), (0, 1));
    assert_eq!(rig.pools[0].audit().held, 0);
    // Its end, as it seems, goes with it; then frames are whole again.
    rig.model.receive(&tcp(1, &[2; 50]));
    rig.model.receive(&tcp(2, &[2; 50]));
    assert_eq!(rig.receive(), [tcp(2, &[2; 50])]);
    rig.end();
}

fn a_report_in_another_descriptor_is_not_believed_out_of_turn(kind: Kind) {
    let (rig, received) = broken(kind, RxFault::WrongDescriptor, 1);
    assert_eq!(received.len(), 0);
    // The slot whose turn it is stays the device's, and the report is not believed as long as that
    // is so: nothing is handed up, lost or used twice.
    assert_eq!(rig.pools[0].audit().posted, 63);
    rig.end();
}

fn a_frame_in_the_wrong_queue_is_that_queues(kind: Kind) {
    let mut rig = Rig::new(kind, NicConfig { rss_table: [0; 128], ..small(2) });
    rig.model.set_faults(|faults| faults.rx = RxFault::WrongQueue);
    rig.model.receive(&tcp(1, b"astray"));
    assert_eq!((rig.receive_on(0).len(), rig.receive_on(1).len()), (0, 1));
    rig.end();
}

fn lost_reports_are_made_good_by_the_next(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.lost_reports = 1);
    rig.push(&[&tcp(1, b"one")], TxFrame::default());
    rig.send();
    assert_eq!((rig.queues[0].reclaim(), rig.queues[0].pending_tx()), (0, 1));
    rig.push(&[&tcp(2, b"two")], TxFrame::default());
    rig.send();
    assert_eq!((rig.queues[0].reclaim(), rig.queues[0].pending_tx()), (2, 0));
    rig.end();
}

fn any_number_of_reports_lost_in_a_row_stops_nothing(kind: Kind) {
    for lost in [2, 3, 20] {
        let mut rig = Rig::new(kind, small(1));
        rig.model.set_faults(|faults| faults.lost_reports = lost);
        for port in 0..100 {
            rig.push(&[&tcp(port, b"x")], TxFrame::default());
            rig.send();
        }
        for _ in 0..10 {
            rig.send();
        }
        assert_eq!((rig.tx.len(), rig.model.take_sent().len()), (0, 100), "{lost} lost");
        rig.queues[0].reclaim();
        assert_eq!(rig.queues[0].pending_tx(), 0, "{lost} lost");
        rig.end();
    }
}

fn a_quiet_sender_whose_reports_got_lost_has_its_memory_back_before_it_sleeps(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.lost_reports = 2);
    for port in 0..3 {
        rig.push(&[&tcp(port, b"x")], TxFrame::default());
        rig.send();
    }
    assert_eq!(rig.queues[0].arm(), Arm::Ready);
    assert_eq!((rig.queues[0].pending_tx(), rig.pools[0].audit().queued), (0, 0));
    rig.queues[0].disarm();
    rig.end();
}

fn a_device_that_reports_nothing_for_seconds_is_counted(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.lost_reports = u32::MAX);
    rig.push(&[&tcp(1, b"x")], TxFrame::default());
    rig.send();
    let stalls_after = |rig: &mut Rig, pause: Duration| {
        std::thread::sleep(pause);
        rig.queues[0].arm();
        rig.queues[0].disarm();
        rig.queues[0].counters().tx_stalls
    };
    assert_eq!(stalls_after(&mut rig, Duration::ZERO), 0);
    assert_eq!(stalls_after(&mut rig, Duration::from_millis(2100)), 1);
    assert_eq!(stalls_after(&mut rig, Duration::ZERO), 1, "once in so many seconds");
    rig.end();
}

fn a_device_that_never_reports_fills_its_ring_and_no_more(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.lost_reports = u32::MAX);
    for port in 0..100 {
        rig.push(&[&tcp(port, b"x")], TxFrame::default());
        rig.send();
    }
    assert!(rig.queues[0].pending_tx() < 64);
    assert_eq!(rig.tx.len(), 100 - rig.queues[0].pending_tx());
    rig.end();
}

fn a_device_that_is_gone_is_told_and_stops_at_once(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.push(&[&tcp(1, b"in flight")], TxFrame::default());
    rig.model.set_faults(|faults| (faults.hold_transmit, faults.gone) = (true, true));
    rig.send();
    let mut burst = RxBurst::new();
    let polls = (0..10_000).take_while(|_| rig.queues[0].rx_burst(&mut burst, 64).is_ok()).count();
    assert!(polls < 10_000, "nobody noticed");
    let error = rig.queues[0].rx_burst(&mut burst, 64).unwrap_err();
    assert!(matches!(error, QueueError::Gone(_)), "{error}");
    assert!(!rig.nic.link().up);
    let started = std::time::Instant::now();
    rig.end();
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
}

fn an_armed_queue_notices_that_its_device_is_gone(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.set_faults(|faults| faults.gone = true);
    assert_eq!(rig.queues[0].arm(), crate::device::Arm::Ready);
    assert!(matches!(rig.queues[0].rx_burst(&mut RxBurst::new(), 1), Err(QueueError::Gone(_))));
    rig.end();
}

#[test]
fn a_queue_that_does_not_stop_is_cut_off_from_memory() {
    let mut rig = Rig::new(Kind::I82576, small(2));
    rig.model.set_faults(|faults| faults.queues_never_stop = true);
    rig.queues[0].stop();
    let accesses = rig.model.dma_accesses();
    (0..64).for_each(|port| rig.model.receive(&tcp(port, b"still there?")));
    assert_eq!(rig.model.dma_accesses(), accesses);
    assert!(rig.pools[0].audit().all_free());
    // The other queue's engine is told, too, and a queue cannot be started on this device again.
    let mut burst = RxBurst::new();
    let end = (0..10_000).find_map(|_| rig.queues[1].rx_burst(&mut burst, 64).err());
    assert!(matches!(end, Some(QueueError::Gone(_))));
    rig.end();
}

#[test]
fn what_a_device_may_still_write_to_is_nobody_elses_again() {
    let mut rig = Rig::new(Kind::I82576, small(1));
    let posted = rig.pools[0].audit().posted;
    rig.model.set_faults(|faults| {
        (faults.queues_never_stop, faults.bus_is_stuck) = (true, true);
    });
    rig.queues[0].stop();
    let audit = rig.pools[0].audit();
    assert!(posted > 0 && audit.posted == posted && audit.balanced(), "{audit:?}");
    let regions = rig.model.mapped_regions();
    drop((rig.queues, rig.nic));
    assert_eq!((rig.model.mapped_regions(), regions), (2, 2), "rings and packets stay mapped");
}

fn the_model_sees_dma_to_memory_that_is_not_the_devices(kind: Kind) {
    use crate::bus::Function;
    let rig = Rig::new(kind, small(1));
    // RDBAL moved while the queue is on, which is a violation of its own.
    rig.model.registers().write(0x2800, 0x1000);
    rig.model.receive(&tcp(1, b"astray"));
    let violations = rig.model.violations();
    assert!(violations[0].contains("programmed while it was on"), "{violations:?}");
    assert!(violations[1].contains("not mapped"), "{violations:?}");
}

on_every_kind!(
    bogus_lengths_are_counted_and_dropped,
    a_damaged_frame_is_dropped,
    a_frame_without_end_is_given_up_and_holds_no_memory,
    a_report_in_another_descriptor_is_not_believed_out_of_turn,
    a_frame_in_the_wrong_queue_is_that_queues,
    lost_reports_are_made_good_by_the_next,
    any_number_of_reports_lost_in_a_row_stops_nothing,
    a_quiet_sender_whose_reports_got_lost_has_its_memory_back_before_it_sleeps,
    a_device_that_reports_nothing_for_seconds_is_counted,
    a_device_that_never_reports_fills_its_ring_and_no_more,
    a_device_that_is_gone_is_told_and_stops_at_once,
    an_armed_queue_notices_that_its_device_is_gone,
    the_model_sees_dma_to_memory_that_is_not_the_devices,
);
