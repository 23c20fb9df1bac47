//! Queues of igb: on (82576 §4.5.9.1, §4.5.10.1), off (§4.5.9.2), and their interrupts (§7.3).

use std::time::Duration;

use super::regs::{self, EIAC, EIAM, EICR, EICS, EIMC, EIMS, VF_STATISTICS, dctl, srrctl};
use super::{Chip, Igb};
use crate::bus::BusError;
use crate::device::Features;
use crate::intel::adv_desc::Advanced;
use crate::intel::hw::{Hw, Until};
use crate::intel::nic::{Family, RingPlaces, Standing};
use crate::intel::phy::PhySharing;
use crate::intel::regs::{
    ICR, RCTL, RETA_LEN, RxQueueRegs, STATISTICS, Statistic, TxQueueRegs, rctl,
};
use crate::ring::DESCRIPTOR_LEN;

/// How long a queue takes to turn on or off (§4.5.9.2: what it fetches has to come back first).
const QUEUE_WAIT: Duration = Duration::from_millis(10);

/// Thresholds of descriptor fetches and write-backs: fetch when 8 are left and 8 are there; write
/// back each one at once, so that a sleeping peer's last frame is reported.
const RX_THRESHOLDS: u32 =
    8 << dctl::PTHRESH_SHIFT | 8 << dctl::HTHRESH_SHIFT | 1 << dctl::WTHRESH_SHIFT;
const TX_THRESHOLDS: u32 =
    8 << dctl::PTHRESH_SHIFT | 1 << dctl::HTHRESH_SHIFT | 1 << dctl::WTHRESH_SHIFT;

/// What flow control counts on of the packet buffer's receive part: every controller of the family
/// has at least that after a reset, the 82576 twice as much.
const RECEIVE_BUFFER: u32 = 32 * 1024;

fn enabled(on: bool) -> Until {
    Until {
        condition: if on { "ENABLE" } else { "ENABLE cleared" },
        mask: dctl::ENABLE,
        value: if on { dctl::ENABLE } else { 0 },
        within: QUEUE_WAIT,
    }
}

impl Igb {
    /// The bit of EICR that is fired for a vector, each with one of its own.
    fn test_bit(&self, vector: u16) -> u32 {
        match self.chip {
            Chip::I82575 => regs::first::CAUSES.get(usize::from(vector)).copied().unwrap_or(0),
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => 1 << vector,
        }
    }
}

impl Family for Igb {
    type Format = Advanced;

    fn hw(&self) -> &Hw {
        &self.hw
    }

    fn start_queue(&self, queue: u16, places: &RingPlaces) -> Result<(), BusError> {
        let (hw, rx, tx) = (&self.hw, RxQueueRegs(queue), TxQueueRegs(queue));
        // §4.5.9.1: off while it is programmed.
        hw.write(rx.rxdctl(), 0);
        hw.write(tx.txdctl(), 0);
        hw.write_address(rx.rdbal(), rx.rdbah(), places.rx);
        hw.write(rx.rdlen(), u32::from(places.rx_len) * DESCRIPTOR_LEN as u32);
        let size = places.buffer_len / srrctl::BSIZEPACKET_UNIT;
        hw.write(rx.srrctl(), size | srrctl::DESCTYPE_ADVANCED | srrctl::DROP_EN);
        hw.write(rx.rdh(), 0);
        hw.write(rx.rdt(), 0);
        hw.write(rx.rxdctl(), RX_THRESHOLDS | dctl::ENABLE);
        hw.wait(rx.rxdctl(), enabled(true))?;
        // §4.5.10.1, without head write-back: DD is looked for in the descriptors.
        hw.write_address(tx.tdbal(), tx.tdbah(), places.tx);
        hw.write(tx.tdlen(), u32::from(places.tx_len) * DESCRIPTOR_LEN as u32);
        hw.write_address(tx.tdwbal(), tx.tdwbah(), 0);
        hw.write(tx.tdh(), 0);
        hw.write(tx.tdt(), 0);
        hw.write(tx.txdctl(), TX_THRESHOLDS | dctl::ENABLE);
        hw.wait(tx.txdctl(), enabled(true)).map(|_| ())
    }

    fn start_receiving(&self) {
        if self.chip != Chip::Virtual {
            self.hw.set(RCTL, rctl::EN);
        }
    }

    fn stop_queue(&self, queue: u16, last: bool) -> Result<(), BusError> {
        let (hw, rx, tx) = (&self.hw, RxQueueRegs(queue), TxQueueRegs(queue));
        hw.write(EIMC, self.queue_bits(queue));
        if last && self.chip != Chip::Virtual {
            hw.clear(RCTL, rctl::EN);
        }
        hw.clear(rx.rxdctl(), dctl::ENABLE);
        hw.clear(tx.txdctl(), dctl::ENABLE);
        // Both are tried, so that the one is off even if the other sticks.
        let received = hw.wait(rx.rxdctl(), enabled(false));
        let sent = hw.wait(tx.txdctl(), enabled(false));
        received.and(sent).map(|_| ())
    }

    fn write_table(&self, table: &[u8; RETA_LEN]) {
        if self.chip != Chip::Virtual {
            self.write_redirection(table);
        }
    }

    fn quiesce(&self) -> Result<(), BusError> {
        self.shut_down()
    }

    fn arm(&self, queue: u16) {
        let bits = self.queue_bits(queue);
        // What was counted up while the vector was masked is old; were it left, unmasking would
        // interrupt at once, every time.
        self.hw.write(EICR, bits);
        self.hw.write(EIMS, bits);
        self.hw.flush();
    }

    fn disarm(&self, queue: u16) {
        self.hw.write(EIMC, self.queue_bits(queue));
    }

    fn acknowledge_link(&self) {
        if self.chip != Chip::Virtual {
            let _ = self.hw.read(ICR);
        }
        self.hw.write(EIMS, self.other_bit());
    }

    fn stand(&self) -> Result<Standing, BusError> {
        match self.chip {
            Chip::Virtual => Igb::stand(self),
            Chip::I82575 | Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 => {
                Ok(Standing::Working)
            }
        }
    }

    fn begin_vector_test(&self, vectors: u16) {
        self.mask_all();
        let all = (0..vectors).fold(0, |all, vector| all | self.test_bit(vector));
        if self.chip == Chip::I82575 {
            for vector in 0..vectors {
                let map = regs::first::MSIXBM.nth(u32::from(vector), 4);
                self.hw.write(map, self.test_bit(vector));
            }
        }
        self.hw.write(EIAC, all);
        self.hw.write(EIAM, all);
    }

    fn fire_vector(&self, vector: u16) {
        self.hw.write(EIMS, self.test_bit(vector));
        self.hw.write(EICS, self.test_bit(vector));
        self.hw.flush();
    }

    fn end_vector_test(&self) {
        self.mask_all();
        match self.chip {
            Chip::Virtual => self.init_virtual_interrupts(),
            Chip::I82575 | Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 => {
                self.init_interrupts()
            }
        }
    }

    fn set_moderation(&self, queue: u16, interval_us: u16) {
        self.moderate(queue, interval_us);
    }

    fn context_index(&self, queue: u16) -> u8 {
        match self.chip {
            // The contexts are the device's: each queue goes by one of them.
            Chip::I82575 => queue as u8,
            // Every queue has contexts of its own.
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => 0,
        }
    }

    fn context_lasts(&self) -> bool {
        true
    }

    fn missing(&self) -> Features {
        match self.chip {
            // RSS and tags are set up by the physical function.
            Chip::Virtual => Features::RSS_HASH | Features::VLAN,
            Chip::I82575 | Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 => {
                Features::empty()
            }
        }
    }

    fn phy_sharing(&self) -> PhySharing {
        PhySharing::SwFwSync
    }

    fn receive_buffer(&self) -> u32 {
        RECEIVE_BUFFER
    }

    fn owns_filters(&self) -> bool {
        self.chip != Chip::Virtual
    }

    fn statistics(&self) -> &'static [Statistic] {
        if self.chip == Chip::Virtual { VF_STATISTICS } else { STATISTICS }
    }
}
