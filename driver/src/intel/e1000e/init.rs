//! Bring-up, in the data sheet's order (82574 §4.6.3 to §4.6.7). The outline is igb's; what differs
//! is that the PHY is shared with firmware, that the receive unit has one buffer size for all
//! queues, and how vectors are allotted.

use std::thread;
use std::time::Duration;

use super::regs::{
    EIAC, EITR, GCR, GCR2, IAM, IVAR, RADV, RDTR, ctrl_ext, dctl, icr, ivar, mrqc, rfctl, tarc,
};
use super::{Chip, E1000e};
use crate::bus::BusError;
use crate::device::MacAddr;
use crate::intel::igb::bring_up::{reset, stop_dma};
use crate::intel::link;
use crate::intel::nic::{Family, clear_filters, station};
use crate::intel::phy::{self, Phy};
use crate::intel::regs::{
    self as common, CTRL, CTRL_EXT, ICR, IMC, IMS, MRQC, RCTL, RETA, RFCTL, RSSRK, RXCSUM, TCTL,
    VET, rctl, rxcsum, tctl,
};

/// From the reset until the PHY has its configuration from the EEPROM (§4.3.1: 25 ms).
const PHY_CONFIGURED: Duration = Duration::from_millis(25);
/// Time that a unit needs to come to rest; it does not tell (§4.6.5.3).
pub(super) const UNIT_PAUSE: Duration = Duration::from_millis(10);

const VLAN_TYPE: u32 = 0x8100;

impl E1000e {
    /// Brings the device from any state to ready for its queues; gives its address.
    pub(super) fn bring_up(&self) -> Result<MacAddr, BusError> {
        let hw = &self.hw;
        if hw.is_gone() {
            return Err(BusError::Gone);
        }
        self.mask_all();
        hw.write(RCTL, 0);
        hw.write(TCTL, tctl::PSP);
        hw.flush();
        // A device that a killed process left in the middle of something may not become quiet by
        // itself; the reset makes it.
        match stop_dma(hw) {
            Ok(()) | Err(BusError::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
        let sharing = self.phy_sharing();
        phy::recover(hw, sharing);
        // So that the firmware does not use the PHY meanwhile. The reset goes on without it.
        let owned = Phy::take(hw, sharing);
        let done = reset(hw);
        drop(owned);
        done?;
        thread::sleep(PHY_CONFIGURED);
        self.mask_all();
        hw.function().set_bus_master(true)?;
        let mac = station(hw, self.config.mac)?;
        hw.set(CTRL_EXT, common::ctrl_ext::DRV_LOAD);
        self.apply_errata();
        clear_filters(hw, mac, self.config.vlan);
        let (flow, frame) = (self.config.flow_control, self.config.frame_len());
        link::configure_flow_control(hw, flow, self.receive_buffer(), frame);
        link::start_negotiation(hw, sharing, self.config.flow_control)?;
        self.init_receive();
        self.init_transmit();
        self.init_interrupts();
        Ok(mac)
    }

    pub(super) fn mask_all(&self) {
        self.hw.write(IMC, u32::MAX);
        let _ = self.hw.read(ICR);
    }

    /// 82574 and 82583 specification update: clock gating of DMA loses data, and write-backs may
    /// pass each other, unless these undocumented bits are set and cleared.
    fn apply_errata(&self) {
        if self.chip == Chip::I82571 {
            return;
        }
        self.hw.clear(CTRL, 1 << 29);
        self.hw.modify(CTRL_EXT, 1 << 23, 1 << 22);
        self.hw.set(GCR, 1 << 22);
        self.hw.set(GCR2, 1);
    }

    /// §4.6.5: the receive unit without its rings, and without RXEN.
    fn init_receive(&self) {
        let hw = &self.hw;
        hw.write(VET, VLAN_TYPE);
        hw.write(RFCTL, rfctl::EXSTEN | rfctl::NFSW_DIS | rfctl::NFSR_DIS);
        hw.write(RDTR, 0);
        hw.write(RADV, 0);
        // SECRC: the check sequence is not stored, so that lengths are the frames' own. With LPE
        // whatever the device can take comes in, longer than the MTU, too: there is no finer bound.
        let mut bits = rctl::BAM | rctl::SECRC;
        if self.config.mtu > 1500 {
            bits |= rctl::LPE;
        }
        hw.write(RCTL, bits);
        let mut checksums = rxcsum::PCSD;
        if self.config.offloads {
            checksums |= rxcsum::IPOFL | rxcsum::TUOFL;
        }
        hw.write(RXCSUM, checksums);
        for (i, word) in (0..).zip(self.config.rss_key.chunks_exact(4)) {
            hw.write(RSSRK.nth(i, 4), u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
        let types = {
            use common::mrqc::{IPV4, IPV6, TCP_IPV4, TCP_IPV6, TCP_IPV6_EX};
            IPV4 | IPV6 | TCP_IPV4 | TCP_IPV6 | TCP_IPV6_EX
        };
        hw.write(MRQC, if self.chip == Chip::I82574 { mrqc::ENABLE_RSS | types } else { 0 });
    }

    /// §4.6.6: the transmit unit without its rings.
    fn init_transmit(&self) {
        for queue in 0..self.config.queues {
            self.hw.set(super::regs::TARC.nth(u32::from(queue), 0x100), tarc::ENABLE);
            let txdctl = common::TxQueueRegs(queue).txdctl();
            self.hw.write(txdctl, dctl::GRAN | dctl::COUNT_DESC);
            self.hw.write(common::RxQueueRegs(queue).rxdctl(), dctl::GRAN);
        }
        let bits = tctl::EN | tctl::PSP | tctl::CT | tctl::COLD | tctl::RTLC;
        self.hw.write(TCTL, bits);
    }

    /// §7.4.2: vector n for both rings of queue n, the one behind for the link.
    pub(super) fn init_interrupts(&self) {
        if !self.chip.has_vectors() {
            return;
        }
        let hw = &self.hw;
        let queues = self.config.queues;
        let mut vectors = (u32::from(queues) | ivar::VALID) << ivar::OTHER_SHIFT;
        let mut causes = 0;
        for queue in 0..queues {
            let n = u32::from(queue);
            let entry = n | ivar::VALID;
            let both = entry << ivar::RXQ_SHIFT | entry << ivar::TXQ_SHIFT;
            vectors |= both << (n * ivar::STRIDE);
            causes |= Self::queue_causes(queue);
            self.moderate(queue, self.config.interrupt_interval_us);
        }
        hw.set(CTRL_EXT, ctrl_ext::PBA_CLR | ctrl_ext::EIAME);
        hw.write(IVAR, vectors);
        hw.write(EIAC, causes);
        hw.write(IAM, causes);
        hw.write(IMS, icr::OTHER | common::icr::LSC);
    }

    /// §10.2.4.10: the interval counts 256 ns.
    pub(super) fn moderate(&self, queue: u16, interval_us: u16) {
        if self.chip.has_vectors() {
            let interval = (u32::from(interval_us) * 1000 / 256).min(0xffff);
            self.hw.write(EITR.nth(u32::from(queue), 4), interval);
        }
    }

    /// Causes of a queue: a frame came in, or a report came back.
    pub(super) fn queue_causes(queue: u16) -> u32 {
        icr::RXQ0 << queue | icr::TXQ0 << queue
    }

    /// The reverse of bring-up (§5.5.1): nothing interrupts, nothing is received or sent, nothing
    /// goes to memory.
    pub(super) fn shut_down(&self) -> Result<(), BusError> {
        self.mask_all();
        self.hw.write(RCTL, 0);
        self.hw.write(TCTL, tctl::PSP);
        self.hw.flush();
        thread::sleep(UNIT_PAUSE);
        let stopped = stop_dma(&self.hw);
        self.hw.clear(CTRL_EXT, common::ctrl_ext::DRV_LOAD);
        stopped
    }

    /// The redirection table: the queue in the highest bit of each entry (§10.2.5.16).
    pub(super) fn write_redirection(&self, table: &[u8; common::RETA_LEN]) {
        for (i, entries) in (0..).zip(table.chunks_exact(4)) {
            let bytes = [entries[0], entries[1], entries[2], entries[3]].map(|queue| queue << 7);
            self.hw.write(RETA.nth(i, 4), u32::from_le_bytes(bytes));
        }
    }
}
