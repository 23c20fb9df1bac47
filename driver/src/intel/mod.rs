//! Intel's gigabit controllers: igb (82575 to I211) and e1000e (82571 to 82583), with a copper PHY.
//! What is known and not driven has its reason in `undriven`: whatever is for fibre, SerDes, SGMII or
//! a backplane.
//!
//! ```text
//!   open ─▶ family by id ─▶ bring-up (igb/init, e1000e/init) ─▶ NicDevice ─▶ queues
//!
//!   queue      rx, tx rings in any format        format, adv_desc, ext_desc   descriptors
//!   nic        control plane of both             hw, regs, link, phy          registers, PHY
//!   igb        advanced descriptors, a queue's own interrupt, RSS over up to 16 queues, VFs
//!   e1000e     extended descriptors, two queues
//! ```
//!
//! Read `igb/init.rs` first: it is the data sheet's bring-up procedure, section by section.

mod adv_desc;
pub mod e1000e;
mod ext_desc;
mod filters;
mod format;
#[cfg(any(test, feature = "model"))]
pub mod hostile;
mod hw;
pub mod igb;
mod link;
mod nic;
mod phy;
mod queue;
mod regs;
mod rx;
mod tx;
mod undriven;

use std::os::fd::RawFd;
use std::sync::Arc;

pub use link::{FlowControl, PauseFrames};
pub(crate) use undriven::undriven;

use crate::bus::{BusError, Function};
use crate::device::{Device, DeviceError, MacAddr};
use crate::ring::{MAX_DESCRIPTORS, MIN_DESCRIPTORS, valid_ring_len};
use crate::rss;

/// Intel's vendor id.
pub const VENDOR: u16 = 0x8086;

/// Largest frame of any of them without the Ethernet header and check sequence (82576 §7.1.2: 9.5 KiB
/// on the wire); e1000e's is 9,212.
pub const MAX_MTU: u16 = 9216;

/// Longest time between two interrupts of a queue that can be asked for, in microseconds: igb's
/// register holds 13 bits of them (82576 §8.8.14), e1000e's twice as many (82574 §10.2.4.10).
pub const MAX_INTERRUPT_INTERVAL_US: u16 = 0x1fff;

/// Most addresses that a device takes frames for beside its own.
pub const MAX_STATIONS: usize = regs::STATION_ADDRESSES as usize - 1;

/// Smallest MTU of IPv4 that everybody can send (RFC 791 §3.2).
const MIN_MTU: u16 = 68;

/// Whether anybody has seen a device work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Driven by the test rig: an emulated device behind an IOMMU, against Linux's own driver.
    Emulated,
    /// Written from the data sheet and never run.
    Untested,
}

/// A device that can be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// PCI device id; the vendor is [`VENDOR`].
    pub device: u16,
    /// Name of the controller.
    pub name: &'static str,
    /// Which driver takes it.
    pub family: ModelFamily,
    /// Whether anybody has seen it work.
    pub support: Support,
}

/// Which of the drivers takes a device, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFamily {
    /// igb, by controller.
    Igb(igb::Chip),
    /// e1000e, by controller.
    E1000e(e1000e::Chip),
}

/// All devices that can be driven.
pub fn models() -> impl Iterator<Item = Model> {
    igb::models().chain(e1000e::models())
}

/// The device with these ids, if it can be driven.
pub fn model(vendor: u16, device: u16) -> Option<Model> {
    models().find(|model| vendor == VENDOR && model.device == device)
}

/// How to set a NIC up.
#[derive(Clone, Debug)]
pub struct NicConfig {
    /// Queue pairs.
    pub queues: u16,
    /// Receive descriptors a queue: a power of two from 32 to 4,096.
    pub rx_ring: u16,
    /// Transmit descriptors a queue, likewise.
    pub tx_ring: u16,
    /// Largest frame without the Ethernet header, up to [`MAX_MTU`]. Frames larger than a slot
    /// arrive in several.
    pub mtu: u16,
    /// Offer checksum and segmentation offload.
    pub offloads: bool,
    /// The address to be, instead of the device's own. Not for virtual functions.
    pub mac: Option<MacAddr>,
    /// Strip VLAN tags from received frames and offer to insert them.
    pub vlan: bool,
    /// Take frames for everybody.
    pub promiscuous: bool,
    /// Key of the hash that flows are dealt out by.
    pub rss_key: [u8; 40],
    /// Queue by the hash's low seven bits.
    pub rss_table: [u8; 128],
    /// Pause frames.
    pub flow_control: FlowControl,
    /// Least microseconds between two interrupts of a queue, up to
    /// [`MAX_INTERRUPT_INTERVAL_US`]; 0 turns moderation off.
    pub interrupt_interval_us: u16,
    /// For tests of the IOMMU: names an address where nothing is mapped for every frame to send.
    pub send_unmapped: bool,
}

impl NicConfig {
    /// Rings of 512, MTU 1,500, offloads, flows dealt out evenly with the published key.
    pub fn new(queues: u16) -> NicConfig {
        let deal = queues.clamp(1, 128) as usize;
        NicConfig {
            queues,
            rx_ring: 512,
            tx_ring: 512,
            mtu: 1500,
            offloads: true,
            mac: None,
            vlan: false,
            promiscuous: false,
            rss_key: rss::DEFAULT_KEY,
            rss_table: std::array::from_fn(|i| (i % deal) as u8),
            flow_control: FlowControl::Off,
            interrupt_interval_us: 10,
            send_unmapped: false,
        }
    }

    /// Bytes on the wire of the largest frame that is received.
    fn frame_len(&self) -> u32 {
        u32::from(self.mtu) + nic::ETHERNET_LEN + nic::VLAN_LEN + nic::FCS_LEN
    }

    fn check(&self, most_queues: u16) -> Result<(), DeviceError> {
        let wrong = |what: String| Err(DeviceError::Config(what));
        if self.queues == 0 || self.queues > most_queues {
            return wrong(format!(
                "this device has 1 to {most_queues} queues, not {}",
                self.queues
            ));
        }
        for len in [self.rx_ring, self.tx_ring] {
            if !valid_ring_len(len) {
                return wrong(format!(
                    "a ring has a power of two of descriptors from {MIN_DESCRIPTORS} to \
                     {MAX_DESCRIPTORS}, not {len}"
                ));
            }
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return wrong(format!("the MTU is {MIN_MTU} to {MAX_MTU} bytes, not {}", self.mtu));
        }
        self.check_table(&self.rss_table)?;
        let interval = self.interrupt_interval_us;
        if interval > MAX_INTERRUPT_INTERVAL_US {
            return wrong(format!(
                "two interrupts are at most {MAX_INTERRUPT_INTERVAL_US} µs apart, not {interval}"
            ));
        }
        Ok(())
    }

    fn check_table(&self, table: &[u8; regs::RETA_LEN]) -> Result<(), DeviceError> {
        match table.iter().find(|queue| u16::from(**queue) >= self.queues) {
            Some(queue) => Err(DeviceError::Config(format!(
                "the RSS table names queue {queue}, which does not exist: there are {} (`--cores`)",
                self.queues
            ))),
            None => Ok(()),
        }
    }
}

impl Default for NicConfig {
    /// One queue.
    fn default() -> NicConfig {
        NicConfig::new(1)
    }
}

/// What a NIC can do beyond every [`Device`].
pub trait Nic: Device {
    /// Whether anybody has seen this kind of device work.
    fn support(&self) -> Support;

    /// Becomes readable when the link may have changed: then call [`Device::poll_link`].
    fn link_event_fd(&self) -> Option<RawFd>;

    /// Makes the device fire each of its interrupt vectors once, and says of each whether it has
    /// arrived. The link's interrupt is deaf meanwhile.
    ///
    /// # Errors
    /// [`DeviceError::Config`] while a queue is running; [`DeviceError::Os`].
    fn test_vectors(&self) -> Result<Vec<bool>, DeviceError>;

    /// Takes frames for everybody, or only those addressed to this device.
    ///
    /// # Errors
    /// [`DeviceError::Config`] on a virtual function.
    fn set_promiscuous(&self, on: bool) -> Result<(), DeviceError>;

    /// Takes all multicast frames.
    ///
    /// # Errors
    /// [`DeviceError::Config`] on a virtual function.
    fn set_all_multicast(&self, on: bool) -> Result<(), DeviceError>;

    /// Takes these multicast groups, and by the hash's coarseness some others.
    ///
    /// # Errors
    /// [`DeviceError::Config`] on a virtual function.
    fn set_multicast(&self, addresses: &[MacAddr]) -> Result<(), DeviceError>;

    /// Takes frames for these addresses, too.
    ///
    /// # Errors
    /// [`DeviceError::Config`] on a virtual function, and for more than the device holds (14).
    fn set_stations(&self, addresses: &[MacAddr]) -> Result<(), DeviceError>;

    /// Takes tagged frames of these VLANs only; with none, all.
    ///
    /// # Errors
    /// [`DeviceError::Config`] on a virtual function, and for numbers above 4,095.
    fn set_vlan_filter(&self, vlans: &[u16]) -> Result<(), DeviceError>;

    /// Deals flows out by another table.
    ///
    /// # Errors
    /// [`DeviceError::Config`] if it names a queue that does not exist.
    fn set_rss_table(&self, table: &[u8; 128]) -> Result<(), DeviceError>;

    /// Sets the least microseconds between two interrupts of a queue; 0 turns moderation off.
    fn set_moderation(&self, interval_us: u16);

    /// Pause frames as they are used now: what both sides have agreed on, once
    /// [`Device::poll_link`] has told that the link is up.
    fn pause_frames(&self) -> PauseFrames;

    /// Negotiates pause frames anew; the link goes down meanwhile.
    ///
    /// # Errors
    /// [`DeviceError`] if the PHY does not answer, or on a virtual function.
    fn set_flow_control(&self, flow: FlowControl) -> Result<(), DeviceError>;
}

/// Resets the device behind `function`, whatever state it is in, and sets it up. It receives and
/// sends when its queues are started.
///
/// # Errors
/// [`DeviceError::Config`] for a device that is not known, for a configuration that does not fit it
/// and for a device that does not answer (the text names the register); [`DeviceError::Os`].
pub fn open(function: Arc<dyn Function>, config: NicConfig) -> Result<Arc<dyn Nic>, DeviceError> {
    let (vendor, device) = function.id();
    let Some(model) = model(vendor, device) else {
        return Err(DeviceError::Config(format!(
            "{}: no driver for a device with the id {vendor:04x}:{device:04x}",
            function.address()
        )));
    };
    match model.family {
        ModelFamily::Igb(chip) => igb::open(function, chip, model.support, config),
        ModelFamily::E1000e(chip) => e1000e::open(function, chip, model.support, config),
    }
}

/// A failure on the bus as the device's.
fn device_error(error: BusError) -> DeviceError {
    match error {
        BusError::Os { what, source, fix } => DeviceError::Os { what, source, fix },
        other @ (BusError::Timeout { .. } | BusError::Gone | BusError::Unsupported(_)) => {
            DeviceError::Config(other.to_string())
        }
    }
}

/// One vector a queue and one for the link, as far as the function has them.
fn enable_vectors(function: &dyn Function, queues: u16) -> Result<Vec<RawFd>, BusError> {
    let (has, needs) = (function.vectors(), queues + 1);
    if has < needs {
        return Err(BusError::Unsupported(format!(
            "{} has {has} MSI-X vectors, and {queues} queues and the link need {needs}",
            function.address()
        )));
    }
    function.enable_vectors(needs)
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
