//! A VLAN in front of a device that inserts and strips tags: whoever is on top sees frames without.
//!
//! ```text
//!   rx_burst ◀─ with our tag, stripped ◀─ inner       tx_burst ─▶ told to insert it ─▶ inner
//!                 others: rx_other_vlan
//! ```
//!
//! The device's own filter keeps frames of other VLANs away, where it is set. Untagged ones come
//! through all the same (82576 §7.1.1.3 looks at tagged frames only), and so do those with an empty
//! tag: they belong to another network, and are dropped here.

use std::any::Any;
use std::sync::Arc;

use super::Wrapper;
use crate::device::{
    Arm, Capabilities, Device, DeviceError, Features, Queue, QueueCounters, QueueError, QueueId,
    QueueSeed, RxBurst, TxBurst,
};
use crate::mem::Pool;
use crate::settings::VlanId;

/// Bits of a tag that number the VLAN; the others are priority and drop eligibility (IEEE 802.1Q
/// §9.6).
const VLAN_BITS: u16 = 0x0fff;

fn hidden(offered: Capabilities) -> Capabilities {
    Capabilities { features: offered.features - Features::VLAN, ..offered }
}

/// A queue whose frames are those of one VLAN.
struct Tagged {
    inner: Box<dyn Queue>,
    vlan: VlanId,
    /// Frames and bytes of other VLANs.
    others: u64,
    other_bytes: u64,
}

impl Queue for Tagged {
    fn capabilities(&self) -> Capabilities {
        hidden(self.inner.capabilities())
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        let granted = self.inner.start(pool, wanted | Features::VLAN)?;
        if !granted.contains(Features::VLAN) {
            self.inner.stop();
            return Err(no_tags());
        }
        Ok(granted - Features::VLAN)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let before = burst.len();
        let result = self.inner.rx_burst(burst, max);
        let ours = self.vlan.get();
        let (others, bytes) = burst
            .retain_from(before, |frame| frame.vlan.get().map(|tag| tag & VLAN_BITS) == Some(ours));
        self.others += others;
        self.other_bytes += bytes;
        result.map(|_| burst.len() - before)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        burst.tag(self.vlan.get());
        self.inner.tx_burst(burst)
    }

    fn tx_room(&self) -> usize {
        self.inner.tx_room()
    }

    fn reclaim(&mut self) -> usize {
        self.inner.reclaim()
    }

    fn pending_tx(&self) -> usize {
        self.inner.pending_tx()
    }

    fn arm(&mut self) -> Arm {
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn counters(&self) -> QueueCounters {
        let inner = self.inner.counters();
        QueueCounters {
            rx_frames: inner.rx_frames.saturating_sub(self.others),
            rx_bytes: inner.rx_bytes.saturating_sub(self.other_bytes),
            rx_other_vlan: inner.rx_other_vlan + self.others,
            ..inner
        }
    }

    fn stop(&mut self) {
        self.inner.stop();
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

fn no_tags() -> DeviceError {
    DeviceError::Config("this device cannot insert and strip VLAN tags".into())
}

/// A device all of whose queues are on one VLAN.
#[derive(Debug)]
pub struct VlanDevice {
    inner: Arc<dyn Device>,
    vlan: VlanId,
}

impl VlanDevice {
    /// Puts `inner` on a VLAN.
    ///
    /// # Errors
    /// [`DeviceError::Config`] if it does not offer to insert and strip tags.
    pub fn new(inner: Arc<dyn Device>, vlan: VlanId) -> Result<VlanDevice, DeviceError> {
        if !inner.capabilities().features.contains(Features::VLAN) {
            return Err(no_tags());
        }
        Ok(VlanDevice { inner, vlan })
    }
}

impl Wrapper for VlanDevice {
    fn inner(&self) -> &dyn Device {
        &*self.inner
    }

    fn offered(&self, inner: Capabilities) -> Capabilities {
        hidden(inner)
    }

    fn wrapped(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        Ok(Box::new(TaggedSeed { inner: self.inner.queue(id)?, vlan: self.vlan }))
    }
}

struct TaggedSeed {
    inner: Box<dyn QueueSeed>,
    vlan: VlanId,
}

impl QueueSeed for TaggedSeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        let TaggedSeed { inner, vlan } = *self;
        Box::new(Tagged { inner: inner.open(), vlan, others: 0, other_bytes: 0 })
    }
}
