//! Which driver fits which PCI device: the one place that knows.

use std::sync::Arc;

use crate::bus::Function;
use crate::device::{Device, DeviceError, Features};
use crate::intel::{self, ModelFamily, Nic, NicConfig};
use crate::middleware::vlan::VlanDevice;
use crate::settings::NicSettings;
use crate::spec::OpenOptions;

/// What is known of a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The device's name, such as `82576`.
    pub name: &'static str,
    /// The driver here that fits it; `None` for cards that are known and not driven yet.
    pub driver: Option<&'static str>,
    /// True once the driver has run on an emulation of this very device; on a physical one none has.
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

/// Starts the driver that fits a function, and sets it as wanted.
///
/// # Errors
/// [`DeviceError::Config`] if none does, saying what the device is; else what the driver says.
pub fn open(
    function: Arc<dyn Function>,
    settings: &NicSettings,
    options: &OpenOptions,
) -> Result<Arc<dyn Device>, DeviceError> {
    let (vendor, device) = function.id();
    if intel::model(vendor, device).is_some() {
        let nic = open_nic(function, settings, options)?;
        return match settings.vlan {
            Some(vlan) => Ok(Arc::new(VlanDevice::new(nic, vlan)?)),
            None => Ok(nic),
        };
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

/// Starts an Intel card with these settings. With a VLAN it lets that one's frames in and offers to
/// insert tags; whoever sends has to ask for them.
///
/// # Errors
/// [`DeviceError`]: settings that this card cannot have, and what [`intel::open`] says.
pub fn open_nic(
    function: Arc<dyn Function>,
    settings: &NicSettings,
    options: &OpenOptions,
) -> Result<Arc<dyn Nic>, DeviceError> {
    let usual = NicConfig::new(options.queues);
    let config = NicConfig {
        offloads: options.offloads,
        mtu: options.mtu.unwrap_or(usual.mtu),
        mac: settings.mac,
        vlan: settings.vlan.is_some(),
        rss_key: settings.rss_key.unwrap_or(usual.rss_key),
        rss_table: settings.rss_table().unwrap_or(usual.rss_table),
        flow_control: settings.flow_control.unwrap_or(usual.flow_control),
        interrupt_interval_us: settings.moderation_us.unwrap_or(usual.interrupt_interval_us),
        ..usual
    };
    let nic = intel::open(function, config)?;
    check_settings(&*nic, settings)?;
    // Only what is asked for: the filters of a virtual function are not its own, and it says so.
    if settings.promiscuous {
        nic.set_promiscuous(true)?;
    }
    if settings.all_multicast {
        nic.set_all_multicast(true)?;
    }
    if !settings.multicast.is_empty() {
        nic.set_multicast(&settings.multicast)?;
    }
    if !settings.stations.is_empty() {
        nic.set_stations(&settings.stations)?;
    }
    if let Some(vlan) = settings.vlan {
        nic.set_vlan_filter(&[vlan.get()])?;
    }
    Ok(nic)
}

/// Refuses what would be without effect on this card.
fn check_settings(nic: &dyn Nic, settings: &NicSettings) -> Result<(), DeviceError> {
    let without = |what| Err(DeviceError::Config(format!("{} {what}", nic.name())));
    let rss = settings.rss_key.is_some() || !settings.rss_table.is_empty();
    if rss && !nic.capabilities().features.contains(Features::RSS_HASH) {
        return without("has no RSS of its own: leave `rss-key` and `rss-table` away");
    }
    if settings.moderation_us.is_some() && nic.link_event_fd().is_none() {
        return without("has no interrupts to moderate, it is polled: leave `moderation-us` away");
    }
    Ok(())
}
