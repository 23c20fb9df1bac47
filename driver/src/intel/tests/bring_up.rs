//! From any state to ready, back to quiet, and what is told in between.

use super::*;
use crate::bus::Function;
use crate::device::{LinkState, MacAddr};
use crate::intel::{FlowControl, Support, model};
use crate::model::Access;

const CTRL: u32 = 0x0000;
const RCTL: u32 = 0x0100;
const EIMC: u32 = 0x1528;
const RDLEN: u32 = 0x2808;
const RDT: u32 = 0x2818;
const RXDCTL: u32 = 0x2828;
const ENABLE: u32 = 1 << 25;
const RST: u32 = 1 << 26;
const RXEN: u32 = 1 << 1;

fn position(record: &[Access], wanted: impl Fn(&Access) -> bool) -> usize {
    record.iter().position(wanted).expect("the driver did it")
}

#[test]
fn bring_up_follows_the_data_sheet() {
    let rig = Rig::new(Kind::I82576, small(1));
    let record = rig.model.take_record();
    let written = |at: u32, bits: u32| {
        position(
            &record,
            |access| matches!(access, Access::Write(a, v) if *a == at && v & bits == bits),
        )
    };
    let masked = written(EIMC, u32::MAX);
    let reset = written(CTRL, RST);
    let masked_again =
        reset + position(&record[reset..], |access| *access == Access::Write(EIMC, u32::MAX));
    let ring = written(RDLEN, 64 * 16);
    let queue_on = written(RXDCTL, ENABLE);
    let receiver_on = written(RCTL, RXEN);
    let filled = written(RDT, 63);
    let order = [masked, reset, masked_again, ring, queue_on, receiver_on, filled];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((rig.nic.mac(), rig.model.resets()), (MAC, 1));
    assert_eq!(rig.nic.link(), LinkState { up: true, speed_mbps: Some(1000) });
    assert_eq!(rig.nic.name(), "pci:model:82576");
    assert_eq!(rig.nic.support(), Support::Emulated);
    rig.end();
}

fn a_device_that_does_not_answer_names_the_register(kind: Kind) {
    type Break = fn(&mut crate::model::Faults);
    let breaks: [(Break, &str); 3] = [
        (|faults| faults.reset_never_ends = true, "register CTRL did not show RST cleared"),
        (|faults| faults.phy_is_silent = true, "register MDIC did not show READY"),
        (|faults| faults.gone = true, "the device is gone"),
    ];
    for (fault, said) in breaks {
        let model = NicModel::new(kind, MAC).unwrap();
        model.set_faults(fault);
        let error = open(Arc::new(model.clone()), small(1)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

fn the_phy_is_taken_and_given_back(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    // A driver that was killed while it had the PHY.
    model.strand_semaphores();
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    assert!(model.semaphores_are_free());
    nic.set_flow_control(crate::intel::FlowControl::Full).unwrap();
    assert!(nic.poll_link().is_some_and(|link| link.up) && model.semaphores_are_free());
    assert_eq!(model.violations(), Vec::<String>::new());

    // Firmware that does not let go of it.
    model.set_faults(|faults| faults.phy_is_held = true);
    let error = nic.set_flow_control(crate::intel::FlowControl::Off).unwrap_err().to_string();
    let named = match kind {
        Kind::I82575 | Kind::I82576 | Kind::Virtual => {
            "register SW_FW_SYNC did not show a free PHY"
        }
        Kind::I82574 => "register EXTCNF_CTRL did not show MDIO_SW_OWNERSHIP",
    };
    assert!(error.contains(named), "{error}");
    drop(nic);
    let error = open(Arc::new(model.clone()), small(1)).unwrap_err().to_string();
    assert!(error.contains(named), "{error}");
    assert_eq!(model.violations(), Vec::<String>::new());
    assert!(model.semaphores_are_free());
}

fn a_device_that_does_not_stop_its_dma_is_reset_all_the_same(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    model.set_faults(|faults| faults.master_never_stops = true);
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    assert_eq!(model.resets(), 1);
    drop(nic);
}

#[test]
fn a_queue_that_does_not_turn_on_leaves_nothing_behind() {
    let model = NicModel::new(Kind::I82576, MAC).unwrap();
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    model.set_faults(|faults| faults.queues_never_start = true);
    let pool = pool(128);
    let mut queue = nic.queue(QueueId(0)).unwrap().open();
    let error = queue.start(&pool, Features::all()).unwrap_err().to_string();
    assert!(error.contains("register RXDCTL did not show ENABLE"), "{error}");
    assert!(pool.audit().all_free() && model.mapped_regions() == 0);
    assert_eq!(queue.rx_burst(&mut RxBurst::new(), 8).unwrap(), 0);
}

fn what_a_killed_process_left_running_is_taken_over(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    let old_pool = pool(128);
    let mut old = nic.queue(QueueId(0)).unwrap().open();
    old.start(&old_pool, Features::all()).unwrap();
    // Nothing of the first process runs its course.
    std::mem::forget((nic, old));
    model.receive(&tcp(1, b"to the dead"));
    let nic = open(Arc::new(model.clone()), small(1)).unwrap();
    let new_pool = pool(128);
    let mut queue = nic.queue(QueueId(0)).unwrap().open();
    queue.start(&new_pool, Features::all()).unwrap();
    model.receive(&tcp(1, b"to the living"));
    let mut burst = RxBurst::new();
    assert_eq!(queue.rx_burst(&mut burst, 8).unwrap(), 1);
    assert!(burst.segments(&burst.frames()[0])[0][..67].ends_with(b"to the living"));
    burst.clear();
    queue.stop();
    assert!(new_pool.audit().all_free());
    assert_eq!(model.violations(), Vec::<String>::new());
    assert_eq!(old_pool.audit().posted, 63, "the dead process's slots are its own");
}

fn a_stopped_queue_is_quiet_under_load(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    rig.model.receive(&tcp(1, b"before"));
    assert_eq!(rig.receive().len(), 1);
    rig.burst.clear();
    rig.queues[0].stop();
    let accesses = rig.model.dma_accesses();
    for port in 0..200 {
        rig.model.receive(&tcp(port, b"after"));
    }
    assert_eq!(rig.model.dma_accesses(), accesses);
    assert_eq!(rig.model.peek(RCTL) & RXEN, 0);
    assert_eq!(rig.receive().len(), 0);
    rig.end();
}

fn a_dropped_device_masks_disables_and_leaves_the_bus(kind: Kind) {
    let rig = Rig::new(kind, small(2));
    let model = rig.model.clone();
    // Dropped in the middle of everything, as by a panic.
    drop(rig);
    assert_eq!(model.mapped_regions(), 0);
    let (mask, receive_off, transmit_off) = match kind {
        Kind::I82575 | Kind::I82576 | Kind::Virtual => {
            let off = |at: u32| model.peek(at) & ENABLE == 0;
            (0x1524, off(RXDCTL), off(0x3828))
        }
        // A ring without descriptors is at rest.
        Kind::I82574 => (0x00d0, model.peek(RDLEN) == 0, model.peek(0x3808) == 0),
    };
    assert_eq!(model.peek(mask), 0, "EIMS or IMS");
    assert!(receive_off && transmit_off);
    assert_eq!(model.peek(RCTL) & RXEN, 0);
    assert_eq!(model.peek(CTRL) & 1 << 2, 1 << 2, "GIO master disable");
    let accesses = model.dma_accesses();
    model.receive(&tcp(1, b"late"));
    assert_eq!(model.dma_accesses(), accesses);
}

fn starts_and_stops_in_a_row(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    let pool = pool(128);
    for round in 0..20 {
        let nic = open(Arc::new(model.clone()), small(1)).unwrap();
        let mut queue = nic.queue(QueueId(0)).unwrap().open();
        queue.start(&pool, Features::all()).unwrap();
        model.receive(&tcp(round, b"again"));
        let mut burst = RxBurst::new();
        assert_eq!(queue.rx_burst(&mut burst, 8).unwrap(), 1);
        drop((burst, queue, nic));
        assert!(pool.audit().all_free(), "round {round}");
    }
    assert_eq!(model.violations(), Vec::<String>::new());
}

fn link_changes_are_told_and_interrupt(kind: Kind) {
    let rig = Rig::new(kind, small(1));
    let fd = rig.nic.link_event_fd().unwrap();
    assert_eq!(rig.nic.poll_link(), Some(LinkState { up: true, speed_mbps: Some(1000) }));
    assert_eq!(rig.nic.poll_link(), None);
    for up in [false, true, false] {
        rig.model.set_cable(up);
        assert_eq!(crate::sys::poll_readable(&[fd], Some(0)).unwrap(), 1, "link {up}");
        assert_eq!(rig.nic.poll_link().map(|link| link.up), Some(up));
        assert_eq!(crate::sys::poll_readable(&[fd], Some(0)).unwrap(), 0);
    }
    rig.end();
}

fn every_vector_can_be_fired_while_no_queue_runs(kind: Kind) {
    let model = NicModel::new(kind, MAC).unwrap();
    let nic = open(Arc::new(model.clone()), small(2)).unwrap();
    assert_eq!(nic.test_vectors().unwrap(), vec![true; usize::from(kind.vectors())]);
    // The device works as before: the link's interrupt and the queues' arrive.
    let fd = nic.link_event_fd().unwrap();
    nic.poll_link();
    model.set_cable(false);
    assert_eq!(crate::sys::poll_readable(&[fd], Some(0)).unwrap(), 1);
    let pool = pool(128);
    let mut queue = nic.queue(QueueId(0)).unwrap().open();
    queue.start(&pool, Features::all()).unwrap();
    let refused = nic.test_vectors().unwrap_err().to_string();
    assert!(refused.contains("while no queue is running"), "{refused}");
    assert_eq!(model.violations(), Vec::<String>::new());
}

fn a_frame_that_is_sent_from_nowhere_is_caught(kind: Kind) {
    let mut rig = Rig::new(kind, NicConfig { send_unmapped: true, ..small(1) });
    rig.push(&[&tcp(1, b"nowhere")], TxFrame::default());
    rig.send();
    let violations = rig.model.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
}

fn filters_let_in_what_was_asked_for(kind: Kind) {
    let rig = Rig::new(kind, small(1));
    let registers = rig.model.registers();
    let to = |mac: [u8; 6]| {
        let mut frame = tcp(1, b"x");
        frame[..6].copy_from_slice(&mac);
        let _ = registers.read(0x4074);
        rig.model.receive(&frame);
        registers.read(0x4074) == 1
    };
    let (other, group) = ([2, 0, 0, 0, 0, 9], [0x01, 0, 0x5e, 1, 2, 3]);
    assert!(to(MAC.0) && to([0xff; 6]) && !to(other) && !to(group));
    rig.nic.set_stations(&[MacAddr(other)]).unwrap();
    rig.nic.set_multicast(&[MacAddr(group)]).unwrap();
    assert!(to(MAC.0) && to(other) && to(group) && !to([0x01, 0, 0x5e, 9, 9, 9]));
    rig.nic.set_stations(&[]).unwrap();
    rig.nic.set_multicast(&[]).unwrap();
    assert!(!to(other) && !to(group));
    rig.nic.set_all_multicast(true).unwrap();
    assert!(to(group) && !to(other));
    rig.nic.set_promiscuous(true).unwrap();
    assert!(to(other));
    assert!(rig.nic.set_stations(&[MAC; 15]).is_err());
    rig.end();
}

fn statistics_add_up_over_readings(kind: Kind) {
    let mut rig = Rig::new(kind, small(1));
    let named = |rig: &Rig, name: &str| {
        rig.nic.statistics().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    for round in 1..=3 {
        rig.model.receive(&tcp(1, &[7; 1000]));
        assert_eq!(named(&rig, "GPRC"), Some(round));
    }
    assert_eq!(named(&rig, "GORC"), Some(3 * (54 + 1000 + 4)));
    assert_eq!(rig.receive().len(), 3);
    // A device that is gone does not count to the end of the range.
    rig.model.set_faults(|faults| faults.gone = true);
    assert_eq!(named(&rig, "GPRC"), Some(3));
    rig.model.set_faults(|faults| faults.gone = false);
    rig.end();
}

#[test]
fn what_does_not_fit_the_device_is_refused_with_a_reason() {
    let refused = |config: NicConfig| {
        let model = NicModel::new(Kind::I82576, MAC).unwrap();
        open(Arc::new(model), config).unwrap_err().to_string()
    };
    assert!(refused(NicConfig::new(17)).contains("1 to 16 queues, not 17"));
    assert!(refused(NicConfig::new(12)).contains("10 MSI-X vectors"));
    assert!(refused(NicConfig { rx_ring: 100, ..small(1) }).contains("not 100"));
    assert!(refused(NicConfig { mtu: 9217, ..small(1) }).contains("not 9217"));
    assert!(refused(NicConfig { rss_table: [1; 128], ..small(1) }).contains("does not exist"));
    assert!(model(0x8086, 0x10d3).is_some() && model(0x1af4, 0x10c9).is_none());
    let rig = Rig::new(Kind::I82576, small(1));
    assert!(rig.nic.queue(QueueId(0)).is_err() && rig.nic.queue(QueueId(1)).is_err());
    rig.end();
}

#[test]
fn the_registers_hold_what_was_configured() {
    const CTRL_EXT: u32 = 0x0018;
    const SRRCTL: u32 = 0x280c;
    const EITR: u32 = 0x1680;
    let config = NicConfig {
        interrupt_interval_us: 10,
        flow_control: FlowControl::Full,
        mtu: 9000,
        ..small(2)
    };
    let rig = Rig::new(Kind::I82576, config);
    let peek = |at| rig.model.peek(at);
    // Values as the data sheet has the fields, not by the driver's own constants.
    assert_eq!(peek(CTRL_EXT) & 1 << 28, 1 << 28, "DRV_LOAD: firmware leaves the device alone");
    for queue in 0..2 {
        // §8.8.14: microseconds from bit 2 on.
        assert_eq!(peek(EITR + 4 * queue), 40, "EITR {queue}");
        // §8.10.2: drop when no descriptor is there, one advanced buffer, size in KiB.
        assert_eq!(peek(SRRCTL + 0x100 * queue), 1 << 31 | 1 << 25 | 2, "SRRCTL {queue}");
    }
    rig.nic.set_moderation(100);
    assert_eq!((peek(EITR), peek(EITR + 4)), (400, 400));
    let (low, high) = (peek(0x2160) & 0xffff, peek(0x2168));
    assert!(0 < low && low < high && high < 64 * 1024, "FCRTL {low}, FCRTH {high}");
    let model = rig.model.clone();
    rig.end();
    assert_eq!(model.peek(CTRL_EXT) & 1 << 28, 0, "DRV_LOAD after the end");
}

#[test]
fn an_82575_has_causes_where_its_successors_have_vectors() {
    let rig = Rig::new(Kind::I82575, NicConfig { interrupt_interval_us: 10, ..small(4) });
    let peek = |at| rig.model.peek(at);
    assert_eq!(peek(0x0018) & 0x8100_0001, 0x8100_0001, "PBA_CLR, EIAME, IRCA");
    for queue in 0..4 {
        assert_eq!(peek(0x1600 + 4 * queue), 0x101 << queue, "MSIXBM {queue}");
        assert_eq!(peek(0x1680 + 4 * queue), 40 << 16 | 40, "EITR {queue}");
    }
    // The link came up during bring-up, and its cause masks itself until it is acknowledged.
    assert!(rig.nic.poll_link().is_some());
    assert_eq!((peek(0x1610), peek(0x1524)), (1 << 31, 1 << 31), "the link");
    // Queues 0 to 3 in turn, in the two highest bits of each entry.
    assert_eq!(peek(0x5c00), 0xc080_4000);
    assert_eq!(rig.nic.support(), Support::Untested);
    rig.end();
}

#[test]
fn what_the_driver_has_no_code_for_is_known_and_not_driven() {
    use crate::drivers::support;
    for (device, why) in [
        (0x10a9, "copper"),
        (0x10e6, "copper"),
        (0x1f41, "depends on the board"),
        (0x105f, "copper"),
    ] {
        let known = support((0x8086, device)).unwrap();
        let reason = known.reason.unwrap_or("none");
        assert!(known.driver.is_none() && reason.contains(why), "{device:#x}: {reason}");
        assert!(model(0x8086, device).is_none(), "{device:#x}");
    }
    for model in crate::intel::models() {
        assert_eq!(crate::intel::undriven(0x8086, model.device), None, "{model:?}");
        let media = ["fibre", "serdes", "SGMII", "backplane"];
        assert!(!media.iter().any(|medium| model.name.contains(medium)), "{model:?}");
    }
}

#[test]
fn every_device_id_is_listed_once() {
    let mut ids: Vec<u16> = crate::intel::models().map(|model| model.device).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for kind in [Kind::I82575, Kind::I82576, Kind::I82574, Kind::Virtual] {
        let (vendor, device) = NicModel::new(kind, MAC).unwrap().id();
        assert_eq!(
            model(vendor, device).map(|model| model.name.starts_with(kind.name())),
            Some(true)
        );
    }
}

on_every_kind!(
    the_phy_is_taken_and_given_back,
    a_device_that_does_not_answer_names_the_register,
    a_device_that_does_not_stop_its_dma_is_reset_all_the_same,
    what_a_killed_process_left_running_is_taken_over,
    a_stopped_queue_is_quiet_under_load,
    a_dropped_device_masks_disables_and_leaves_the_bus,
    starts_and_stops_in_a_row,
    link_changes_are_told_and_interrupt,
    every_vector_can_be_fired_while_no_queue_runs,
    a_frame_that_is_sent_from_nowhere_is_caught,
    filters_let_in_what_was_asked_for,
    statistics_add_up_over_readings,
);
