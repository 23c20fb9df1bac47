//! Intel's gigabit controllers that are known and not driven, each with the reason, so that nobody
//! has to find out by a bring-up that fails.

/// Bring-up negotiates through a PHY behind MDIC; the SerDes of these is set up by other registers.
const NO_PHY: &str = "only cards with a copper PHY are driven";

/// An I354 is part of a processor: the board decides which PHY it has, if any, and where on which bus
/// that answers (MDICNFG), and the link is set up in the PCS registers. Nothing emulates that, so that
/// code for it would never have run.
const BY_PCS: &str = "its link depends on the board, and no emulation has it to test against";

/// Controllers by PCI device id.
const UNDRIVEN: &[(u16, &str, &str)] = &[
    (0x10a9, "82575EB fibre or serdes", NO_PHY),
    (0x10e6, "82576 fibre", NO_PHY),
    (0x10e7, "82576 serdes", NO_PHY),
    (0x150d, "82576 quad serdes", NO_PHY),
    (0x1518, "82576NS serdes", NO_PHY),
    (0x150f, "82580 fibre", NO_PHY),
    (0x1510, "82580 serdes", NO_PHY),
    (0x1511, "82580 SGMII", NO_PHY),
    (0x1527, "82580 quad fibre", NO_PHY),
    (0x1522, "I350 fibre", NO_PHY),
    (0x1523, "I350 serdes", NO_PHY),
    (0x1524, "I350 SGMII", NO_PHY),
    (0x1f40, "I354 backplane 1G", BY_PCS),
    (0x1f41, "I354 SGMII", BY_PCS),
    (0x1f45, "I354 backplane 2.5G", BY_PCS),
    (0x1536, "I210 fibre", NO_PHY),
    (0x1537, "I210 serdes", NO_PHY),
    (0x1538, "I210 SGMII", NO_PHY),
    (0x157c, "I210 serdes, no flash", NO_PHY),
    (0x105f, "82571EB fibre", NO_PHY),
];

/// Name of the device with this id and why it is not driven, if it is one of these.
pub(crate) fn undriven(vendor: u16, device: u16) -> Option<(&'static str, &'static str)> {
    let found = UNDRIVEN.iter().find(|(id, ..)| vendor == super::VENDOR && *id == device);
    found.map(|&(_, name, why)| (name, why))
}
