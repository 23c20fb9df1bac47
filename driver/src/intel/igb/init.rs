//! Bring-up of a physical function, in the data sheet's order (82576 §4.5.3 to §4.5.12).
//!
//! ```text
//!   1 mask interrupts, stop DMA    4 address, filters     7 transmit unit
//!   2 reset, wait for the EEPROM   5 PHY, pause frames    8 interrupts
//!   3 mask again                   6 receive unit         ── then a queue at a time, see queue.rs
//! ```
//!
//! The device may be in any state before: running with rings in memory that a killed process has
//! left. So DMA is stopped first, and the reset does not count on anything.

use std::thread;
use std::time::Duration;

use super::regs::{self, EIAC, EIAM, EICR, EIMC, EIMS, GPIE, IVAR, IVAR_MISC, RLPML, gpie};
use super::{Chip, Igb};
use crate::bus::BusError;
use crate::device::MacAddr;
use crate::intel::hw::{Hw, Until};
use crate::intel::nic::{Family, clear_filters, station};
use crate::intel::regs::{
    CTRL, CTRL_EXT, EECD, ICR, IMC, IMS, MRQC, RCTL, RSSRK, RXCSUM, STATUS, TCTL, VET, ctrl,
    ctrl_ext, eecd, icr, mrqc, rctl, rxcsum, status, tctl,
};
use crate::intel::{MAX_INTERRUPT_INTERVAL_US, link, phy, regs as common};

/// How long pending reads and writes of the device may take (§5.2.3.3: 800 ms at the very most; the
/// data sheet's own procedure waits 80 ms).
const MASTER_WAIT: Duration = Duration::from_millis(80);
/// From the reset to its bit reading 0 (§4.3.1: 1 ms).
const RESET_WAIT: Duration = Duration::from_millis(20);
/// Registers must not be read sooner after a reset (§4.5.3: 3 ms for the PHY's configuration).
const RESET_PAUSE: Duration = Duration::from_millis(5);
/// The EEPROM's content is loaded after a reset (§4.3.1).
const EEPROM_WAIT: Duration = Duration::from_millis(10);

/// EtherType of VLAN tags (IEEE 802.1Q).
const VLAN_TYPE: u32 = 0x8100;

/// Stops new requests of the device to memory and waits for those that it has made (§5.2.3.3).
pub(in crate::intel) fn stop_dma(hw: &Hw) -> Result<(), BusError> {
    hw.set(CTRL, ctrl::GIO_MASTER_DISABLE);
    let until = Until {
        condition: "GIO master disabled",
        mask: status::GIO_MASTER_ENABLE,
        value: 0,
        within: MASTER_WAIT,
    };
    hw.wait(STATUS, until).map(|_| ())
}

/// Resets the MAC and waits until it has its configuration back (§4.5.3, §4.3.1).
pub(in crate::intel) fn reset(hw: &Hw) -> Result<(), BusError> {
    hw.set(CTRL, ctrl::RST);
    thread::sleep(RESET_PAUSE);
    let until = Until { condition: "RST cleared", mask: ctrl::RST, value: 0, within: RESET_WAIT };
    hw.wait(CTRL, until)?;
    let until = Until {
        condition: "AUTO_RD",
        mask: eecd::AUTO_RD,
        value: eecd::AUTO_RD,
        within: EEPROM_WAIT,
    };
    match hw.wait(EECD, until) {
        // A device without an EEPROM never says that it has read it. The address that is read next
        // shows whether one is there.
        Ok(_) | Err(BusError::Timeout { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Igb {
    /// Brings the device from any state to ready for its queues; gives its address.
    pub(super) fn bring_up(&self) -> Result<MacAddr, BusError> {
        let hw = &self.hw;
        if hw.is_gone() {
            return Err(BusError::Gone);
        }
        self.mask_all();
        self.stop_units();
        // A device that a killed process left in the middle of something may not become quiet by
        // itself; the reset makes it.
        match stop_dma(hw) {
            Ok(()) | Err(BusError::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
        reset(hw)?;
        self.mask_all();
        hw.function().set_bus_master(true)?;
        let mac = station(hw, self.config.mac)?;
        hw.set(CTRL_EXT, ctrl_ext::DRV_LOAD);
        clear_filters(hw, mac, self.config.vlan);
        self.clear_second_addresses();
        let (flow, frame) = (self.config.flow_control, self.config.frame_len());
        link::configure_flow_control(hw, flow, self.receive_buffer(), frame);
        phy::recover(hw, self.phy_sharing());
        link::start_negotiation(hw, self.phy_sharing(), self.config.flow_control)?;
        self.init_receive();
        self.init_transmit();
        self.init_interrupts();
        Ok(mac)
    }

    /// §4.5.3: no interrupt before the driver is ready for it.
    pub(super) fn mask_all(&self) {
        self.hw.write(EIMC, u32::MAX);
        self.hw.write(EICR, u32::MAX);
        if self.chip != Chip::Virtual {
            self.hw.write(IMC, u32::MAX);
            let _ = self.hw.read(ICR);
        }
    }

    fn stop_units(&self) {
        self.hw.write(RCTL, 0);
        self.hw.write(TCTL, tctl::PSP);
        self.hw.flush();
    }

    /// §8.10.18: addresses 16 to 23 lie apart, and only from the 82576 on.
    fn clear_second_addresses(&self) {
        let count = match self.chip {
            Chip::I82576 | Chip::I82580 => 8,
            Chip::I82575 | Chip::I210 | Chip::I211 | Chip::Virtual => 0,
        };
        for i in 0..count {
            self.hw.write(regs::RAH2.nth(i, 8), 0);
        }
    }

    /// §4.5.9: the receive unit without its queues, and without RXEN.
    fn init_receive(&self) {
        let hw = &self.hw;
        hw.write(VET, VLAN_TYPE);
        hw.write(regs::VT_CTL, 0);
        hw.write(RLPML, self.config.frame_len());
        // SECRC: the check sequence is not stored, so that lengths are the frames' own.
        hw.write(RCTL, rctl::BAM | rctl::SECRC | rctl::LPE);
        let mut checksums = rxcsum::PCSD;
        if self.config.offloads {
            checksums |= rxcsum::IPOFL | rxcsum::TUOFL;
        }
        hw.write(RXCSUM, checksums);
        // §7.1.1.7: the key, four bytes a register in the order of the bytes.
        for (i, word) in (0..).zip(self.config.rss_key.chunks_exact(4)) {
            hw.write(RSSRK.nth(i, 4), u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
        let tcp = mrqc::TCP_IPV4 | mrqc::TCP_IPV6 | mrqc::TCP_IPV6_EX;
        let udp = regs::mrqc::UDP_IPV4 | regs::mrqc::UDP_IPV6;
        hw.write(MRQC, regs::mrqc::ENABLE_RSS | mrqc::IPV4 | mrqc::IPV6 | tcp | udp);
    }

    /// §4.5.10: the transmit unit without its queues.
    fn init_transmit(&self) {
        let bits = tctl::EN | tctl::PSP | tctl::CT | tctl::COLD | tctl::RTLC;
        self.hw.write(TCTL, bits);
    }

    /// §7.3.2: vector n for both rings of queue n, the one behind for the link.
    pub(super) fn init_interrupts(&self) {
        let hw = &self.hw;
        let queues = self.config.queues;
        let other = u32::from(queues);
        // The mode comes first: it decides what the bits of the other registers mean.
        match self.chip {
            Chip::I82575 => {
                let mode = regs::first::PBA_CLR | regs::first::EIAME | regs::first::IRCA;
                hw.set(CTRL_EXT, mode);
                hw.write(regs::first::MSIXBM.nth(other, 4), regs::first::OTHER);
            }
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => {
                let mode = gpie::MULTIPLE_MSIX | gpie::EIAME | gpie::PBA_SUPPORT | gpie::NSICR;
                hw.write(GPIE, mode);
                hw.write(IVAR_MISC, (other | regs::IVAR_VALID) << 8);
            }
        }
        let mut all = self.other_bit();
        for queue in 0..queues {
            self.map_queue(queue);
            self.moderate(queue, self.config.interrupt_interval_us);
            all |= self.queue_bits(queue);
        }
        hw.write(EIAC, all);
        hw.write(EIAM, all);
        hw.write(IMS, icr::LSC);
        hw.write(EIMS, self.other_bit());
    }

    fn map_queue(&self, queue: u16) {
        let n = u32::from(queue);
        let entry = n | regs::IVAR_VALID;
        match self.chip {
            Chip::I82575 => self.hw.write(regs::first::MSIXBM.nth(n, 4), self.queue_bits(queue)),
            // §8.8.15: queues 0 to 7 in the low halves, 8 to 15 in the high ones.
            Chip::I82576 => {
                let shift = if queue < 8 { 0 } else { 16 };
                self.write_ivar(n % 8, shift, entry);
            }
            // I350 §8.8.14: two queues a register.
            Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => {
                self.write_ivar(n / 2, n % 2 * 16, entry);
            }
        }
    }

    /// Both rings of a queue: receive in the lower byte, transmit in the one above.
    fn write_ivar(&self, register: u32, shift: u32, entry: u32) {
        self.hw.modify(IVAR.nth(register, 4), 0xffff << shift, (entry << 8 | entry) << shift);
    }

    /// §8.8.14: the interval in microseconds stands in bits 14 to 2.
    pub(super) fn moderate(&self, queue: u16, interval_us: u16) {
        let interval = u32::from(interval_us.min(MAX_INTERRUPT_INTERVAL_US)) << 2;
        let interval = match self.chip {
            // The counter in the upper half is loaded by hand.
            Chip::I82575 => interval << 16 | interval,
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => interval,
        };
        self.hw.write(regs::EITR.nth(u32::from(queue), 4), interval);
    }

    /// The reverse of bring-up (§4.5.3, §5.2.3.3): nothing interrupts, nothing is received or sent,
    /// nothing goes to memory.
    pub(super) fn shut_down(&self) -> Result<(), BusError> {
        self.mask_all();
        if self.chip == Chip::Virtual {
            return Ok(());
        }
        self.stop_units();
        let stopped = stop_dma(&self.hw);
        self.hw.clear(CTRL_EXT, ctrl_ext::DRV_LOAD);
        stopped
    }

    /// The redirection table, four entries a register (§8.10.23).
    pub(super) fn write_redirection(&self, table: &[u8; common::RETA_LEN]) {
        let shift = match self.chip {
            Chip::I82575 => regs::first::RETA_SHIFT,
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => 0,
        };
        for (i, entries) in (0..).zip(table.chunks_exact(4)) {
            let bytes = [entries[0], entries[1], entries[2], entries[3]];
            let bytes = bytes.map(|queue| queue << shift);
            self.hw.write(common::RETA.nth(i, 4), u32::from_le_bytes(bytes));
        }
    }
}
