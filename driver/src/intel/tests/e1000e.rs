//! What is e1000e's alone: its order of bring-up, its registers, its limits.

use super::*;
use crate::device::DeviceError;
use crate::intel::FlowControl;
use crate::model::Access;

const CTRL: u32 = 0x0000;
const CTRL_EXT: u32 = 0x0018;
const IMS: u32 = 0x00d0;
const IMC: u32 = 0x00d8;
const EIAC: u32 = 0x00dc;
const IVAR: u32 = 0x00e4;
const EITR: u32 = 0x00e8;
const RCTL: u32 = 0x0100;
const TCTL: u32 = 0x0400;
const FCRTL: u32 = 0x2160;
const FCRTH: u32 = 0x2168;
const RDLEN: u32 = 0x2808;
const RDT: u32 = 0x2818;
const TXDCTL: u32 = 0x3828;
const TARC: u32 = 0x3840;
const RFCTL: u32 = 0x5008;
const MRQC: u32 = 0x5818;
const RETA: u32 = 0x5c00;
const EN: u32 = 1 << 1;
const KIND: Kind = Kind::I82574;

#[test]
fn bring_up_follows_the_data_sheet() {
    let rig = Rig::new(KIND, small(1));
    let record = rig.model.take_record();
    let behind = |from: usize, at: u32, wanted: fn(u32) -> bool| {
        let here =
            |access: &Access| matches!(access, Access::Write(a, v) if *a == at && wanted(*v));
        from + record[from..].iter().position(here).expect("the driver did it")
    };
    let masked = behind(0, IMC, |value| value == u32::MAX);
    let reset = behind(0, CTRL, |value| value & 1 << 26 != 0);
    let masked_again = behind(reset, IMC, |value| value == u32::MAX);
    let extended = behind(reset, RFCTL, |value| value & 1 << 15 != 0);
    let ring = behind(reset, RDLEN, |value| value == 64 * 16);
    let receiver_on = behind(reset, RCTL, |value| value & EN != 0);
    let filled = behind(reset, RDT, |value| value == 63);
    let order = [masked, reset, masked_again, extended, ring, receiver_on, filled];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((rig.nic.mac(), rig.model.resets()), (MAC, 1));
    assert_eq!(rig.nic.name(), "pci:model:82574");
    rig.end();
}

#[test]
fn the_registers_hold_what_was_configured() {
    let config = NicConfig {
        interrupt_interval_us: 10,
        flow_control: FlowControl::Full,
        mtu: 9000,
        ..small(2)
    };
    let rig = Rig::new(KIND, config);
    let peek = |at| rig.model.peek(at);
    // Values as the data sheet has the fields, not by the driver's own constants.
    assert_eq!(peek(CTRL_EXT) & 1 << 28, 1 << 28, "DRV_LOAD: firmware leaves the device alone");
    // §10.2.4.9: vectors 0 and 1 for the queues' receive and transmit causes, 2 for the rest.
    assert_eq!(peek(IVAR), 0xa_9898);
    assert_eq!(peek(EIAC), 0xf << 20, "a queue's cause ends when its vector is sent");
    assert_eq!(peek(IMS), 1 << 24 | 1 << 2, "awake, queues do not interrupt");
    for queue in 0..2 {
        // §10.2.4.10: units of 256 ns.
        assert_eq!(peek(EITR + 4 * queue), 39, "EITR {queue}");
        assert_eq!(peek(TXDCTL + 0x100 * queue), 1 << 24 | 1 << 22, "TXDCTL {queue}");
        assert_eq!(peek(TARC + 0x100 * queue) & 1 << 10, 1 << 10, "TARC {queue}");
    }
    rig.nic.set_moderation(100);
    assert_eq!((peek(EITR), peek(EITR + 4)), (390, 390));
    // Long frames, broadcasts, no check sequence, buffers of 2 KiB.
    assert_eq!(peek(RCTL), 1 << 26 | 1 << 15 | 1 << 5 | EN);
    assert_eq!(peek(TCTL) & EN, EN);
    assert_eq!(peek(MRQC), 0x37 << 16 | 1);
    assert_eq!(peek(RETA), 0x8000_8000, "the queue in the highest bit of each entry");
    let (low, high) = (peek(FCRTL) & 0xffff, peek(FCRTH));
    assert!(0 < low && low < high && high < 20 * 1024, "FCRTL {low}, FCRTH {high}");
    let model = rig.model.clone();
    rig.end();
    assert_eq!(model.peek(CTRL_EXT) & 1 << 28, 0, "DRV_LOAD after the end");
}

#[test]
fn both_queues_have_buffers_of_one_size() {
    let large = 1 << 25 | 3 << 16;
    for (slot_len, other, bits) in [(2048, 4096, 0), (4096, 2048, large), (9216, 2048, large)] {
        let model = NicModel::new(KIND, MAC).unwrap();
        let nic = open(Arc::new(model.clone()), small(2)).unwrap();
        let pool_of = |slot_len| {
            Pool::new(PoolConfig { slots: 128, slot_len, cells: 128, try_huge: false }).unwrap()
        };
        let mut first = nic.queue(QueueId(0)).unwrap().open();
        first.start(&pool_of(slot_len), Features::all()).unwrap();
        assert_eq!(model.peek(RCTL) & (1 << 25 | 3 << 16), bits);
        let mut second = nic.queue(QueueId(1)).unwrap().open();
        let refused = second.start(&pool_of(other), Features::all()).unwrap_err();
        assert!(refused.to_string().contains("slots of one size"), "{refused}");
        // The first one goes on.
        model.receive(&tcp(1, &[1; 1000]));
        let mut burst = RxBurst::new();
        assert_eq!(first.rx_burst(&mut burst, 8).unwrap(), 1);
        assert_eq!(model.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_queues_cause_that_the_links_acknowledgement_clears_is_given_back() {
    let mut rig = Rig::new(KIND, small(1));
    rig.nic.poll_link();
    let crate::device::Arm::Sleep { fd: Some(fd), .. } = rig.queues[0].arm() else {
        panic!("there is nothing yet")
    };
    // Its vector is not mapped for a moment, so that the cause waits in ICR, as it does while
    // moderation holds the vector back.
    let registers = crate::bus::Function::registers(&rig.model);
    let map = rig.model.peek(IVAR);
    registers.write(IVAR, map & !0xff);
    rig.model.receive(&tcp(1, b"held back"));
    registers.write(IVAR, map);
    assert_eq!(crate::sys::poll_readable(&[fd], Some(0)).unwrap(), 0);
    rig.model.set_cable(false);
    rig.nic.poll_link();
    assert_eq!(crate::sys::poll_readable(&[fd], Some(0)).unwrap(), 1);
    rig.model.set_cable(true);
    rig.queues[0].disarm();
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

#[test]
fn the_longest_frame_fits_with_its_tag() {
    let mut rig = Rig::new(KIND, NicConfig { mtu: 9212, vlan: true, ..small(1) });
    let frame = tcp(1, &[7; 9212 - 40]);
    let mut tagged = frame.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    rig.model.receive(&tagged);
    assert_eq!(rig.receive(), std::slice::from_ref(&frame));
    assert_eq!(rig.burst.frames()[0].vlan.get(), Some(5));
    let meta = TxFrame { vlan: Some(5), ..TxFrame::default() };
    rig.push(&frame.chunks(2048).collect::<Vec<_>>(), meta);
    assert_eq!(rig.send(), 1);
    assert_eq!(rig.model.take_sent(), [tagged]);
    rig.end();
    let model = NicModel::new(KIND, MAC).unwrap();
    let error = open(Arc::new(model), NicConfig { mtu: 9213, ..small(1) }).unwrap_err();
    let told = matches!(error, DeviceError::Mtu { wanted: 9213, most: 9212, .. });
    assert!(told, "{error}");
}

#[test]
fn what_does_not_fit_the_device_is_refused_with_a_reason() {
    let refused = |config: NicConfig| {
        let model = NicModel::new(KIND, MAC).unwrap();
        open(Arc::new(model), config).unwrap_err().to_string()
    };
    assert!(refused(NicConfig::new(3)).contains("1 to 2 queues, not 3"));
    assert!(refused(NicConfig { tx_ring: 8192, ..small(1) }).contains("not 8192"));
    assert!(refused(NicConfig { rss_table: [1; 128], ..small(1) }).contains("does not exist"));
}
