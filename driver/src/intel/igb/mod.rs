//! igb: 82575, 82576, 82580, I350, I210, I211 with a copper PHY, and the virtual functions of 82576
//! and I350.
//!
//! Advanced descriptors, a vector a queue, RSS over up to 16 queues. Only the 82576 and its virtual
//! function have been run (see [`Support`]); the others follow the same data-sheet procedure with
//! the differences that [`Chip`] names.

mod init;
mod mailbox;
pub(super) mod bring_up {
    //! Steps that e1000e has in common.
    pub(in crate::intel) use super::init::{reset, stop_dma};
}
mod queue;
mod regs;
mod vf;

use std::sync::{Arc, Mutex};

use self::mailbox::Mailbox;
use super::hw::Hw;
use super::nic::{Core, NicDevice};
use super::{
    FlowControl, Model, ModelFamily, Nic, NicConfig, Support, device_error, enable_vectors,
};
use crate::bus::Function;
use crate::device::DeviceError;

/// Which controller it is, where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// 82575: four queues, a bit of causes for each ring in place of a table of vectors. The bridge
    /// above it must not let its link go to L0s (specification update), which is the system's to see
    /// to.
    I82575,
    /// 82576: sixteen queues.
    I82576,
    /// 82580, I350: eight queues, vectors allotted by pairs of queues.
    I82580,
    /// I210: four queues.
    I210,
    /// I211: two queues.
    I211,
    /// A virtual function of 82576 or I350.
    Virtual,
}

impl Chip {
    /// Queue pairs of the controller.
    pub fn queues(self) -> u16 {
        match self {
            Chip::I82575 | Chip::I210 => 4,
            Chip::I82576 => 16,
            Chip::I82580 => 8,
            Chip::I211 => 2,
            // Two, but the second one's vector is not mapped by every physical function's driver.
            Chip::Virtual => 1,
        }
    }
}

/// The controllers by PCI device id.
pub(super) fn models() -> impl Iterator<Item = Model> {
    use Chip::{I210, I211, I82575, I82576, I82580, Virtual};
    use Support::{Emulated, Untested};
    [
        (0x10a7, "82575EB copper", I82575, Untested),
        (0x10d6, "82575GB quad copper", I82575, Untested),
        (0x10c9, "82576", I82576, Emulated),
        (0x10e8, "82576 quad copper", I82576, Untested),
        (0x150a, "82576NS", I82576, Untested),
        (0x1526, "82576 quad copper ET2", I82576, Untested),
        (0x150e, "82580 copper", I82580, Untested),
        (0x1516, "82580 dual copper", I82580, Untested),
        (0x1521, "I350 copper", I82580, Untested),
        (0x1533, "I210 copper", I210, Untested),
        (0x157b, "I210 copper, no flash", I210, Untested),
        (0x1539, "I211 copper", I211, Untested),
        (0x10ca, "82576 virtual function", Virtual, Emulated),
        (0x1520, "I350 virtual function", Virtual, Untested),
    ]
    .into_iter()
    .map(|(device, name, chip, support)| Model {
        device,
        name,
        family: ModelFamily::Igb(chip),
        support,
    })
}

/// An igb controller.
#[derive(Debug)]
pub(super) struct Igb {
    hw: Hw,
    chip: Chip,
    config: NicConfig,
    /// Of a virtual function.
    mailbox: Mutex<Mailbox>,
}

impl Igb {
    /// Bits of EICR and its relatives for a queue: its vector, or its causes.
    fn queue_bits(&self, queue: u16) -> u32 {
        match self.chip {
            Chip::I82575 => regs::first::RX0 << queue | regs::first::TX0 << queue,
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => 1 << queue,
        }
    }

    /// The same for the link and everything else.
    fn other_bit(&self) -> u32 {
        match self.chip {
            Chip::I82575 => regs::first::OTHER,
            Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 | Chip::Virtual => {
                1 << self.config.queues
            }
        }
    }
}

/// Resets and configures the device; see `init`.
pub(super) fn open(
    function: Arc<dyn Function>,
    chip: Chip,
    support: Support,
    config: NicConfig,
) -> Result<Arc<dyn Nic>, DeviceError> {
    config.check(chip.queues())?;
    if chip == Chip::Virtual && config.mac.is_some() {
        return Err(DeviceError::Config(
            "a virtual function's address is given to it on its physical function: `ip link set \
             PF vf N mac MAC`"
                .into(),
        ));
    }
    if chip == Chip::Virtual && config.flow_control != FlowControl::Off {
        return Err(DeviceError::Config(
            "a virtual function has no link of its own: pause frames are set on its physical \
             function, with `ethtool -A`"
                .into(),
        ));
    }
    let vectors = enable_vectors(&*function, config.queues).map_err(device_error)?;
    let long_frames = (config.mtu > vf::PLAIN_MTU).then(|| config.frame_len());
    let igb = Igb {
        hw: Hw::new(function),
        chip,
        config: config.clone(),
        mailbox: Mutex::new(Mailbox::new(long_frames)),
    };
    let mac = match chip {
        Chip::Virtual => igb.bring_up_virtual(),
        Chip::I82575 | Chip::I82576 | Chip::I82580 | Chip::I210 | Chip::I211 => {
            igb.bring_up().map_err(device_error)
        }
    };
    let mac = mac.inspect_err(|_| {
        // Whatever state the device was left in, it does not reach memory.
        let _ = igb.hw.function().set_bus_master(false);
    })?;
    Ok(Arc::new(NicDevice(Core::new(igb, config, support, mac, vectors))))
}
