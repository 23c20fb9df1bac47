//! Which driver fits which PCI device: the one place that knows.

use std::sync::Arc;

use crate::bus::Function;
use crate::device::{Device, DeviceError};

/// What is known of a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The device's name, such as `82576`.
    pub name: &'static str,
    /// The driver here that fits it; `None` for cards that are known and not driven yet.
    pub driver: Option<&'static str>,
    /// True once the driver has run on this very device, or on an emulation of it.
    pub tested: bool,
}

/// What is known of the device with this vendor and device id.
pub fn support(id: (u16, u16)) -> Option<Support> {
    let (name, driver, tested) = match id {
        (0x8086, 0x10c9) => ("82576", None, false),
        (0x8086, 0x10d3) => ("82574L", None, false),
        (0x8086, 0x10fb) => ("82599ES", None, false),
        (0x1af4, 0x1000 | 0x1041) => ("virtio-net", None, false),
        _ => return None,
    };
    Some(Support { name, driver, tested })
}

/// Starts the driver that fits a function.
///
/// # Errors
/// [`DeviceError::Config`] if none does, saying what the device is; else what the driver says.
pub fn open(function: Arc<dyn Function>) -> Result<Arc<dyn Device>, DeviceError> {
    let (vendor, device) = function.id();
    let known = support((vendor, device)).map_or("a card that is not known", |known| known.name);
    Err(DeviceError::Config(format!(
        "no driver of this version fits {} ({vendor:04x}:{device:04x}, {known}); `barewire devices` \
         lists what is supported",
        function.address()
    )))
}
