//! The PHY behind MDIC, and the semaphores that have to be held before it is used (82576 §4.7, 82574
//! §4.6.3.2).

use super::nic::State;
use super::registers::{self as reg, Kind};

/// Registers of the PHY, and who has it.
#[derive(Debug, Default)]
pub(super) struct Phy {
    pub(super) registers: [u16; 32],
    /// SWSM, SW_FW_SYNC and the one bit of EXTCNF_CTRL that matters: no reset of the MAC's clears
    /// them.
    swsm: u32,
    sync: u32,
    owned: bool,
}

impl Phy {
    /// After power-up: powered down, so that a driver has to wake it.
    pub(super) fn power_on(&mut self) {
        self.registers[0] = 1 << 11;
        self.registers[4] = 0x01e1;
        self.registers[5] = 0x0de1;
    }

    /// It is awake and negotiates.
    pub(super) fn negotiates(&self) -> bool {
        self.registers[0] & 1 << 12 != 0 && self.registers[0] & 1 << 11 == 0
    }
}

impl State {
    /// Reads a register of semaphores; `None` for any other register.
    pub(super) fn read_semaphore(&mut self, offset: u32) -> Option<u32> {
        match (self.kind, offset) {
            (Kind::I82575 | Kind::I82576, reg::SWSM) => {
                // Reading takes it.
                let before = self.phy.swsm;
                self.phy.swsm |= reg::SMBI;
                Some(before)
            }
            (Kind::I82575 | Kind::I82576, reg::SW_FW_SYNC) => {
                let firmware = if self.faults.phy_is_held { reg::SYNC_PHY << 16 } else { 0 };
                Some(self.phy.sync | firmware)
            }
            (Kind::I82574, reg::EXTCNF_CTRL) => {
                Some(if self.phy.owned { reg::MDIO_SW_OWNERSHIP } else { 0 })
            }
            (Kind::I82575 | Kind::I82576 | Kind::I82574 | Kind::Virtual, _) => None,
        }
    }

    /// True if it was a register of semaphores.
    pub(super) fn write_semaphore(&mut self, offset: u32, value: u32) -> bool {
        match (self.kind, offset) {
            (Kind::I82575 | Kind::I82576, reg::SWSM) => {
                self.phy.swsm = value & (reg::SMBI | reg::SWESMBI);
            }
            (Kind::I82575 | Kind::I82576, reg::SW_FW_SYNC) => {
                if self.phy.swsm & reg::SWESMBI == 0 {
                    self.violation("SW_FW_SYNC was written without SWSM".into());
                }
                self.phy.sync = value & 0xffff;
            }
            (Kind::I82574, reg::EXTCNF_CTRL) => {
                self.phy.owned = value & reg::MDIO_SW_OWNERSHIP != 0 && !self.faults.phy_is_held;
            }
            (Kind::I82575 | Kind::I82576 | Kind::I82574 | Kind::Virtual, _) => return false,
        }
        true
    }

    /// Somebody has taken the semaphores and died.
    pub(super) fn strand_semaphores(&mut self) {
        match self.kind {
            Kind::I82575 | Kind::I82576 => {
                (self.phy.swsm, self.phy.sync) = (reg::SMBI, reg::SYNC_PHY)
            }
            Kind::I82574 => self.phy.owned = true,
            Kind::Virtual => {}
        }
    }

    /// True if nobody has the PHY.
    pub(super) fn semaphores_are_free(&self) -> bool {
        self.phy.swsm == 0 && self.phy.sync == 0 && !self.phy.owned
    }

    /// Gives the vectors that it makes the device send.
    pub(super) fn write_mdic(&mut self, value: u32) -> u32 {
        const READY: u32 = 1 << 28;
        const ERROR: u32 = 1 << 30;
        if self.faults.phy_is_silent {
            self.file.set(reg::MDIC, value & !READY);
            return 0;
        }
        let held = match self.kind {
            Kind::I82575 | Kind::I82576 => self.phy.sync & reg::SYNC_PHY != 0,
            Kind::I82574 => self.phy.owned,
            Kind::Virtual => false,
        };
        if !held {
            self.violation("MDIC was used by somebody who has not got the PHY".into());
        }
        let register = (value >> 16 & 31) as usize;
        let (phy, operation) = (value >> 21 & 31, value >> 26 & 3);
        let before = self.link_up();
        let answer = match (phy, operation) {
            (1, 2) => value & !0xffff | u32::from(self.phy.registers[register]),
            (1, 1) => {
                // Restart and reset end by themselves.
                let kept = if register == 0 { !(1 << 9 | 1 << 15) } else { !0 };
                self.phy.registers[register] = value as u16 & kept;
                value
            }
            _ => value | ERROR,
        };
        self.file.set(reg::MDIC, answer | READY);
        if self.link_up() == before { 0 } else { self.raise_link_change() }
    }
}
