//! Which driver fits which PCI device: the one place that knows.

use std::sync::Arc;

use crate::bus::Function;
use crate::device::{Device, DeviceError};
use crate::intel::{self, ModelFamily, NicConfig};
use crate::spec::OpenOptions;

/// What is known of a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The device's name, such as `82576`.
    pub name: &'static str,
    /// The driver here that fits it; `None` for cards that are known and not driven yet.
    pub driver: Option<&'static str>,
    /// True once the driver has run on this very device, or on an emulation of it.
    pub tested: bool,
    /// Why no driver here fits it, where there is more to say than that none has been written.
    pub reason: Option<&'static str>,
}

/// What is known of the device with this vendor and device id.
pub fn support(id: (u16, u16)) -> Option<Support> {
    if let Some(model) = intel::model(id.0, id.1) {
        let driver = match model.family {
            ModelFamily::Igb(_) => "igb",
            ModelFamily::E1000e(_) => "e1000e",
        };
        let tested = model.support == intel::Support::Emulated;
        return Some(Support { name: model.name, driver: Some(driver), tested, reason: None });
    }
    if let Some((name, why)) = intel::undriven(id.0, id.1) {
        return Some(Support { name, driver: None, tested: false, reason: Some(why) });
    }
    let name = match id {
        (0x8086, 0x10fb) => "82599ES",
        (0x1af4, 0x1000 | 0x1041) => "virtio-net",
        _ => return None,
    };
    Some(Support { name, driver: None, tested: false, reason: None })
}

/// Starts the driver that fits a function.
///
/// # Errors
/// [`DeviceError::Config`] if none does, saying what the device is; else what the driver says.
pub fn open(
    function: Arc<dyn Function>,
    options: &OpenOptions,
) -> Result<Arc<dyn Device>, DeviceError> {
    let (vendor, device) = function.id();
    if intel::model(vendor, device).is_some() {
        let config = NicConfig {
            offloads: options.offloads,
            mtu: options.mtu.unwrap_or(NicConfig::default().mtu),
            ..NicConfig::new(options.queues)
        };
        return Ok(intel::open(function, config)?);
    }
    let known = match support((vendor, device)) {
        Some(Support { name, reason: Some(why), .. }) => format!("{name}: {why}"),
        Some(known) => known.name.into(),
        None => "a card that is not known".into(),
    };
    Err(DeviceError::Config(format!(
        "no driver of this version fits {} ({vendor:04x}:{device:04x}, {known}); `barewire devices` \
         lists what is supported",
        function.address()
    )))
}
