//! The mailbox of a virtual function: how it gets its address and its queues back, step by step.
//!
//! ```text
//!   Down ──▶ Settling ──▶ Asking ──▶ Asked ──▶ Stretching ──▶ Stretched ──▶ Up
//!    while    VTCTRL.RST   for the    VF_RESET   for the       VF_SET_LPE
//!    RSTI                  buffer     answered:  buffer        answered
//!                                     address
//!   any ──▶ Down      RSTI or RSTD: the physical function was reset; no answer in time
//!   Up ──▶ Down       a word without CTS: its driver has begun anew
//!   any ──▶ Refused   and after a while Down again
//! ```
//!
//! No step waits: the physical function's driver may be seconds away from its next answer, and the
//! engine that asks has other things to do. Bring-up takes the same steps in a loop with a bound.
//!
//! 82576 data sheet §4.5.11 and §7.10.2.9; what the words mean is an agreement between drivers.

use std::time::{Duration, Instant};

use super::regs::vf;
use crate::bus::BusError;
use crate::device::MacAddr;
use crate::intel::hw::{ALL_ONES, Hw};
use crate::intel::regs::{CTRL, ctrl};

/// How long the physical function's driver has for an answer: it runs on another processor, and
/// has a link interrupt's work to do before it looks at its mail.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The reset of a virtual function (§4.3.2).
const RESET_PAUSE: Duration = Duration::from_millis(10);

/// Messages, and the bits that answers have on top of them.
const VF_RESET: u32 = 0x01;
const VF_SET_LPE: u32 = 0x05;
const ACK: u32 = 0x8000_0000;
const NACK: u32 = 0x4000_0000;
/// The physical function takes messages of this virtual one.
const CTS: u32 = 0x2000_0000;

/// Where the exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The queues are off and nothing has been asked for.
    Down,
    /// The function's own reset has been triggered.
    Settling(Instant),
    /// Waits for the mailbox's buffer.
    Asking(Instant),
    /// The reset has been asked for.
    Asked(Instant),
    /// Waits for the buffer to ask for long frames.
    Stretching(Instant),
    /// Long frames have been asked for.
    Stretched(Instant),
    /// The queues may be used.
    Up,
    /// The physical function wants none of it for now.
    Refused(Instant),
}

/// The exchange with the physical function's driver.
#[derive(Debug)]
pub(super) struct Mailbox {
    step: Step,
    /// Bits of the register that reading clears, until they have been acted upon.
    seen: u32,
    /// Bytes of the longest frame, if that is more than a physical function lets in by itself.
    long_frames: Option<u32>,
    address: Option<MacAddr>,
}

impl Mailbox {
    pub(super) fn new(long_frames: Option<u32>) -> Mailbox {
        Mailbox { step: Step::Down, seen: 0, long_frames, address: None }
    }

    /// The queues may be used.
    pub(super) fn is_up(&self) -> bool {
        self.step == Step::Up
    }

    /// The address that the physical function gave.
    pub(super) fn address(&self) -> Option<MacAddr> {
        self.address
    }

    /// What is waited for, in words.
    pub(super) fn awaited(&self) -> &'static str {
        match self.step {
            Step::Down => "the end of the physical function's reset (RSTI)",
            Step::Settling(_) | Step::Up | Step::Refused(_) => {
                "the end of the function's own reset"
            }
            Step::Asking(_) | Step::Stretching(_) => "VFU",
            Step::Asked(_) => "PFSTS, the answer to the reset message",
            Step::Stretched(_) => "PFSTS, the answer to the message about long frames",
        }
    }

    /// Goes on as far as that is possible without waiting; gives what the register reads.
    ///
    /// # Errors
    /// [`Refusal`]: the physical function does not want it so, now.
    pub(super) fn advance(&mut self, hw: &Hw, now: Instant) -> Result<u32, Refusal> {
        let value = self.look(hw);
        if value == ALL_ONES {
            return Ok(value);
        }
        // It takes everything with it that was agreed upon.
        let resetting = value & vf::RSTI != 0;
        if self.take(vf::RSTD) || resetting {
            let was_down = self.step == Step::Down;
            self.step = Step::Down;
            if !was_down || resetting {
                return Ok(value);
            }
        }
        // What is said and changes nothing does not keep time from passing.
        self.step = match self.exchange(hw, now)? {
            Some(next) if next != self.step => next,
            Some(_) | None => self.bide(hw, now),
        };
        Ok(value)
    }

    /// The step that follows if the buffer can be had and there is something to write to it or to
    /// read from it.
    fn exchange(&mut self, hw: &Hw, now: Instant) -> Result<Option<Step>, Refusal> {
        let due = match self.step {
            Step::Asking(_) | Step::Stretching(_) => true,
            Step::Asked(_) | Step::Stretched(_) | Step::Up => self.seen & vf::PFSTS != 0,
            Step::Down | Step::Settling(_) | Step::Refused(_) => false,
        };
        if !due || !self.take_buffer(hw) {
            return Ok(None);
        }
        match self.step {
            Step::Asking(_) => {
                self.send(hw, &[VF_RESET]);
                Ok(Some(Step::Asked(now)))
            }
            Step::Stretching(_) => {
                self.send(hw, &[VF_SET_LPE, self.long_frames.unwrap_or(0)]);
                Ok(Some(Step::Stretched(now)))
            }
            Step::Asked(_) | Step::Stretched(_) => {
                let words = self.receive(hw);
                self.answered(words, now).map(Some)
            }
            Step::Up => {
                // A physical function whose driver has begun anew greets without CTS, and goes by
                // nothing that it was told before.
                let clear_to_send = self.receive(hw)[0] & CTS != 0;
                Ok(Some(if clear_to_send { Step::Up } else { Step::Down }))
            }
            Step::Down | Step::Settling(_) | Step::Refused(_) => Ok(None),
        }
    }

    /// The step that follows from nothing but time.
    fn bide(&self, hw: &Hw, now: Instant) -> Step {
        let waited = |since: Instant, time| now.saturating_duration_since(since) >= time;
        match self.step {
            Step::Down => {
                hw.write(CTRL, ctrl::RST);
                Step::Settling(now)
            }
            Step::Settling(since) if waited(since, RESET_PAUSE) => Step::Asking(now),
            Step::Asking(since)
            | Step::Asked(since)
            | Step::Stretching(since)
            | Step::Stretched(since)
            | Step::Refused(since)
                if waited(since, ANSWER_WAIT) =>
            {
                Step::Down
            }
            same @ (Step::Settling(_)
            | Step::Asking(_)
            | Step::Asked(_)
            | Step::Stretching(_)
            | Step::Stretched(_)
            | Step::Refused(_)
            | Step::Up) => same,
        }
    }

    /// Reads the register, which clears some of its bits.
    fn look(&mut self, hw: &Hw) -> u32 {
        let value = hw.read(vf::V2PMAILBOX);
        if value != ALL_ONES {
            self.seen |= value & vf::READ_TO_CLEAR;
        }
        value
    }

    /// True if the bit was seen, which it is once.
    fn take(&mut self, bit: u32) -> bool {
        let seen = self.seen & bit != 0;
        self.seen &= !bit;
        seen
    }

    /// Takes the mailbox's buffer, unless the physical function has it (§7.10.2.9.1).
    fn take_buffer(&mut self, hw: &Hw) -> bool {
        hw.write(vf::V2PMAILBOX, vf::VFU);
        let value = self.look(hw);
        value & vf::VFU != 0 && value != ALL_ONES
    }

    /// Writes a message to the buffer, which is ours, and lets go of it. What the physical function
    /// has said before is overwritten, and is no answer.
    fn send(&mut self, hw: &Hw, words: &[u32]) {
        self.seen &= !(vf::PFSTS | vf::PFACK);
        for (i, word) in (0..).zip(words) {
            hw.write(vf::VMBMEM.nth(i, 4), *word);
        }
        hw.write(vf::V2PMAILBOX, vf::REQ);
    }

    /// Reads a message from the buffer, which is ours, and lets go of it. No more than three words
    /// of it mean anything.
    fn receive(&mut self, hw: &Hw) -> [u32; 3] {
        self.seen &= !vf::PFSTS;
        let words = [0, 1, 2].map(|i| hw.read(vf::VMBMEM.nth(i, 4)));
        hw.write(vf::V2PMAILBOX, vf::ACK);
        words
    }

    /// The step that follows from an answer, or from something else that the physical function says.
    fn answered(&mut self, words: [u32; 3], now: Instant) -> Result<Step, Refusal> {
        let (kind, accepted) = (words[0] & 0xffff, words[0] & ACK != 0);
        let refused = words[0] & NACK != 0;
        match self.step {
            Step::Asked(_) if kind == VF_RESET && accepted => {
                let [a, b, c, d] = words[1].to_le_bytes();
                let [e, f, ..] = words[2].to_le_bytes();
                let address = MacAddr([a, b, c, d, e, f]);
                if address == MacAddr::default() || address.is_group() {
                    return self.refuse(Refusal::NobodysAddress(address), now);
                }
                if *self.address.get_or_insert(address) != address {
                    return self.refuse(Refusal::OtherAddress(address), now);
                }
                Ok(if self.long_frames.is_some() { Step::Stretching(now) } else { Step::Up })
            }
            Step::Asked(_) if kind == VF_RESET && refused => {
                self.refuse(Refusal::NoAddress(words[0]), now)
            }
            Step::Stretched(_) if kind == VF_SET_LPE && accepted => Ok(Step::Up),
            Step::Stretched(_) if kind == VF_SET_LPE && refused => {
                self.refuse(Refusal::LongFrames, now)
            }
            other => Ok(other),
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) -> Result<Step, Refusal> {
        self.step = Step::Refused(now);
        Err(refusal)
    }
}

/// What a physical function does not agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has no address for the function; the word that it answered with.
    NoAddress(u32),
    /// It gives an address that no station can have.
    NobodysAddress(MacAddr),
    /// It gives another address than before, by which nobody knows us.
    OtherAddress(MacAddr),
    /// Frames longer than 1,518 bytes.
    LongFrames,
}

impl Refusal {
    /// True if asking again may help: the physical function's owner may be setting it up.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Refusal::NoAddress(_) | Refusal::NobodysAddress(_) => true,
            Refusal::OtherAddress(_) | Refusal::LongFrames => false,
        }
    }

    pub(super) fn error(self, hw: &Hw) -> BusError {
        let address = hw.function().address();
        BusError::Unsupported(match self {
            Refusal::NoAddress(word) => format!(
                "the physical function of {address} refused the reset ({word:#010x}): it gives its \
                 virtual functions no address; `ip link set DEV vf N mac …` does"
            ),
            Refusal::NobodysAddress(mac) => format!(
                "the physical function of {address} has given it {mac}, which is no station's \
                 address; `ip link set DEV vf N mac …` gives it one"
            ),
            Refusal::OtherAddress(mac) => {
                format!("the physical function of {address} has given it another address, {mac}")
            }
            Refusal::LongFrames => {
                format!("the physical function of {address} lets in no frames beyond 1,518 bytes")
            }
        })
    }
}
