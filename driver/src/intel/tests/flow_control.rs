//! Pause frames: when they are used, and from which fill level on they are asked for.

use super::*;
use crate::intel::FlowControl;

const CTRL: u32 = 0x0000;
const FCRTL: u32 = 0x2160;
const FCRTH: u32 = 0x2168;
const XON_ENABLE: u32 = 1 << 31;

/// Both marks after bring-up with pause frames, after turning them off, and on again.
fn marks(kind: Kind, mtu: u16) -> [(u32, u32); 3] {
    let model = NicModel::new(kind, MAC).unwrap();
    let marks = || (model.peek(FCRTL), model.peek(FCRTH));
    let config = NicConfig { flow_control: FlowControl::Full, mtu, ..small(1) };
    let nic = open(Arc::new(model.clone()), config).unwrap();
    let at_first = marks();
    nic.set_flow_control(FlowControl::Off).unwrap();
    let off = marks();
    nic.set_flow_control(FlowControl::Full).unwrap();
    [at_first, off, marks()]
}

#[test]
fn both_ways_to_turn_pause_frames_on_set_the_same_marks() {
    let wanted = |low, high| [(low | XON_ENABLE, high), (0, 0), (low | XON_ENABLE, high)];
    assert_eq!(marks(Kind::I82576, 1500), wanted(28_208, 29_712));
    assert_eq!(marks(Kind::I82576, 9216), wanted(14_880, 16_384));
    assert_eq!(marks(Kind::I82574, 1500), wanted(15_920, 17_424));
    assert_eq!(marks(Kind::I82574, 9000), wanted(8_736, 10_240));
}

fn pause_frames_are_used_when_both_sides_offer_them(kind: Kind) {
    const RFCE: u32 = 1 << 27;
    const TFCE: u32 = 1 << 28;
    let rig = Rig::new(kind, small(1));
    rig.nic.poll_link();
    assert_eq!(rig.model.peek(CTRL) & (RFCE | TFCE), 0);
    rig.nic.set_flow_control(FlowControl::Full).unwrap();
    rig.model.set_cable(false);
    rig.nic.poll_link();
    rig.model.set_cable(true);
    rig.nic.poll_link();
    assert_eq!(rig.model.peek(CTRL) & (RFCE | TFCE), RFCE | TFCE);
    rig.end();
}

on_every_kind!(pause_frames_are_used_when_both_sides_offer_them);
