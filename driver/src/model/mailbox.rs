//! A virtual function's mailbox, and the driver of the physical function behind it (82576 §7.10.2.9):
//! as much of it as answers a reset and a wish for long frames.

use super::nic::State;
use super::registers::{self as reg, vf};

/// Bits of V2PMAILBOX.
const REQ: u32 = 1 << 0;
const ACK: u32 = 1 << 1;
const VFU: u32 = 1 << 2;
const PFU: u32 = 1 << 3;
const PFSTS: u32 = 1 << 4;
const PFACK: u32 = 1 << 5;
const RSTI: u32 = 1 << 6;
const RSTD: u32 = 1 << 7;
const READ_TO_CLEAR: u32 = PFSTS | PFACK | RSTD;

/// What the words mean between the drivers.
const RESET: u32 = 0x01;
const SET_LPE: u32 = 0x05;
const GREETING: u32 = 0x100;
const ACCEPTED: u32 = 1 << 31;
const REFUSED: u32 = 1 << 30;
const CTS: u32 = 1 << 29;

/// Bytes of the longest frame that is let in without a word.
const ORDINARY: u32 = 1522;

/// The physical function, as far as a virtual one sees it, and how it misbehaves.
#[derive(Clone, Debug)]
pub struct Mail {
    /// It does not answer.
    pub silent: bool,
    /// It has no address to give.
    pub refuses_address: bool,
    /// It lets nobody have long frames.
    pub refuses_long_frames: bool,
    /// It has the buffer, and does not let go of it.
    pub holds_buffer: bool,
    /// V2PMAILBOX.
    register: u32,
    /// The virtual function has asked for its reset: it may send and receive, and is listened to.
    pub(super) admitted: bool,
    /// Bytes of the longest frame that is let in.
    pub(super) longest: u32,
}

impl Default for Mail {
    fn default() -> Mail {
        Mail {
            silent: false,
            refuses_address: false,
            refuses_long_frames: false,
            holds_buffer: false,
            // The physical function was up before.
            register: RSTD,
            admitted: false,
            longest: ORDINARY,
        }
    }
}

impl Mail {
    /// Bytes of the longest frame that is let in.
    pub fn longest(&self) -> u32 {
        self.longest
    }

    /// What the virtual function agreed upon with its physical one ends with a reset of either.
    pub(super) fn forget(&mut self) {
        self.admitted = false;
        self.longest = ORDINARY;
        self.register &= RSTI | RSTD;
    }

    pub(super) fn begin_reset(&mut self) {
        self.forget();
        self.register = RSTI;
    }

    pub(super) fn end_reset(&mut self) {
        self.register = self.register & !RSTI | RSTD;
    }
}

impl State {
    pub(super) fn read_mailbox(&mut self) -> u32 {
        let value = self.mail.register | if self.mail.holds_buffer { PFU } else { 0 };
        self.mail.register &= !READ_TO_CLEAR;
        value
    }

    /// Gives the vectors that an answer makes the device send.
    pub(super) fn write_mailbox(&mut self, value: u32) -> u32 {
        if value & VFU != 0 && !self.mail.holds_buffer {
            self.mail.register |= VFU;
        }
        if value & (REQ | ACK) == 0 {
            return 0;
        }
        if self.mail.register & VFU == 0 {
            self.violation("a message without the buffer".into());
        }
        // Both let go of the buffer.
        self.mail.register &= !VFU;
        let listens = !self.mail.silent && self.mail.register & RSTI == 0;
        if value & REQ == 0 || !listens {
            return 0;
        }
        self.mail.register |= PFACK;
        self.answer();
        self.say()
    }

    /// What the physical function's driver makes of the message in the buffer.
    fn answer(&mut self) {
        let (kind, word) = (self.file.get(vf::VMBMEM), self.file.get(vf::VMBMEM + 4));
        let accepted = match kind {
            RESET => !self.mail.refuses_address,
            SET_LPE => self.mail.admitted && !self.mail.refuses_long_frames,
            _ => false,
        };
        match (kind, accepted) {
            (RESET, true) => {
                let [a, b, c, d, e, f] = self.mac.0;
                self.mail.admitted = true;
                self.file.set(vf::VMBMEM + 4, u32::from_le_bytes([a, b, c, d]));
                self.file.set(vf::VMBMEM + 8, u32::from_le_bytes([e, f, 0, 0]));
            }
            (SET_LPE, true) => self.mail.longest = word,
            _ => {}
        }
        let verdict = if accepted { ACCEPTED } else { REFUSED };
        self.file.set(vf::VMBMEM, kind | verdict | if kind == RESET { 0 } else { CTS });
    }

    pub(super) fn greet(&mut self, clear_to_send: bool) -> u32 {
        self.file.set(vf::VMBMEM, GREETING | if clear_to_send { CTS } else { 0 });
        self.say()
    }

    pub(super) fn scribble_mail(&mut self, register: u32, words: [u32; 3]) {
        self.mail.register = register;
        for (offset, word) in (vf::VMBMEM..).step_by(4).zip(words) {
            self.file.set(offset, word);
        }
    }

    /// Tells the virtual function that there is a message (82576 §8.14.5: its cause of its own).
    fn say(&mut self) -> u32 {
        self.mail.register |= PFSTS;
        self.raise_entry(self.file.get(reg::IVAR_MISC) & 0xff)
    }
}
