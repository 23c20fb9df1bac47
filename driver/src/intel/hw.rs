//! Register access with names, bounds and an eye for devices that have gone.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bus::{BusError, Function, Registers};

/// What a read of a device that is not there any more gives.
pub(crate) const ALL_ONES: u32 = u32::MAX;

/// Longest pause between two looks at a register that is waited for.
const POLL_PAUSE: Duration = Duration::from_micros(50);

/// A register by its data-sheet name, so that errors can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg {
    /// Byte offset in BAR 0.
    pub(crate) at: u32,
    /// Data-sheet name.
    pub(crate) name: &'static str,
}

impl Reg {
    pub(crate) const fn new(name: &'static str, at: u32) -> Reg {
        Reg { at, name }
    }

    /// Element `index` of an array of registers `stride` bytes apart.
    pub(crate) const fn nth(self, index: u32, stride: u32) -> Reg {
        Reg { at: self.at + index * stride, name: self.name }
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// In words, for the error.
    pub(crate) condition: &'static str,
    /// Bits to look at.
    pub(crate) mask: u32,
    /// What they have to be.
    pub(crate) value: u32,
    /// The bound.
    pub(crate) within: Duration,
}

/// A function of the bus and its registers.
#[derive(Clone, Debug)]
pub(crate) struct Hw {
    function: Arc<dyn Function>,
    registers: Arc<dyn Registers>,
}

impl Hw {
    pub(crate) fn new(function: Arc<dyn Function>) -> Hw {
        let registers = function.registers();
        Hw { function, registers }
    }

    pub(crate) fn function(&self) -> &Arc<dyn Function> {
        &self.function
    }

    pub(crate) fn read(&self, reg: Reg) -> u32 {
        self.registers.read(reg.at)
    }

    #[inline]
    pub(crate) fn write(&self, reg: Reg, value: u32) {
        self.registers.write(reg.at, value);
    }

    pub(crate) fn set(&self, reg: Reg, bits: u32) {
        self.write(reg, self.read(reg) | bits);
    }

    pub(crate) fn clear(&self, reg: Reg, bits: u32) {
        self.write(reg, self.read(reg) & !bits);
    }

    pub(crate) fn modify(&self, reg: Reg, clear: u32, set: u32) {
        self.write(reg, self.read(reg) & !clear | set);
    }

    /// Writes both halves of a 64-bit address.
    pub(crate) fn write_address(&self, low: Reg, high: Reg, address: u64) {
        self.write(low, address as u32);
        self.write(high, (address >> 32) as u32);
    }

    /// Waits until bits of a register are as wanted; gives what it read last.
    ///
    /// # Errors
    /// [`BusError::Timeout`] names the register; [`BusError::Gone`] if it reads all ones and the
    /// status register does so, too.
    pub(crate) fn wait(&self, reg: Reg, until: Until) -> Result<u32, BusError> {
        let start = Instant::now();
        loop {
            let value = self.read(reg);
            if value == ALL_ONES && self.is_gone() {
                return Err(BusError::Gone);
            }
            if value & until.mask == until.value {
                return Ok(value);
            }
            if start.elapsed() >= until.within {
                return Err(BusError::Timeout {
                    register: reg.name,
                    condition: until.condition,
                    waited: until.within,
                    value,
                });
            }
            thread::sleep(POLL_PAUSE);
        }
    }

    /// True if the kernel asked for the device back or no register answers.
    pub(crate) fn is_gone(&self) -> bool {
        self.function.is_gone() || self.read(super::regs::STATUS) == ALL_ONES
    }

    /// Posted writes have reached the device when this returns, and what it wrote to memory before
    /// is visible: a read pushes both before it (PCI Express Base §2.4.1).
    pub(crate) fn flush(&self) {
        let _ = self.read(super::regs::STATUS);
    }
}
