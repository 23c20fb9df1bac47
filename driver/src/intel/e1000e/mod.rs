//! e1000e: 82574 and its relatives 82571 to 82583.
//!
//! Extended descriptors; one queue pair, or two with RSS on the 82574. Only the 82574L has been run
//! (see [`Support`]). The other controllers have no MSI-X: they are polled.

mod init;
mod queue;
mod regs;

use std::sync::Arc;

use super::hw::Hw;
use super::nic::{Core, ETHERNET_LEN, FCS_LEN, NicDevice, VLAN_LEN};
use super::{Model, ModelFamily, Nic, NicConfig, Support, device_error, enable_vectors};
use crate::bus::Function;
use crate::device::DeviceError;

/// Which controller it is, where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// 82574: two queues, five MSI-X vectors.
    I82574,
    /// 82583: an 82574 with one queue and no MSI-X.
    I82583,
    /// 82571, 82572: no MSI-X.
    I82571,
}

impl Chip {
    /// Queue pairs of the controller.
    pub fn queues(self) -> u16 {
        match self {
            Chip::I82574 => 2,
            Chip::I82583 | Chip::I82571 => 1,
        }
    }

    fn has_vectors(self) -> bool {
        match self {
            Chip::I82574 => true,
            Chip::I82583 | Chip::I82571 => false,
        }
    }
}

/// The controllers by PCI device id.
pub(super) fn models() -> impl Iterator<Item = Model> {
    use Chip::{I82571, I82574, I82583};
    use Support::{Emulated, Untested};
    [
        (0x10d3, "82574L", I82574, Emulated),
        (0x10f6, "82574LA", I82574, Untested),
        (0x150c, "82583V", I82583, Untested),
        (0x105e, "82571EB copper", I82571, Untested),
        (0x10a4, "82571EB quad copper", I82571, Untested),
        (0x10bc, "82571EB quad copper, low profile", I82571, Untested),
        (0x107d, "82572EI copper", I82571, Untested),
        (0x10b9, "82572EI", I82571, Untested),
    ]
    .into_iter()
    .map(|(device, name, chip, support)| Model {
        device,
        name,
        family: ModelFamily::E1000e(chip),
        support,
    })
}

/// Largest MTU: the longest frame has 9,234 bytes (82574 §1.3), its tag and its check sequence
/// included.
const MOST_MTU: u16 = 9234 - (ETHERNET_LEN + VLAN_LEN + FCS_LEN) as u16;

/// An e1000e controller.
#[derive(Debug)]
pub(super) struct E1000e {
    hw: Hw,
    chip: Chip,
    config: NicConfig,
}

/// Resets and configures the device; see `init`.
pub(super) fn open(
    function: Arc<dyn Function>,
    chip: Chip,
    support: Support,
    config: NicConfig,
) -> Result<Arc<dyn Nic>, DeviceError> {
    config.check(chip.queues())?;
    if config.mtu > MOST_MTU {
        return Err(DeviceError::Mtu {
            device: function.address(),
            wanted: config.mtu,
            most: MOST_MTU,
            why: "its longest frame has 9234 bytes, a tag and the check sequence included",
        });
    }
    let vectors = match chip.has_vectors() {
        true => enable_vectors(&*function, config.queues).map_err(device_error)?,
        false => Vec::new(),
    };
    let e1000e = E1000e { hw: Hw::new(function), chip, config: config.clone() };
    let mac = e1000e.bring_up().map_err(|error| {
        // Whatever state the device was left in, it does not reach memory.
        let _ = e1000e.hw.function().set_bus_master(false);
        device_error(error)
    })?;
    Ok(Arc::new(NicDevice(Core::new(e1000e, config, support, mac, vectors))))
}
