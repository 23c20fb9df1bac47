//! Which frames are let in: addresses, multicast groups, VLANs, and the modes that let in more
//! (82576 §7.1.1; the 82574 has the same tables).

use super::hw::Hw;
use super::nic::station_words;
use super::regs::{self, MTA, RAH, RAL, RCTL, VFTA, rctl};
use crate::device::MacAddr;

/// Addresses and modes that frames are let in by.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    /// Beside the device's own.
    pub(super) stations: Vec<MacAddr>,
    pub(super) multicast: Vec<MacAddr>,
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) vlans: Vec<u16>,
}

impl Filters {
    /// Writes the filters to RAL/RAH, MTA, VFTA and RCTL (82576 §7.1.1).
    pub(super) fn apply(&self, hw: &Hw) {
        let stations = self.stations.iter().map(Some).chain(std::iter::repeat(None));
        for (i, station) in (1..regs::STATION_ADDRESSES).zip(stations) {
            let (low, high) = station.map_or((0, 0), |mac| station_words(*mac));
            hw.write(RAH.nth(i, 8), 0);
            hw.write(RAL.nth(i, 8), low);
            hw.write(RAH.nth(i, 8), high);
        }
        let mut table = [0u32; regs::TABLE_WORDS as usize];
        for mac in &self.multicast {
            let hash = multicast_hash(*mac);
            table[usize::from(hash >> 5)] |= 1 << (hash & 31);
        }
        for (i, word) in (0..).zip(table) {
            hw.write(MTA.nth(i, 4), word);
        }
        let mut vlans = [0u32; regs::TABLE_WORDS as usize];
        for vlan in &self.vlans {
            vlans[usize::from(vlan >> 5 & 127)] |= 1 << (vlan & 31);
        }
        for (i, word) in (0..).zip(vlans) {
            hw.write(VFTA.nth(i, 4), word);
        }
        let mut bits = 0;
        if self.promiscuous {
            bits |= rctl::UPE | rctl::MPE;
        }
        if self.all_multicast {
            bits |= rctl::MPE;
        }
        if !self.vlans.is_empty() {
            bits |= rctl::VFE;
        }
        hw.modify(RCTL, rctl::UPE | rctl::MPE | rctl::VFE, bits);
    }
}

/// The bit of the multicast table that an address falls on, with RCTL.MO = 0: bits 47 to 36
/// (82576 §8.10.17).
fn multicast_hash(mac: MacAddr) -> u16 {
    u16::from(mac.0[4]) >> 4 | u16::from(mac.0[5]) << 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multicast_address_falls_on_its_bit() {
        // Bits 47 to 36 of the address, byte 5 being the highest.
        assert_eq!(multicast_hash(MacAddr([0x01, 0, 0x5e, 0, 0x10, 0x00])), 1);
        assert_eq!(multicast_hash(MacAddr([0x01, 0, 0x5e, 0, 0x00, 0x01])), 16);
        assert_eq!(multicast_hash(MacAddr::BROADCAST), 0xfff);
    }
}
