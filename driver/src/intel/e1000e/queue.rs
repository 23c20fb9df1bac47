//! Queues of e1000e (82574 §4.6.5, §4.6.6). A queue has no switch of its own: the units are
//! switched for both, and a ring without descriptors is at rest.

use std::thread;

use super::init::UNIT_PAUSE;
use super::regs::{EIAC, IAM, ICS, IVAR, PBA, ivar, pba, rctl as own_rctl};
use super::{Chip, E1000e};
use crate::bus::BusError;
use crate::device::Features;
use crate::intel::ext_desc::Extended;
use crate::intel::hw::Hw;
use crate::intel::nic::{Family, RingPlaces};
use crate::intel::phy::PhySharing;
use crate::intel::regs::{
    ICR, IMC, IMS, RCTL, RETA_LEN, RxQueueRegs, TCTL, TxQueueRegs, icr, rctl, tctl,
};
use crate::ring::DESCRIPTOR_LEN;

/// Causes that have a vector.
const CAUSES: u16 = 5;

/// The buffer size that all receive queues share.
fn buffer_bits(buffer_len: u32) -> u32 {
    // 2 KiB is what no bit means. Of a slot of 9 KiB the hardware, which has 8 or 16, fills 4.
    if buffer_len >= 4096 { own_rctl::BSEX | own_rctl::BSIZE_4096 } else { 0 }
}

impl E1000e {
    /// Halts both units, lets `change` work on rings at rest, and lets the units go on if asked to.
    fn at_rest(&self, go_on: bool, change: impl FnOnce()) {
        let (receive, transmit) = (self.hw.read(RCTL), self.hw.read(TCTL));
        self.hw.write(RCTL, receive & !rctl::EN);
        self.hw.write(TCTL, transmit & !tctl::EN);
        self.hw.flush();
        thread::sleep(UNIT_PAUSE);
        change();
        self.hw.write(TCTL, transmit | tctl::EN);
        if go_on {
            self.hw.write(RCTL, receive);
        }
    }
}

impl Family for E1000e {
    type Format = Extended;

    fn hw(&self) -> &Hw {
        &self.hw
    }

    fn start_queue(&self, queue: u16, places: &RingPlaces) -> Result<(), BusError> {
        let (hw, rx, tx) = (&self.hw, RxQueueRegs(queue), TxQueueRegs(queue));
        let size = buffer_bits(places.buffer_len);
        let now = hw.read(RCTL);
        if now & rctl::EN != 0 && now & (own_rctl::BSEX | own_rctl::BSIZE_4096) != size {
            return Err(BusError::Unsupported(
                "both queues of this device need pools with slots of one size".into(),
            ));
        }
        self.at_rest(true, || {
            hw.write_address(rx.rdbal(), rx.rdbah(), places.rx);
            hw.write(rx.rdlen(), u32::from(places.rx_len) * DESCRIPTOR_LEN as u32);
            hw.write(rx.rdh(), 0);
            hw.write(rx.rdt(), 0);
            hw.write_address(tx.tdbal(), tx.tdbah(), places.tx);
            hw.write(tx.tdlen(), u32::from(places.tx_len) * DESCRIPTOR_LEN as u32);
            hw.write(tx.tdh(), 0);
            hw.write(tx.tdt(), 0);
        });
        hw.modify(RCTL, own_rctl::BSEX | own_rctl::BSIZE_4096, size);
        Ok(())
    }

    fn start_receiving(&self) {
        self.hw.set(RCTL, rctl::EN);
    }

    fn stop_queue(&self, queue: u16, last: bool) -> Result<(), BusError> {
        let (hw, rx, tx) = (&self.hw, RxQueueRegs(queue), TxQueueRegs(queue));
        hw.write(IMC, Self::queue_causes(queue));
        self.at_rest(!last, || {
            for (length, head, tail) in
                [(rx.rdlen(), rx.rdh(), rx.rdt()), (tx.tdlen(), tx.tdh(), tx.tdt())]
            {
                hw.write(length, 0);
                hw.write(head, 0);
                hw.write(tail, 0);
            }
        });
        if hw.is_gone() { Err(BusError::Gone) } else { Ok(()) }
    }

    fn write_table(&self, table: &[u8; RETA_LEN]) {
        if self.chip == Chip::I82574 {
            self.write_redirection(table);
        }
    }

    fn quiesce(&self) -> Result<(), BusError> {
        self.shut_down()
    }

    fn arm(&self, queue: u16) {
        let causes = Self::queue_causes(queue);
        if self.chip.has_vectors() {
            // As with igb: what was counted up while the causes were masked is old.
            self.hw.write(ICR, causes);
            self.hw.write(IMS, causes);
        }
        self.hw.flush();
    }

    fn disarm(&self, queue: u16) {
        self.hw.write(IMC, Self::queue_causes(queue));
    }

    fn acknowledge_link(&self) {
        let causes = self.hw.read(ICR);
        self.hw.write(ICR, super::regs::icr::OTHER | icr::LSC);
        // Reading has cleared all causes, also a queue's that moderation holds back: given back, or
        // the queue would sleep over it.
        let queues = (0..self.config.queues).fold(0, |all, queue| all | Self::queue_causes(queue));
        if causes & queues != 0 {
            self.hw.write(ICS, causes & queues);
        }
        // Unmasked anew: on this device a vector that is sent may mask its causes.
        self.hw.write(IMS, super::regs::icr::OTHER | icr::LSC);
    }

    fn begin_vector_test(&self, vectors: u16) {
        self.mask_all();
        // The five causes that have vectors stand in one order in ICR and in IVAR (§10.2.4.9):
        // receive 0 and 1, transmit 0 and 1, everything else. Each gets a vector of its own.
        let entries = (0..u32::from(vectors.min(CAUSES)))
            .fold(0, |all, n| all | (n | ivar::VALID) << (n * ivar::STRIDE));
        self.hw.write(IVAR, entries);
        self.hw.write(EIAC, 0);
        self.hw.write(IAM, 0);
    }

    fn fire_vector(&self, vector: u16) {
        let own = super::regs::icr::RXQ0 << vector;
        // What stands for others is raised by one of them.
        let other = if own == super::regs::icr::OTHER { icr::LSC } else { 0 };
        self.hw.write(ICR, own | other);
        self.hw.write(IMS, own | other);
        self.hw.write(ICS, own | other);
        self.hw.flush();
    }

    fn end_vector_test(&self) {
        self.mask_all();
        self.init_interrupts();
    }

    fn set_moderation(&self, queue: u16, interval_us: u16) {
        self.moderate(queue, interval_us);
    }

    fn context_index(&self, _queue: u16) -> u8 {
        0
    }

    fn context_lasts(&self) -> bool {
        // §7.2.6: the device remembers the last context only, whichever queue it came by.
        self.config.queues == 1
    }

    fn missing(&self) -> Features {
        match self.chip {
            Chip::I82574 => Features::empty(),
            Chip::I82583 | Chip::I82571 => Features::RSS_HASH,
        }
    }

    fn phy_sharing(&self) -> PhySharing {
        match self.chip {
            Chip::I82574 | Chip::I82583 => PhySharing::Extcnf,
            Chip::I82571 => PhySharing::Swsm,
        }
    }

    fn receive_buffer(&self) -> u32 {
        /// Least and most that a controller of the family can have set aside.
        const POSSIBLE_KIB: std::ops::RangeInclusive<u32> = 8..=64;
        let kib = self.hw.read(PBA) & pba::RXA;
        1024 * kib.clamp(*POSSIBLE_KIB.start(), *POSSIBLE_KIB.end())
    }

    fn owns_filters(&self) -> bool {
        true
    }
}
