//! A virtual function: bring-up, and coming back when its physical function was reset.
//!
//! ```text
//!   reset (VTCTRL.RST) ─▶ mail: VF_RESET, answered with an address ─▶ interrupts ─▶ queues
//!        ▲                                                                            │
//!        └────── the physical function is reset, and takes queues and vectors with it ┘
//! ```
//!
//! What happens by mail is in `mailbox`; here is what follows from it. Queues are started anew by
//! their engines, which look at [`Standing`].

use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Igb;
use super::mailbox::{ANSWER_WAIT, Mailbox, Refusal};
use super::regs::{self, EICR, EIMC, EIMS, vf};
use crate::bus::BusError;
use crate::device::{DeviceError, MacAddr};
use crate::intel::device_error;
use crate::intel::hw::ALL_ONES;
use crate::intel::nic::Standing;

/// Longest MTU that a physical function lets in without being asked (82576, VMOLR after a reset).
pub(super) const PLAIN_MTU: u16 = 1500;

/// How long bring-up goes on asking: twice the time of one attempt and some more.
const BRING_UP_WAIT: Duration = Duration::from_millis(2 * ANSWER_WAIT.as_millis() as u64 + 100);
const BRING_UP_PAUSE: Duration = Duration::from_millis(1);

/// Vector of everything but the queue.
const MAIL_VECTOR: u32 = 1;

impl Igb {
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // Plain data, whole after every statement.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a virtual function from any state to ready for its queue; gives its address.
    pub(super) fn bring_up_virtual(&self) -> Result<MacAddr, DeviceError> {
        let hw = &self.hw;
        if hw.is_gone() {
            return Err(device_error(BusError::Gone));
        }
        hw.write(EIMC, u32::MAX);
        hw.write(EICR, u32::MAX);
        hw.function().set_bus_master(true).map_err(device_error)?;
        let mut mailbox = self.mailbox();
        let start = Instant::now();
        let address = loop {
            let value = mailbox.advance(hw, Instant::now()).map_err(|refusal| match refusal {
                Refusal::LongFrames => DeviceError::Mtu {
                    device: hw.function().address(),
                    wanted: self.config.mtu,
                    most: PLAIN_MTU,
                    why: "it is a virtual function, whose physical function refuses longer frames",
                },
                Refusal::NoAddress(_) | Refusal::NobodysAddress(_) | Refusal::OtherAddress(_) => {
                    device_error(refusal.error(hw))
                }
            })?;
            if let (true, Some(address)) = (mailbox.is_up(), mailbox.address()) {
                break address;
            }
            if value == ALL_ONES && hw.is_gone() {
                return Err(device_error(BusError::Gone));
            }
            if start.elapsed() >= BRING_UP_WAIT {
                return Err(device_error(BusError::Timeout {
                    register: vf::V2PMAILBOX.name,
                    condition: mailbox.awaited(),
                    waited: BRING_UP_WAIT,
                    value,
                }));
            }
            thread::sleep(BRING_UP_PAUSE);
        };
        self.init_virtual_interrupts();
        Ok(address)
    }

    /// Goes on with the mail, and says whether the queue may be used.
    pub(super) fn stand(&self) -> Result<Standing, BusError> {
        let mut mailbox = self.mailbox();
        let before = mailbox.is_up();
        match mailbox.advance(&self.hw, Instant::now()) {
            Err(refusal) if !refusal.may_pass() => return Err(refusal.error(&self.hw)),
            Ok(_) | Err(_) => {}
        }
        match (before, mailbox.is_up()) {
            (_, false) => Ok(Standing::Lost),
            (false, true) => {
                self.init_virtual_interrupts();
                Ok(Standing::Working)
            }
            (true, true) => Ok(Standing::Working),
        }
    }

    /// §8.14.5: vector 0 for the queue, 1 for mail.
    pub(super) fn init_virtual_interrupts(&self) {
        let hw = &self.hw;
        let queue = regs::IVAR_VALID;
        hw.write(regs::IVAR, queue << 8 | queue);
        hw.write(regs::IVAR_MISC, regs::IVAR_VALID | MAIL_VECTOR);
        hw.write(regs::EIAC, 0b11);
        hw.write(regs::EIAM, 0b11);
        self.moderate(0, self.config.interrupt_interval_us);
        hw.write(EIMS, 1 << MAIL_VECTOR);
    }
}
