//! The PHY behind MDIC, which the driver shares with firmware and with the drivers of the
//! controller's other functions: whoever uses it says so first.
//!
//! ```text
//!   igb        SWSM.SMBI ─▶ SWSM.SWESMBI ─▶ the PHY's bit in SW_FW_SYNC ─▶ SWSM let go ─▶ MDIC
//!   82571      SWSM.SMBI ─▶ SWSM.SWESMBI ─▶ MDIC
//!   82574      EXTCNF_CTRL.MDIO_SW_OWNERSHIP ─▶ MDIC
//! ```
//!
//! 82576 data sheet §4.7, 82574 §4.6.3.2.

use std::thread;
use std::time::{Duration, Instant};

use super::hw::{Hw, Reg, Until};
use super::regs::{EXTCNF_CTRL, MDIC, STATUS, SW_FW_SYNC, SWSM, extcnf, status, sw_fw_sync, swsm};
use crate::bus::BusError;

/// How long another driver or the firmware may hold one of the semaphores in SWSM, which are for
/// a few register accesses.
const SEMAPHORE_WAIT: Duration = Duration::from_millis(50);
/// How long the firmware may hold the PHY itself.
const OWNER_WAIT: Duration = Duration::from_millis(200);
const OWNER_PAUSE: Duration = Duration::from_millis(2);

/// How long one access to the PHY may take; 64 µs at the MDIO clock (82576 §3.6.1.3).
const MDIC_WAIT: Duration = Duration::from_millis(10);

/// Attempts at a PHY register that reports an error, which a PHY just out of reset may do.
const MDIC_ATTEMPTS: u32 = 3;

/// Address of the internal PHY.
const PHY_ADDRESS: u32 = 1 << 21;

/// Bits of MDIC (82576 §8.2.4).
mod mdic {
    pub(super) const REG_SHIFT: u32 = 16;
    pub(super) const OP_WRITE: u32 = 1 << 26;
    pub(super) const OP_READ: u32 = 2 << 26;
    pub(super) const READY: u32 = 1 << 28;
    pub(super) const ERROR: u32 = 1 << 30;
}

/// How a controller's PHY is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhySharing {
    /// By a bit for each function in SW_FW_SYNC.
    SwFwSync,
    /// By SWSM for as long as it is used.
    Swsm,
    /// By a bit in EXTCNF_CTRL.
    Extcnf,
}

/// The PHY, taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Phy<'a> {
    hw: &'a Hw,
    sharing: PhySharing,
}

impl<'a> Phy<'a> {
    /// Takes the PHY.
    ///
    /// # Errors
    /// [`BusError::Timeout`] names the register in which somebody else holds it.
    pub(crate) fn take(hw: &'a Hw, sharing: PhySharing) -> Result<Phy<'a>, BusError> {
        match sharing {
            PhySharing::SwFwSync => take_sync_bit(hw)?,
            PhySharing::Swsm => take_swsm(hw)?,
            PhySharing::Extcnf => {
                let bit = extcnf::MDIO_SW_OWNERSHIP;
                insist(hw, EXTCNF_CTRL, bit, "MDIO_SW_OWNERSHIP", OWNER_WAIT)?;
            }
        }
        Ok(Phy { hw, sharing })
    }

    fn access(&self, register: u32, operation: u32, data: u16) -> Result<u16, BusError> {
        let command = register << mdic::REG_SHIFT | PHY_ADDRESS | operation | u32::from(data);
        let until = Until {
            condition: "READY after a PHY access",
            mask: mdic::READY,
            value: mdic::READY,
            within: MDIC_WAIT,
        };
        let mut value = 0;
        for _ in 0..MDIC_ATTEMPTS {
            self.hw.write(MDIC, command);
            value = self.hw.wait(MDIC, until)?;
            if value & mdic::ERROR == 0 {
                return Ok(value as u16);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(BusError::Timeout {
            register: MDIC.name,
            condition: "a PHY access without ERROR",
            waited: MDIC_WAIT,
            value,
        })
    }

    /// Reads a register of the PHY.
    pub(crate) fn read(&self, register: u32) -> Result<u16, BusError> {
        self.access(register, mdic::OP_READ, 0)
    }

    /// Writes a register of the PHY.
    pub(crate) fn write(&self, register: u32, value: u16) -> Result<(), BusError> {
        self.access(register, mdic::OP_WRITE, value).map(|_| ())
    }
}

impl Drop for Phy<'_> {
    fn drop(&mut self) {
        let hw = self.hw;
        match self.sharing {
            PhySharing::SwFwSync => {
                // Without the semaphore others' bits may change between the read and the write; the
                // PHY would stay taken if it were not tried.
                let guarded = take_swsm(hw).is_ok();
                hw.clear(SW_FW_SYNC, own_bit(hw));
                if guarded {
                    release_swsm(hw);
                }
            }
            PhySharing::Swsm => release_swsm(hw),
            PhySharing::Extcnf => hw.clear(EXTCNF_CTRL, extcnf::MDIO_SW_OWNERSHIP),
        }
    }
}

/// Takes back what a killed process may have held: the function is ours alone, and so are its
/// semaphores. Others' bits stay.
pub(crate) fn recover(hw: &Hw, sharing: PhySharing) {
    match sharing {
        PhySharing::SwFwSync | PhySharing::Swsm => {
            if take_swsm(hw).is_err() {
                // Held for longer than any driver does: whoever had it is dead.
                release_swsm(hw);
                if take_swsm(hw).is_err() {
                    // The firmware has it, which the next one to take the PHY is told.
                    return;
                }
            }
            if sharing == PhySharing::SwFwSync {
                hw.clear(SW_FW_SYNC, own_bit(hw));
            }
            release_swsm(hw);
        }
        PhySharing::Extcnf => hw.clear(EXTCNF_CTRL, extcnf::MDIO_SW_OWNERSHIP),
    }
}

/// The bit of this function's PHY in SW_FW_SYNC; the firmware's stands sixteen bits above.
fn own_bit(hw: &Hw) -> u32 {
    let function = hw.read(STATUS) >> status::LAN_ID_SHIFT & 3;
    sw_fw_sync::PHY[function as usize]
}

fn take_sync_bit(hw: &Hw) -> Result<(), BusError> {
    let start = Instant::now();
    let own = own_bit(hw);
    loop {
        take_swsm(hw)?;
        let value = hw.read(SW_FW_SYNC);
        let free = value & (own | own << sw_fw_sync::FIRMWARE_SHIFT) == 0;
        if free {
            hw.write(SW_FW_SYNC, value | own);
        }
        release_swsm(hw);
        if free {
            return Ok(());
        }
        if start.elapsed() >= OWNER_WAIT {
            return Err(BusError::Timeout {
                register: SW_FW_SYNC.name,
                condition: "a free PHY",
                waited: OWNER_WAIT,
                value,
            });
        }
        thread::sleep(OWNER_PAUSE);
    }
}

/// Takes both semaphores of SWSM: the one among drivers, which reading takes, then the one with
/// the firmware, which takes a write that sticks.
fn take_swsm(hw: &Hw) -> Result<(), BusError> {
    let until =
        Until { condition: "SMBI free", mask: swsm::SMBI, value: 0, within: SEMAPHORE_WAIT };
    hw.wait(SWSM, until)?;
    insist(hw, SWSM, swsm::SWESMBI, "SWESMBI", SEMAPHORE_WAIT).inspect_err(|_| release_swsm(hw))
}

fn release_swsm(hw: &Hw) {
    hw.clear(SWSM, swsm::SMBI | swsm::SWESMBI);
}

/// Sets a bit until it sticks.
fn insist(
    hw: &Hw,
    register: Reg,
    bit: u32,
    condition: &'static str,
    within: Duration,
) -> Result<(), BusError> {
    let start = Instant::now();
    loop {
        hw.set(register, bit);
        let value = hw.read(register);
        if value & bit != 0 {
            return if hw.is_gone() { Err(BusError::Gone) } else { Ok(()) };
        }
        if start.elapsed() >= within {
            let register = register.name;
            return Err(BusError::Timeout { register, condition, waited: within, value });
        }
        thread::sleep(OWNER_PAUSE);
    }
}
