//! The link: autonegotiation, speed, pause frames.
//!
//! Autonegotiation takes the PHY and its peer 0.5 to several seconds; nobody waits for it here. It
//! is started when the device is brought up, and the link is told when it is there.

use super::hw::{ALL_ONES, Hw};
use super::phy::{Phy, PhySharing};
use super::regs::{self, CTRL, STATUS, ctrl, status};
use crate::bus::BusError;
use crate::device::LinkState;

/// Registers of every gigabit PHY (IEEE 802.3 clause 22).
mod mii {
    pub(super) const BMCR: u32 = 0;
    pub(super) const ANAR: u32 = 4;
    pub(super) const ANLPAR: u32 = 5;
    pub(super) const BMCR_RESTART: u16 = 1 << 9;
    pub(super) const BMCR_ISOLATE: u16 = 1 << 10;
    pub(super) const BMCR_POWER_DOWN: u16 = 1 << 11;
    pub(super) const BMCR_AUTONEG: u16 = 1 << 12;
    pub(super) const PAUSE: u16 = 1 << 10;
    pub(super) const ASYMMETRIC: u16 = 1 << 11;
}

/// Who may ask whom to pause (IEEE 802.3 annex 31B).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FlowControl {
    /// Pause frames are neither sent nor obeyed: a full ring drops, and TCP slows down.
    #[default]
    Off,
    /// Pause frames are obeyed but not sent.
    Receive,
    /// Pause frames are sent but not obeyed.
    Transmit,
    /// Both, where the peer agrees.
    Full,
}

/// Pause frames as they are used on a link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PauseFrames {
    /// Those of the peer are obeyed.
    pub obeyed: bool,
    /// We send some when the packet buffer fills.
    pub sent: bool,
}

impl FlowControl {
    /// All that can be asked for.
    pub const ALL: [FlowControl; 4] =
        [FlowControl::Off, FlowControl::Receive, FlowControl::Transmit, FlowControl::Full];

    /// As a user writes it.
    pub const fn name(self) -> &'static str {
        match self {
            FlowControl::Off => "off",
            FlowControl::Receive => "rx",
            FlowControl::Transmit => "tx",
            FlowControl::Full => "full",
        }
    }

    /// Bits of ANAR that offer it (IEEE 802.3 table 28B-2).
    fn advertised(self) -> u16 {
        match self {
            FlowControl::Off => 0,
            FlowControl::Transmit => mii::ASYMMETRIC,
            FlowControl::Receive | FlowControl::Full => mii::PAUSE | mii::ASYMMETRIC,
        }
    }

    /// What both sides agreed on (IEEE 802.3 table 28B-3), as bits of CTRL.
    fn resolve(self, ours: u16, partner: u16) -> u32 {
        let symmetric = ours & partner & mii::PAUSE != 0;
        match self {
            FlowControl::Off => 0,
            FlowControl::Full if symmetric => ctrl::RFCE | ctrl::TFCE,
            FlowControl::Receive if symmetric => ctrl::RFCE,
            // The partner only sends pause frames; we obey them.
            FlowControl::Full | FlowControl::Receive
                if partner & mii::ASYMMETRIC != 0 && ours & mii::PAUSE != 0 =>
            {
                ctrl::RFCE
            }
            // The partner obeys pause frames, whether or not it sends some.
            FlowControl::Transmit
                if ours & partner & mii::ASYMMETRIC != 0 && partner & mii::PAUSE != 0 =>
            {
                ctrl::TFCE
            }
            FlowControl::Full | FlowControl::Receive | FlowControl::Transmit => 0,
        }
    }
}

/// Takes the PHY out of power-down and lets it negotiate speed, duplex and pause frames
/// (82576 §4.5.7 with the MAC following the PHY, CTRL.SLU).
pub(crate) fn start_negotiation(
    hw: &Hw,
    sharing: PhySharing,
    flow: FlowControl,
) -> Result<(), BusError> {
    hw.modify(CTRL, ctrl::ILOS | ctrl::FRCSPD | ctrl::FRCDPLX, ctrl::SLU | ctrl::FD);
    let phy = Phy::take(hw, sharing)?;
    let offered = phy.read(mii::ANAR)? & !(mii::PAUSE | mii::ASYMMETRIC);
    phy.write(mii::ANAR, offered | flow.advertised())?;
    let control = phy.read(mii::BMCR)? & !(mii::BMCR_POWER_DOWN | mii::BMCR_ISOLATE);
    phy.write(mii::BMCR, control | mii::BMCR_AUTONEG | mii::BMCR_RESTART)
}

/// Fill levels of a receive packet buffer of `buffer` bytes below which the peer may send again and
/// from which on it is asked to pause, for frames of up to `frame` bytes on the wire.
///
/// Above the high mark there is room for two of the largest frames (82576 §3.5.5): one that we
/// are sending when we ask for the pause, and one that the peer is sending when it gets the request.
/// Where the buffer is too small for that the high mark is its middle: a pause comes late then and
/// still helps, while one that is asked for at every frame would stop the link.
fn watermarks(buffer: u32, frame: u32) -> (u32, u32) {
    /// The registers hold multiples of 8 (82574) and of 16 bytes (82576 §8.5.5).
    const UNIT: u32 = 16;
    let high = buffer.saturating_sub(2 * frame).max(buffer / 2) / UNIT * UNIT;
    // One ordinary frame lower, so that the two kinds of request do not take turns.
    let low = high.saturating_sub(1500).max(high / 2) / UNIT * UNIT;
    (low, high)
}

/// Sets up pause frames as such (82576 §4.5.9, §3.5.5), for a receive packet buffer of `buffer`
/// bytes and frames of up to `frame`; whether they are used is for [`resolve_flow_control`].
pub(crate) fn configure_flow_control(hw: &Hw, flow: FlowControl, buffer: u32, frame: u32) {
    /// The reserved multicast address 01-80-C2-00-00-01 and EtherType 88-08 of MAC control frames.
    const PAUSE_ADDRESS: (u32, u32) = (0x00c2_8001, 0x0100);
    const PAUSE_TYPE: u32 = 0x8808;
    /// Pause time in units of 512 bit times: 0.9 ms at 1 Gbit/s.
    const PAUSE_TIME: u32 = 0x0680;
    const XON_ENABLE: u32 = 1 << 31;
    hw.write(regs::FCAL, PAUSE_ADDRESS.0);
    hw.write(regs::FCAH, PAUSE_ADDRESS.1);
    hw.write(regs::FCT, PAUSE_TYPE);
    hw.write(regs::FCTTV, PAUSE_TIME);
    let (low, high) = match flow {
        FlowControl::Off | FlowControl::Receive => (0, 0),
        FlowControl::Transmit | FlowControl::Full => {
            let (low, high) = watermarks(buffer, frame);
            (low | XON_ENABLE, high)
        }
    };
    hw.write(regs::FCRTL, low);
    hw.write(regs::FCRTH, high);
    hw.clear(CTRL, ctrl::RFCE | ctrl::TFCE);
}

/// Turns on what was negotiated. To be called when the link has come up.
pub(crate) fn resolve_flow_control(
    hw: &Hw,
    sharing: PhySharing,
    flow: FlowControl,
) -> Result<(), BusError> {
    let bits = match flow {
        FlowControl::Off => 0,
        FlowControl::Receive | FlowControl::Transmit | FlowControl::Full => {
            let phy = Phy::take(hw, sharing)?;
            flow.resolve(phy.read(mii::ANAR)?, phy.read(mii::ANLPAR)?)
        }
    };
    hw.modify(CTRL, ctrl::RFCE | ctrl::TFCE, bits);
    Ok(())
}

/// Pause frames as the MAC uses them; none while the device does not answer.
pub(crate) fn pause_frames(hw: &Hw) -> PauseFrames {
    match hw.read(CTRL) {
        ALL_ONES => PauseFrames::default(),
        bits => PauseFrames { obeyed: bits & ctrl::RFCE != 0, sent: bits & ctrl::TFCE != 0 },
    }
}

/// The link's state, as the MAC has it from the PHY. A device that is gone has none.
pub(crate) fn state(hw: &Hw) -> LinkState {
    let value = hw.read(STATUS);
    if value == ALL_ONES || value & status::LU == 0 {
        return LinkState { up: false, speed_mbps: None };
    }
    let speed_mbps = match value >> status::SPEED_SHIFT & 3 {
        0 => 10,
        1 => 100,
        _ => 1000,
    };
    LinkState { up: true, speed_mbps: Some(speed_mbps) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_asked_to_pause_while_there_is_room_and_never_always() {
        let kib = 1024;
        assert_eq!(watermarks(32 * kib, 1522), (28_208, 29_712), "igb");
        assert_eq!(watermarks(20 * kib, 1522), (15_920, 17_424), "82574");
        assert_eq!(watermarks(32 * kib, 9238), (14_880, 16_384), "igb with jumbo frames");
        assert_eq!(watermarks(20 * kib, 9238), (8_736, 10_240), "82574 with jumbo frames");
        for buffer in [8 * kib, 20 * kib, 64 * kib] {
            let (low, high) = watermarks(buffer, 9238);
            assert!(0 < low && low < high && high < buffer, "{buffer}: {low}, {high}");
        }
    }

    #[test]
    fn pause_frames_need_both_sides_to_agree() {
        let (both, asymmetric) = (mii::PAUSE | mii::ASYMMETRIC, mii::ASYMMETRIC);
        for (wanted, partner, bits) in [
            (FlowControl::Off, both, 0),
            (FlowControl::Full, both, ctrl::RFCE | ctrl::TFCE),
            (FlowControl::Full, mii::PAUSE, ctrl::RFCE | ctrl::TFCE),
            (FlowControl::Full, asymmetric, ctrl::RFCE),
            (FlowControl::Full, 0, 0),
            (FlowControl::Receive, both, ctrl::RFCE),
            (FlowControl::Receive, 0, 0),
            (FlowControl::Transmit, both, ctrl::TFCE),
            // A partner that obeys only if it may send, too, and one that only sends.
            (FlowControl::Transmit, mii::PAUSE, 0),
            (FlowControl::Transmit, asymmetric, 0),
        ] {
            assert_eq!(
                wanted.resolve(wanted.advertised(), partner),
                bits,
                "{wanted:?} {partner:#x}"
            );
        }
    }
}
