//! Bring-up of a virtual function: its address comes from the physical function's driver, by mail.
//!
//! ```text
//!   reset (VTCTRL.RST) ─▶ wait for RSTD ─▶ mail VF_RESET ─▶ wait for the ACK
//!                                       ◀─ mail: VF_RESET | ACK, address
//! ```
//!
//! A reset of the physical function takes the virtual one's queues and interrupts with it, and
//! nothing here brings them back: it has to be restarted then.
//!
//! 82576 data sheet §4.5.11 and §7.10.2.9; what the words mean is an agreement between drivers.

use std::thread;
use std::time::{Duration, Instant};

use super::Igb;
use super::regs::{self, EICR, EIMC, vf};
use crate::bus::BusError;
use crate::device::MacAddr;
use crate::intel::hw::ALL_ONES;
use crate::intel::regs::{CTRL, ctrl};

/// How long the physical function's driver has for an answer: it runs on another processor, and
/// has a link interrupt's work to do before it looks at its mail.
const MAIL_WAIT: Duration = Duration::from_secs(1);
const MAIL_PAUSE: Duration = Duration::from_millis(1);
/// How long to wait for the word that the physical function is up, which may have been said before.
const READY_WAIT: Duration = Duration::from_millis(20);
/// The reset of a virtual function (§4.3.2).
const RESET_PAUSE: Duration = Duration::from_millis(10);

/// The message that asks for a reset, and how its answer begins.
const VF_RESET: u32 = 0x01;
const MESSAGE_ACK: u32 = 0x8000_0000;

/// Bits of the mailbox register that reading clears, gathered until they are asked for.
struct Mailbox<'a> {
    igb: &'a Igb,
    seen: u32,
}

impl Mailbox<'_> {
    fn look(&mut self) -> u32 {
        let value = self.igb.hw.read(vf::V2PMAILBOX);
        if value != ALL_ONES {
            self.seen |= value & vf::READ_TO_CLEAR;
        }
        value
    }

    /// Waits for a bit that reading clears, and takes it.
    fn wait(
        &mut self,
        bit: u32,
        condition: &'static str,
        within: Duration,
    ) -> Result<(), BusError> {
        let start = Instant::now();
        loop {
            let value = self.look();
            if self.seen & bit != 0 {
                self.seen &= !bit;
                return Ok(());
            }
            if value == ALL_ONES && self.igb.hw.is_gone() {
                return Err(BusError::Gone);
            }
            if start.elapsed() >= within {
                let register = vf::V2PMAILBOX.name;
                return Err(BusError::Timeout { register, condition, waited: within, value });
            }
            thread::sleep(MAIL_PAUSE);
        }
    }

    /// Takes the buffer, which the physical function may hold (§7.10.2.9.1).
    fn lock(&mut self) -> Result<(), BusError> {
        let start = Instant::now();
        loop {
            self.igb.hw.write(vf::V2PMAILBOX, vf::VFU);
            let value = self.look();
            if value & vf::VFU != 0 && value != ALL_ONES {
                return Ok(());
            }
            if start.elapsed() >= MAIL_WAIT {
                let (register, condition) = (vf::V2PMAILBOX.name, "VFU");
                return Err(BusError::Timeout { register, condition, waited: MAIL_WAIT, value });
            }
            thread::sleep(MAIL_PAUSE);
        }
    }

    fn ask_for_reset(&mut self) -> Result<MacAddr, BusError> {
        let hw = &self.igb.hw;
        self.lock()?;
        self.seen &= !(vf::PFSTS | vf::PFACK);
        hw.write(vf::VMBMEM, VF_RESET);
        hw.write(vf::V2PMAILBOX, vf::REQ);
        self.wait(vf::PFACK, "PFACK to the reset message", MAIL_WAIT)?;
        self.wait(vf::PFSTS, "PFSTS, the answer to the reset message", MAIL_WAIT)?;
        self.lock()?;
        let words = [0, 1, 2].map(|i| hw.read(vf::VMBMEM.nth(i, 4)));
        hw.write(vf::V2PMAILBOX, vf::ACK);
        if words[0] != VF_RESET | MESSAGE_ACK {
            return Err(BusError::Unsupported(format!(
                "the physical function of {} refused the reset ({:#010x}): it gives its virtual \
                 functions no address; `ip link set DEV vf N mac …` does",
                hw.function().address(),
                words[0]
            )));
        }
        let [a, b, c, d] = words[1].to_le_bytes();
        let [e, f, ..] = words[2].to_le_bytes();
        Ok(MacAddr([a, b, c, d, e, f]))
    }
}

impl Igb {
    /// Brings a virtual function from any state to ready for its queue; gives its address.
    pub(super) fn bring_up_virtual(&self) -> Result<MacAddr, BusError> {
        let hw = &self.hw;
        if hw.is_gone() {
            return Err(BusError::Gone);
        }
        hw.write(EIMC, u32::MAX);
        hw.write(EICR, u32::MAX);
        let mut mailbox = Mailbox { igb: self, seen: 0 };
        hw.write(CTRL, ctrl::RST);
        thread::sleep(RESET_PAUSE);
        // A physical function that is up has said so before, and may not say it again: then the
        // mail shows whether it listens.
        match mailbox.wait(vf::RSTD, "RSTD", READY_WAIT) {
            Ok(()) | Err(BusError::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
        hw.function().set_bus_master(true)?;
        let mac = mailbox.ask_for_reset()?;
        hw.write(regs::EIAC, 0);
        self.init_virtual_interrupts();
        Ok(mac)
    }

    /// §8.14.5: vector 0 for the queue, 1 for mail.
    fn init_virtual_interrupts(&self) {
        let hw = &self.hw;
        let queue = regs::IVAR_VALID;
        hw.write(regs::IVAR, queue << 8 | queue);
        hw.write(regs::IVAR_MISC, regs::IVAR_VALID | 1);
        hw.write(regs::EIAC, 0b11);
        hw.write(regs::EIAM, 0b11);
        self.moderate(0, self.config.interrupt_interval_us);
    }
}
