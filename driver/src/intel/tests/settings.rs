//! What a user sets behind a card's address arrives in its registers and on the wire.

use super::*;
use crate::bus::Function;
use crate::device::{Device, MacAddr};
use crate::drivers;
use crate::intel::{FlowControl, PauseFrames};
use crate::rss::SYMMETRIC_KEY;
use crate::settings::NicSettings;
use crate::spec::OpenOptions;

const CTRL: u32 = 0x0000;
const RCTL: u32 = 0x0100;
const VFTA: u32 = 0x5600;
const RETA: u32 = 0x5c00;
const RSSRK: u32 = 0x5c80;

fn settings(text: &str) -> NicSettings {
    text.parse().unwrap()
}

fn options(queues: u16) -> OpenOptions {
    OpenOptions { queues, ..OpenOptions::default() }
}

fn open_with(model: &NicModel, text: &str, queues: u16) -> Arc<dyn Nic> {
    drivers::open_nic(Arc::new(model.clone()), &settings(text), &options(queues)).unwrap()
}

/// Where a vector's moderation is, and how the register holds microseconds, as the data sheets have
/// it and not by the driver's own constants.
fn eitr(kind: Kind, vector: u32, interval_us: u32) -> (u32, u32) {
    match kind {
        Kind::I82576 | Kind::Virtual => (0x1680 + 4 * vector, interval_us << 2),
        // The counter in the upper half is loaded by hand.
        Kind::I82575 => (0x1680 + 4 * vector, interval_us << 2 | interval_us << 18),
        Kind::I82574 => (0x00e8 + 4 * vector, interval_us * 1000 / 256),
    }
}

fn settings_are_in_the_registers(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    let key: String = SYMMETRIC_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("rss-key={key},rss-table=1/0/1/1,moderation-us=250,vlan=100,promisc");
    let nic = open_with(&model, &text, 2);
    for vector in 0..2 {
        let (at, value) = eitr(kind, vector, 250);
        assert_eq!(model.peek(at), value, "EITR {vector}");
    }
    assert_eq!(model.peek(RCTL) & (1 << 3 | 1 << 4 | 1 << 18), 1 << 3 | 1 << 4 | 1 << 18);
    assert_eq!((model.peek(VFTA + 4 * 3), model.peek(VFTA)), (1 << 4, 0), "100 = 3 * 32 + 4");
    assert_eq!(model.peek(CTRL) >> 30 & 1, 1, "VME");
    assert_eq!(model.peek(RSSRK), 0x5a6d_5a6d);
    let pool = pool(128);
    let mut queues: Vec<_> = (0..2).map(|n| nic.queue(QueueId(n)).unwrap().open()).collect();
    for queue in &mut queues {
        queue.start(&pool, Features::all()).unwrap();
    }
    // The queue's number in the lowest bits of an entry, in the highest two, and in the highest one.
    let entries = match kind {
        Kind::I82576 | Kind::Virtual => 0x0101_0001,
        Kind::I82575 => 0x4040_0040,
        Kind::I82574 => 0x8080_0080,
    };
    assert_eq!((model.peek(RETA), model.peek(RETA + 4 * 31)), (entries, entries));
    drop(queues);
    drop(nic);
    // Without settings everything is as the driver has it.
    let _nic = open_with(&model, "moderation-us=0", 1);
    let (at, value) = eitr(kind, 0, 0);
    assert_eq!((model.peek(at), model.peek(RCTL) & (1 << 3 | 1 << 18)), (value, 0));
    assert_eq!((model.peek(VFTA + 4 * 3), model.peek(CTRL) >> 30 & 1), (0, 0));
}

fn the_address_and_those_beside_it_are_heard(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    let own = MacAddr([2, 0, 0, 0, 0, 5]);
    let text = "mac=02:00:00:00:00:05,station=02:00:00:00:00:06,multicast=01:00:5e:01:02:03";
    let nic = open_with(&model, text, 1);
    assert_eq!(nic.mac(), own);
    let (pool, mut burst) = (pool(128), RxBurst::new());
    let mut queue = nic.queue(QueueId(0)).unwrap().open();
    queue.start(&pool, Features::all()).unwrap();
    let mut heard = |to: [u8; 6]| {
        let mut frame = tcp(1, b"x");
        frame[..6].copy_from_slice(&to);
        model.receive(&frame);
        burst.clear();
        queue.rx_burst(&mut burst, 8).unwrap() == 1
    };
    assert!(heard(own.0) && heard([2, 0, 0, 0, 0, 6]) && heard([0xff; 6]));
    assert!(heard([0x01, 0, 0x5e, 1, 2, 3]) && !heard([0x01, 0, 0x5e, 9, 9, 9]));
    assert!(!heard(MAC.0), "its own address is not its address any more");
}

fn pause_frames_are_told_as_they_are_used(kind: Kind) {
    for (text, wanted) in [
        ("flow-control=off", PauseFrames::default()),
        ("flow-control=rx", PauseFrames { obeyed: true, sent: false }),
        ("flow-control=full", PauseFrames { obeyed: true, sent: true }),
    ] {
        let model = NicModel::new(kind, MAC).unwrap();
        let nic = open_with(&model, text, 1);
        assert_eq!(nic.pause_frames(), PauseFrames::default(), "{text}, before the link is told");
        nic.poll_link();
        assert_eq!(nic.pause_frames(), wanted, "{text}");
        model.set_faults(|faults| faults.gone = true);
        assert_eq!(nic.pause_frames(), PauseFrames::default());
    }
    assert!(FlowControl::ALL.iter().all(|flow| {
        settings(&format!("flow-control={}", flow.name())).flow_control == Some(*flow)
    }));
}

fn refused(kind: Kind, text: &str, queues: u16) -> String {
    let model = Arc::new(NicModel::new(kind, MAC).unwrap());
    let opened = drivers::open_nic(model, &settings(text), &options(queues));
    opened.unwrap_err().to_string()
}

fn what_the_card_cannot_do_is_refused_with_a_reason(kind: Kind) {
    let refused = |text: &str, queues| refused(kind, text, queues);
    assert!(refused("rss-table=0/1", 1).contains("names queue 1, which does not exist"));
    assert!(refused("rss-table=0/2", 2).contains("there are 2 (`--cores`)"));
    let config = NicConfig { interrupt_interval_us: 8192, ..small(1) };
    let error = open(Arc::new(NicModel::new(kind, MAC).unwrap()), config).unwrap_err().to_string();
    assert!(error.contains("8191 µs apart, not 8192"), "{error}");
}

#[test]
fn on_a_virtual_function_moderation_alone_can_be_set() {
    for (text, said) in [
        ("promisc", "belong to its physical function"),
        ("multicast=01:00:5e:01:02:03", "belong to its physical function"),
        ("station=02:00:00:00:00:06", "belong to its physical function"),
        ("vlan=5", "belong to its physical function"),
        ("mac=02:00:00:00:00:05", "ip link set PF vf N mac MAC"),
        ("flow-control=full", "ethtool -A"),
        ("rss-table=0", "no RSS of its own"),
        (
            "rss-key=00000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "no RSS of its own",
        ),
    ] {
        let error = refused(Kind::Virtual, text, 1);
        assert!(error.contains(said), "{text}: {error}");
    }
    let model = NicModel::new(Kind::Virtual, MAC).unwrap();
    let _nic = open_with(&model, "moderation-us=50", 1);
    let (at, value) = eitr(Kind::Virtual, 0, 50);
    assert_eq!(model.peek(at), value);
}

/// A device on VLAN 5 with one queue, started.
fn on_vlan(model: &NicModel, pool: &Pool) -> (Arc<dyn Device>, Box<dyn Queue>) {
    let function: Arc<dyn Function> = Arc::new(model.clone());
    let device = drivers::open(function, &settings("vlan=5"), &options(1)).unwrap();
    let mut queue = device.queue(QueueId(0)).unwrap().open();
    let granted = queue.start(pool, Features::TX_CHECKSUM | Features::RX_CHECKSUM).unwrap();
    assert_eq!(granted, Features::TX_CHECKSUM | Features::RX_CHECKSUM);
    assert!(!device.capabilities().features.contains(Features::VLAN), "it is used up");
    (device, queue)
}

fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let [high, low] = tag.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

fn on_a_vlan_only_its_frames_are_received(kind: Kind) {
    let (model, pool) = (NicModel::new(kind, MAC).unwrap(), pool(1024));
    let (_device, mut queue) = on_vlan(&model, &pool);
    let (ours, other) = (tcp(1, &[1; 50]), tcp(2, &[2; 3000]));
    let mut burst = RxBurst::new();
    model.receive(&other[..200]);
    model.receive(&tagged(&ours, 0x6005));
    model.receive(&tagged(&other[..100], 6));
    model.receive(&tagged(&other[..100], 0));
    model.receive(&other[..100]);
    model.receive(&tagged(&ours, 5));
    assert_eq!(queue.rx_burst(&mut burst, 64).unwrap(), 2);
    let received = |burst: &RxBurst| -> Vec<_> {
        burst.frames().iter().map(|frame| join(burst.segments(frame))).collect()
    };
    assert_eq!(received(&burst), [ours.clone(), ours.clone()]);
    // The two without a tag; those of other VLANs the device has kept to itself.
    let counters = queue.counters();
    assert_eq!((counters.rx_other_vlan, counters.rx_frames), (2, 2));
    assert_eq!(counters.rx_bytes, 2 * ours.len() as u64);
    // What was in the burst before stays in it.
    model.receive(&other[..100]);
    assert_eq!(queue.rx_burst(&mut burst, 64).unwrap(), 0);
    assert_eq!((received(&burst).len(), queue.counters().rx_other_vlan), (2, 3));
    burst.clear();
    queue.stop();
    assert!(pool.audit().all_free() && model.violations().is_empty());
}

fn on_a_vlan_every_frame_is_sent_with_its_tag(kind: Kind) {
    let (model, pool) = (NicModel::new(kind, MAC).unwrap(), pool(1024));
    let (_device, mut queue) = on_vlan(&model, &pool);
    let plain = tcp(1, &[1; 60]);
    let (unfinished, checksum) = partial(tcp(2, &[9; 1000]), 34, 16, 6);
    let mut burst = TxBurst::new();
    for (frame, checksum) in
        [(&plain, TxChecksum::Complete), (&unfinished, checksum), (&plain, TxChecksum::Complete)]
    {
        burst.push_segment(pool.copy_from(frame).unwrap().freeze());
        burst.finish_frame(TxFrame { checksum, ..TxFrame::default() });
    }
    assert_eq!(queue.tx_burst(&mut burst).unwrap(), 3);
    let sent = model.take_sent();
    assert_eq!(sent.iter().filter(|frame| frame[12..16] == [0x81, 0, 0, 5]).count(), 3);
    assert_eq!((&sent[0], &sent[2]), (&tagged(&plain, 5), &tagged(&plain, 5)));
    assert_valid(&[&sent[1][..12], &sent[1][16..]].concat());
    queue.stop();
    assert!(pool.audit().all_free() && model.violations().is_empty());
}

#[test]
fn a_device_that_inserts_no_tags_is_put_on_no_vlan() {
    use crate::middleware::vlan::VlanDevice;
    let model = NicModel::new(Kind::I82576, MAC).unwrap();
    let plain = open_with(&model, "promisc", 1);
    let vlan = settings("vlan=5").vlan.unwrap();
    let error = VlanDevice::new(plain, vlan).unwrap_err().to_string();
    assert!(error.contains("cannot insert and strip VLAN tags"), "{error}");
}

on_every_kind!(
    settings_are_in_the_registers,
    the_address_and_those_beside_it_are_heard,
    pause_frames_are_told_as_they_are_used,
    what_the_card_cannot_do_is_refused_with_a_reason,
    on_a_vlan_only_its_frames_are_received,
    on_a_vlan_every_frame_is_sent_with_its_tag,
);
