//! A virtual function: bring-up by mail, frames, and its physical function's reset.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::device::{Arm, DeviceError, LinkState, MacAddr, QueueError};
use crate::model::{Mail, RxFault};
use crate::sys;

const KIND: Kind = Kind::Virtual;
const UP: LinkState = LinkState { up: true, speed_mbps: Some(1000) };
const DOWN: LinkState = LinkState { up: false, speed_mbps: None };

fn refused(change: impl FnOnce(&mut Mail), mtu: u16) -> (DeviceError, NicModel) {
    let model = NicModel::new(KIND, MAC).unwrap();
    model.set_mail(change);
    let error = open(Arc::new(model.clone()), NicConfig { mtu, ..small(1) }).unwrap_err();
    assert_eq!(model.violations(), Vec::<String>::new());
    (error, model)
}

/// What an engine does: it takes what there is, and looks before it would sleep.
fn turn(rig: &mut Rig) {
    rig.receive();
    rig.burst.clear();
    rig.queues[0].arm();
    rig.queues[0].disarm();
    std::thread::sleep(Duration::from_millis(1));
}

/// Turns until the device is in this state.
#[track_caller]
fn turn_until(rig: &mut Rig, link: LinkState) {
    let start = Instant::now();
    while rig.nic.link() != link {
        assert!(start.elapsed() < Duration::from_secs(5), "the link never was {link:?}");
        turn(rig);
    }
}

#[test]
fn frames_go_both_ways() {
    let mut rig = Rig::new(KIND, small(1));
    assert_eq!((rig.nic.mac(), rig.nic.link()), (MAC, UP));
    for round in 0..200 {
        let frame = tcp(round, &[7; 900]);
        rig.model.receive(&frame);
        assert_eq!(rig.receive(), std::slice::from_ref(&frame));
        rig.push(&[&frame[..54], &frame[54..]], TxFrame::default());
        assert_eq!(rig.send(), 1);
        assert_eq!(rig.model.take_sent(), [frame]);
        rig.queues[0].reclaim();
    }
    let counted = rig.nic.statistics();
    assert!(
        counted.contains(&("VFGPRC", 200)) && counted.contains(&("VFGPTC", 200)),
        "{counted:?}"
    );
    assert!(rig.nic.test_vectors().is_err(), "not while a queue is running");
    rig.end();
}

#[test]
fn its_vectors_fire_and_work_afterwards() {
    let model = NicModel::new(KIND, MAC).unwrap();
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    assert_eq!(nic.test_vectors().unwrap(), [true; 3]);
    let fd = nic.link_event_fd().unwrap();
    model.greet(true);
    assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 1);
    assert_eq!(nic.poll_link(), Some(UP));
    assert_eq!(model.violations(), Vec::<String>::new());
}

#[test]
fn a_physical_function_that_does_not_answer_is_waited_for_no_longer_than_said() {
    type Change = fn(&mut Mail);
    let cases: [(Change, &str); 2] = [
        (|mail| mail.silent = true, "V2PMAILBOX did not show"),
        (|mail| mail.holds_buffer = true, "V2PMAILBOX did not show"),
    ];
    for (change, said) in cases {
        let start = Instant::now();
        let (error, _) = refused(change, 1500);
        assert!(error.to_string().contains(said), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4));
    }
    let (error, _) = refused(|mail| mail.refuses_address = true, 1500);
    assert!(error.to_string().contains("refused the reset"), "{error}");
}

#[test]
fn long_frames_are_asked_for_and_a_refusal_is_told() {
    let mut rig = Rig::new(KIND, NicConfig { mtu: 9000, ..small(1) });
    rig.model.set_mail(|mail| assert_eq!(mail.longest(), 9000 + 14 + 4 + 4));
    let frame = tcp(1, &[3; 8946]);
    rig.model.receive(&frame);
    assert_eq!(rig.receive(), [frame]);
    rig.end();
    for mtu in [1501, 9000] {
        let (error, model) = refused(|mail| mail.refuses_long_frames = true, mtu);
        let told = matches!(error, DeviceError::Mtu { wanted, most: 1500, .. } if wanted == mtu);
        assert!(told, "{error}");
        model.set_mail(|mail| assert_eq!(mail.longest(), 1522));
    }
    // Nothing is asked for that goes without saying.
    let model = NicModel::new(KIND, MAC).unwrap();
    model.set_mail(|mail| mail.refuses_long_frames = true);
    assert!(open(Arc::new(model), small(1)).is_ok());
}

#[test]
fn a_reset_of_the_physical_function_is_survived() {
    for mtu in [1500, 9000] {
        let mut rig = Rig::new(KIND, NicConfig { mtu, ..small(1) });
        let long = tcp(9, &vec![9; usize::from(mtu) - 40]);
        assert_eq!(rig.nic.poll_link(), Some(UP));
        for round in 1..=3 {
            // In the middle of everything: a frame that began and did not end, one not reported.
            rig.model.set_faults(|faults| {
                (faults.hold_transmit, faults.rx) = (true, RxFault::NoEnd);
            });
            rig.model.receive(&tcp(1, b"to be continued"));
            rig.push(&[&tcp(1, b"unsent")], TxFrame::default());
            assert_eq!(rig.send(), 1);
            rig.model.begin_physical_reset();
            turn_until(&mut rig, DOWN);
            let audit = rig.pools[0].audit();
            assert_eq!((audit.posted, audit.queued), (0, 0), "the device has nothing of ours");
            let counters = rig.queues[0].counters();
            assert_eq!((counters.device_losses, counters.tx_lost), (round, round));
            assert_eq!(rig.nic.poll_link(), Some(DOWN));

            // As long as it takes: frames wait in the burst, and an engine may sleep.
            rig.push(&long.chunks(2048).collect::<Vec<_>>(), TxFrame::default());
            for _ in 0..30 {
                assert_eq!((rig.send(), rig.receive().len()), (0, 0));
                turn(&mut rig);
            }
            assert!(matches!(rig.queues[0].arm(), Arm::Sleep { until_ns: Some(_), .. }));
            rig.queues[0].disarm();
            assert_eq!((rig.queues[0].tx_room(), rig.tx.len()), (0, 1));

            rig.model.end_physical_reset();
            rig.model.set_faults(|faults| {
                (faults.hold_transmit, faults.rx) = (false, RxFault::None);
            });
            turn_until(&mut rig, UP);
            assert_eq!(rig.nic.poll_link(), Some(UP));
            assert_eq!(rig.send(), 1);
            assert_eq!(rig.model.take_sent(), std::slice::from_ref(&long));
            assert_eq!(rig.queues[0].reclaim(), 1);
            for port in 0..100 {
                rig.model.receive(&long);
                assert_eq!(rig.receive(), std::slice::from_ref(&long), "round {round}, {port}");
            }
            // The queue's interrupt has been set up again, too.
            let Arm::Sleep { fd: Some(fd), .. } = rig.queues[0].arm() else { panic!("{round}") };
            rig.model.receive(&tcp(1, b"wake"));
            assert_eq!(sys::poll_readable(&[fd], Some(0)).unwrap(), 1);
            rig.queues[0].disarm();
            assert_eq!(rig.receive().len(), 1);
        }
        rig.end();
    }
}

#[test]
fn a_busy_engine_notices_a_reset_too() {
    let mut rig = Rig::new(KIND, small(1));
    rig.model.begin_physical_reset();
    rig.model.end_physical_reset();
    let start = Instant::now();
    while rig.queues[0].counters().device_losses == 0 || !rig.nic.link().up {
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(rig.receive().len(), 0);
    }
    rig.model.receive(&tcp(1, b"again"));
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

#[test]
fn whoever_asks_about_the_link_may_be_the_first_to_see_the_reset() {
    let mut rig = Rig::new(KIND, small(1));
    rig.nic.poll_link();
    rig.model.begin_physical_reset();
    assert_eq!(rig.nic.poll_link(), Some(DOWN));
    rig.model.end_physical_reset();
    let start = Instant::now();
    while rig.nic.poll_link() != Some(UP) {
        assert!(start.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(1));
    }
    // The queue learns of a loss that is over already.
    turn(&mut rig);
    assert_eq!(rig.queues[0].counters().device_losses, 1);
    rig.model.receive(&tcp(1, b"again"));
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

#[test]
fn a_greeting_with_clearance_changes_nothing_and_one_without_begins_anew() {
    let mut rig = Rig::new(KIND, small(1));
    let resets = rig.model.resets();
    rig.model.greet(true);
    (0..20).for_each(|_| turn(&mut rig));
    assert_eq!((rig.nic.link(), rig.model.resets()), (UP, resets));
    rig.model.greet(false);
    turn_until(&mut rig, DOWN);
    turn_until(&mut rig, UP);
    assert_eq!((rig.queues[0].counters().device_losses, rig.model.resets()), (1, resets + 1));
    rig.end();
}

#[test]
fn a_physical_function_that_is_busy_for_long_is_asked_again() {
    let mut rig = Rig::new(KIND, small(1));
    rig.model.set_mail(|mail| mail.silent = true);
    rig.model.begin_physical_reset();
    rig.model.end_physical_reset();
    turn_until(&mut rig, DOWN);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1200) {
        turn(&mut rig);
        assert_eq!(rig.nic.link(), DOWN);
    }
    rig.model.set_mail(|mail| mail.silent = false);
    turn_until(&mut rig, UP);
    rig.end();
}

#[test]
fn a_physical_function_that_says_everything_but_the_answer_is_asked_again() {
    let mut rig = Rig::new(KIND, small(1));
    rig.model.set_mail(|mail| mail.silent = true);
    rig.model.begin_physical_reset();
    rig.model.end_physical_reset();
    turn_until(&mut rig, DOWN);
    let (resets, start) = (rig.model.resets(), Instant::now());
    while rig.model.resets() < resets + 2 {
        assert!(start.elapsed() < Duration::from_secs(5), "it was waited for without end");
        rig.model.greet(true);
        turn(&mut rig);
    }
    rig.model.set_mail(|mail| mail.silent = false);
    turn_until(&mut rig, UP);
    rig.end();
}

#[test]
fn an_address_that_nobody_can_have_is_not_taken() {
    for given in [MacAddr::default(), MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        let model = NicModel::new(KIND, given).unwrap();
        let error = open(Arc::new(model), small(1)).unwrap_err().to_string();
        assert!(error.contains(&given.to_string()) && error.contains("ip link set"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_that_a_physical_function_says_costs_a_slot(
        said in proptest::collection::vec(
            (
                any::<u32>(),
                // Half of it looks like an answer.
                prop_oneof![any::<u32>(), (0..8u32, 0..16u32).prop_map(|(n, top)| n | top << 28)],
                any::<[u32; 2]>(),
            ),
            1..40,
        )
    ) {
        let mut rig = Rig::new(KIND, small(1));
        for (register, word, [second, third]) in said {
            rig.model.scribble_mail(register, [word, second, third]);
            rig.push(&[&tcp(1, b"on its way")], TxFrame::default());
            // The device may be given up; it is not to be believed.
            let _ = rig.queues[0].tx_burst(&mut rig.tx);
            let _ = rig.queues[0].rx_burst(&mut rig.burst, 8);
            let _ = (rig.queues[0].arm(), rig.nic.poll_link());
            rig.queues[0].disarm();
            rig.tx.clear();
            rig.burst.clear();
            prop_assert_eq!(rig.nic.mac(), MAC);
            prop_assert!(rig.pools[0].audit().balanced());
        }
        rig.queues[0].stop();
        prop_assert!(rig.pools[0].audit().all_free());
        drop((rig.queues, rig.nic));
        prop_assert_eq!(rig.model.mapped_regions(), 0);
    }
}

#[test]
fn long_frames_that_are_refused_afterwards_end_the_device() {
    let mut rig = Rig::new(KIND, NicConfig { mtu: 9000, ..small(1) });
    rig.model.begin_physical_reset();
    rig.model.set_mail(|mail| mail.refuses_long_frames = true);
    rig.model.end_physical_reset();
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < Duration::from_secs(5));
        if let Err(error) = rig.queues[0].rx_burst(&mut rig.burst, 8) {
            break error;
        }
    };
    assert!(matches!(error, QueueError::Gone(_)), "{error}");
    rig.end();
}

#[test]
fn a_queue_stopped_while_the_device_is_lost_leaves_nothing_behind() {
    let mut rig = Rig::new(KIND, small(1));
    rig.push(&[&tcp(1, b"on its way")], TxFrame::default());
    rig.send();
    rig.model.begin_physical_reset();
    turn_until(&mut rig, DOWN);
    rig.queues[0].stop();
    assert_eq!(rig.receive().len(), 0);
    rig.end();
}
