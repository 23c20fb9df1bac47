//! Interrupts: from causes to vectors. An 82576 has a bit a vector in EICR (82576 §7.3), an 82575 a
//! bit a cause there, an 82574 a bit a cause in ICR, of which five have vectors (82574 §7.4).

use super::nic::State;
use super::registers::{self as reg, Kind, Ring, ext, first};

impl State {
    /// A write to one of the registers of interrupts; `None` for any other register.
    pub(super) fn write_interrupt(&mut self, offset: u32, value: u32) -> Option<u32> {
        let (or, and_not) = (|old: u32| old | value, |old: u32| old & !value);
        match (self.kind, offset) {
            (Kind::Virtual, reg::IMS | reg::IMC) => None,
            (Kind::I82575 | Kind::I82576, reg::IMS) => {
                self.file.change(reg::IMS, or);
                Some(self.raise_other())
            }
            (Kind::I82574, reg::IMS) => {
                let raised = !self.file.get(reg::IMS) & value & self.file.get(reg::ICR);
                self.file.change(reg::IMS, or);
                let sent = self.send_causes(raised);
                Some(sent | self.raise_other())
            }
            (_, reg::IMC) => {
                self.file.change(reg::IMS, and_not);
                Some(0)
            }
            (Kind::I82575 | Kind::I82576 | Kind::Virtual, reg::EIMS) => {
                let raised = !self.file.get(reg::EIMS) & value & self.file.get(reg::EICR);
                self.file.change(reg::EIMS, or);
                Some(self.send_vectors(raised))
            }
            (Kind::I82575 | Kind::I82576 | Kind::Virtual, reg::EICS) => {
                let bits = (0..32).filter(|bit| value & 1 << bit != 0);
                Some(bits.fold(0, |sent, bit| sent | self.raise_bit(bit)))
            }
            (Kind::I82575 | Kind::I82576 | Kind::Virtual, reg::EIMC) => {
                self.file.change(reg::EIMS, and_not);
                Some(0)
            }
            (Kind::I82575 | Kind::I82576 | Kind::Virtual, reg::EICR) => {
                self.file.change(reg::EICR, and_not);
                Some(0)
            }
            (Kind::I82574, ext::ICS) => Some(self.raise_causes(value) | self.raise_other()),
            // 82574 §10.2.4.1: ones clear.
            (Kind::I82574, reg::ICR) => {
                self.file.change(reg::ICR, and_not);
                Some(0)
            }
            (Kind::I82575 | Kind::I82576 | Kind::I82574 | Kind::Virtual, _) => None,
        }
    }

    /// A ring has finished something.
    pub(super) fn raise_queue(&mut self, ring: Ring) -> u32 {
        let (n, transmit) = match ring {
            Ring::Rx(n) => (n, false),
            Ring::Tx(n) => (n, true),
        };
        match self.kind {
            // 82576 §8.8.15: queues 0 to 7 in the low halves of the registers, 8 to 15 in the high
            // ones; the transmit ring's byte above the receive ring's.
            Kind::I82576 => {
                let shift = u32::from(transmit) * 8 + u32::from(n / 8) * 16;
                let entry = self.file.get(reg::IVAR + u32::from(n % 8) * 4) >> shift & 0xff;
                self.raise_entry(entry)
            }
            // A bit for each ring, of which MSIXBM says whose vectors they are.
            Kind::I82575 => self.raise_bit(u32::from(n) + if transmit { 8 } else { 0 }),
            // 82576 §8.14.5: a byte a ring.
            Kind::Virtual => {
                let shift = u32::from(transmit) * 8 + u32::from(n) * 16;
                self.raise_entry(self.file.get(reg::IVAR) >> shift & 0xff)
            }
            Kind::I82574 => self.raise_causes(if transmit { ext::TXQ0 } else { ext::RXQ0 } << n),
        }
    }

    pub(super) fn raise_link_change(&mut self) -> u32 {
        self.file.change(reg::ICR, |old| old | reg::ICR_LSC);
        self.raise_other()
    }

    /// What has no vector of its own, by the one for everything else.
    pub(super) fn raise_other(&mut self) -> u32 {
        let pending = self.file.get(reg::ICR) & self.file.get(reg::IMS);
        match self.kind {
            Kind::I82576 => {
                let entry = self.file.get(reg::IVAR_MISC) >> 8 & 0xff;
                if pending != 0 { self.raise_entry(entry) } else { 0 }
            }
            Kind::I82575 if pending != 0 => self.raise_bit(first::OTHER),
            Kind::I82575 => 0,
            // The physical function's driver tells it of the link by mail.
            Kind::Virtual => 0,
            Kind::I82574 if pending & reg::ICR_LSC != 0 => self.raise_causes(ext::OTHER),
            Kind::I82574 => 0,
        }
    }

    /// The vector of an entry of IVAR, if the entry holds one.
    pub(super) fn raise_entry(&mut self, entry: u32) -> u32 {
        if entry & 0x80 == 0 { 0 } else { self.raise_bit(entry & 0x1f) }
    }

    /// Raises a bit of EICR: a vector, or on an 82575 a cause.
    fn raise_bit(&mut self, bit: u32) -> u32 {
        let bit = 1 << bit;
        let already = self.file.get(reg::EICR) & bit != 0;
        self.file.change(reg::EICR, |old| old | bit);
        if already { 0 } else { self.send_vectors(bit & self.file.get(reg::EIMS)) }
    }

    /// Sends vectors and clears their causes (EIAC).
    fn send_vectors(&mut self, bits: u32) -> u32 {
        if self.kind == Kind::I82575 {
            return self.send_mapped(bits);
        }
        // A virtual function's mode is its physical one's.
        if self.kind == Kind::I82576 && self.file.get(reg::GPIE) & reg::GPIE_MSIX == 0 {
            return 0;
        }
        let cleared = bits & self.file.get(reg::EIAC);
        self.file.change(reg::EICR, |old| old & !cleared);
        self.routed(bits)
    }

    /// Sends the vectors that MSIXBM has for these causes, clears those in EIAC and masks those in
    /// EIAM.
    fn send_mapped(&mut self, causes: u32) -> u32 {
        let needed = first::CTRL_EXT_PBA_CLR | first::CTRL_EXT_EIAME;
        if self.file.get(reg::CTRL_EXT) & needed != needed {
            return 0;
        }
        let maps = |n: &u32| self.file.get(first::MSIXBM + n * 4) & causes != 0;
        let vectors =
            (0..u32::from(self.kind.vectors())).filter(maps).fold(0, |all, n| all | 1 << n);
        let (cleared, masked) = (self.file.get(reg::EIAC), self.file.get(first::EIAM));
        self.file.change(reg::EICR, |old| old & !(causes & cleared));
        self.file.change(reg::EIMS, |old| old & !(causes & masked));
        self.routed(vectors)
    }

    fn raise_causes(&mut self, causes: u32) -> u32 {
        let raised = causes & !self.file.get(reg::ICR);
        self.file.change(reg::ICR, |old| old | causes);
        self.send_causes(raised & self.file.get(reg::IMS))
    }

    /// Sends the vectors of causes that have one (82574 §10.2.4.9), clears those in EIAC and masks
    /// those in IAM.
    fn send_causes(&mut self, causes: u32) -> u32 {
        let map = self.file.get(ext::IVAR);
        let mut vectors = 0;
        for (n, cause) in ext::CAUSES.into_iter().enumerate() {
            let entry = map >> (4 * n) & 15;
            if causes & cause == 0 || entry & 8 == 0 {
                continue;
            }
            vectors |= 1 << (entry & 7);
            let (cleared, masked) = (self.file.get(ext::EIAC), self.file.get(ext::IAM));
            self.file.change(reg::ICR, |old| old & !(cause & cleared));
            if self.file.get(reg::CTRL_EXT) & ext::CTRL_EXT_EIAME != 0 {
                self.file.change(reg::IMS, |old| old & !(cause & masked));
            }
        }
        self.routed(vectors)
    }

    /// Of these vectors the ones that the system listens to.
    fn routed(&self, vectors: u32) -> u32 {
        vectors & ((1 << self.enabled_vectors) - 1)
    }
}
