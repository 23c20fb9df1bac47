//! How a user names a device on a command line.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::cable::{self, CableConfig};
use crate::device::{Device, DeviceError, Features};
use crate::drivers;
use crate::pci::{BadAddress, PciAddress, System};
use crate::settings::{NicSettings, SettingError};
use crate::sys::MAX_INTERFACE_NAME;
use crate::tap::{TapConfig, TapDevice};
use crate::vfio::{Access, VfioFunction};

/// A device as a user names it, such as `tap:bw0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// A tap interface of the kernel, by name.
    Tap(String),
    /// One end of an in-memory cable, by name: whoever opens the name first gets one end, whoever
    /// opens it next in the same process the other.
    Cable(String),
    /// A network card behind an IOMMU.
    Pci(PciSpec),
    /// A network card that is driven without an IOMMU. See
    /// [`NOIOMMU_WARNING`](crate::vfio::NOIOMMU_WARNING).
    PciNoIommu(PciSpec),
}

/// A network card by its PCI address, and what it is set to: `0000:01:00.0,vlan=5,flow-control=full`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PciSpec {
    /// Where it is.
    pub address: PciAddress,
    /// What it is set to.
    pub settings: NicSettings,
}

impl From<PciAddress> for PciSpec {
    /// The card as the driver sets it up by itself.
    fn from(address: PciAddress) -> PciSpec {
        PciSpec { address, settings: NicSettings::default() }
    }
}

impl FromStr for PciSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<PciSpec, SpecError> {
        let (address, settings) = match text.split_once(',') {
            Some((address, settings)) => (address, settings.parse()?),
            None => (text, NicSettings::default()),
        };
        Ok(PciSpec { address: address.parse()?, settings })
    }
}

impl fmt::Display for PciSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, self.settings)
    }
}

/// Why a string names no device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no kind before a colon, or nothing at all.
    #[error("`{0}` does not say what kind of device it is; {ALLOWED}{hint}", hint = suggestion(.0))]
    NoKind(String),
    /// The kind is not known.
    #[error("`{0}` is not a kind of device; {ALLOWED}")]
    UnknownKind(String),
    /// The name is empty, too long or holds a character that no interface name may have.
    #[error(
        "`{0}` cannot be a device's name: 1 to {MAX_INTERFACE_NAME} bytes without `/`, `:` or \
         spaces, and not `.` or `..`; for example `bw0`"
    )]
    BadName(String),
    /// What follows `pci:` is no PCI address.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// What follows a card's address is none of its settings.
    #[error(transparent)]
    BadSetting(#[from] SettingError),
    /// Only cards have settings.
    #[error("`{0}` has settings behind a comma, which only cards (pci:ADDRESS) take")]
    NoSettings(String),
}

const ALLOWED: &str = "allowed are tap:NAME, such as `tap:bw0`, cable:NAME, such as `cable:a`, and \
                       pci:ADDRESS, such as `pci:0000:01:00.0`, with settings behind it, such as \
                       `pci:0000:01:00.0,vlan=5`";

/// What the writer of a bare name may have meant.
fn suggestion(text: &str) -> String {
    if is_card(text) {
        return format!("; did you mean `pci:{text}`?");
    }
    match check_interface_name(text) {
        Ok(()) => format!("; did you mean `tap:{text}`?"),
        Err(_) => String::new(),
    }
}

/// True for an address of a card, whatever follows it.
fn is_card(text: &str) -> bool {
    text.split(',').next().is_some_and(|address| address.parse::<PciAddress>().is_ok())
}

/// Refuses names that the kernel refuses for an interface (`dev_valid_name`), so that the reason
/// can be told.
pub(crate) fn check_interface_name(name: &str) -> Result<(), SpecError> {
    let bad_byte =
        |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
    let bad = name.is_empty()
        || name.len() > MAX_INTERFACE_NAME
        || name == "."
        || name == ".."
        // A percent sign is a pattern: the kernel would make another name out of it.
        || name.contains('%')
        || name.bytes().any(bad_byte);
    if bad { Err(SpecError::BadName(name.to_owned())) } else { Ok(()) }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<DeviceSpec, SpecError> {
        let no_kind = || SpecError::NoKind(text.to_owned());
        if is_card(text) {
            // An address has colons of its own, and the first one ends no kind.
            return Err(no_kind());
        }
        let (kind, name) = text.split_once(':').ok_or_else(no_kind)?;
        let make = match kind {
            "pci" => return Ok(DeviceSpec::Pci(name.parse()?)),
            "pci-noiommu" => return Ok(DeviceSpec::PciNoIommu(name.parse()?)),
            "tap" => DeviceSpec::Tap,
            "cable" => DeviceSpec::Cable,
            "" => return Err(no_kind()),
            _ => return Err(SpecError::UnknownKind(kind.to_owned())),
        };
        check_interface_name(name.split(',').next().unwrap_or(name))?;
        if name.contains(',') {
            return Err(SpecError::NoSettings(text.to_owned()));
        }
        Ok(make(name.to_owned()))
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Tap(name) => write!(f, "tap:{name}"),
            DeviceSpec::Cable(name) => write!(f, "cable:{name}"),
            DeviceSpec::Pci(card) => write!(f, "pci:{card}"),
            DeviceSpec::PciNoIommu(card) => write!(f, "pci-noiommu:{card}"),
        }
    }
}

/// What to ask of a device whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Queue pairs, one for each engine.
    pub queues: u16,
    /// Offer checksum and segmentation offload where the device can do it.
    pub offloads: bool,
    /// MTU in bytes; `None` leaves the device's own.
    pub mtu: Option<u16>,
    /// For a tap: address and prefix length of the kernel's side.
    pub kernel_address: Option<(Ipv4Addr, u8)>,
}

impl Default for OpenOptions {
    /// One queue, with offloads, everything else as the device has it.
    fn default() -> OpenOptions {
        OpenOptions { queues: 1, offloads: true, mtu: None, kernel_address: None }
    }
}

/// Opens the device that `spec` names.
///
/// # Errors
/// [`DeviceError`]; where a right is missing it holds the command to run.
pub fn open_device(
    spec: &DeviceSpec,
    options: &OpenOptions,
) -> Result<Arc<dyn Device>, DeviceError> {
    match spec {
        DeviceSpec::Tap(name) => Ok(Arc::new(TapDevice::open(TapConfig {
            queues: options.queues,
            offloads: options.offloads,
            mtu: options.mtu,
            kernel_address: options.kernel_address,
            ..TapConfig::new(name)
        })?)),
        DeviceSpec::Cable(name) => {
            let mut config = CableConfig { queues: options.queues, ..CableConfig::new(name) };
            if !options.offloads {
                config.features = Features::SCATTER_GATHER;
            }
            config.mtu = options.mtu.unwrap_or(config.mtu);
            Ok(Arc::new(cable::open_named(config)?))
        }
        DeviceSpec::Pci(card) => open_pci(spec, card, Access::Auto, options),
        DeviceSpec::PciNoIommu(card) => open_pci(spec, card, Access::NoIommu, options),
    }
}

fn open_pci(
    spec: &DeviceSpec,
    card: &PciSpec,
    access: Access,
    options: &OpenOptions,
) -> Result<Arc<dyn Device>, DeviceError> {
    let function = VfioFunction::open(&System::default(), card.address, access)
        .map_err(|error| error.on_open(spec.to_string()))?;
    drivers::open(Arc::new(function), &card.settings, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_print_as_they_are_read() {
        for text in [
            "tap:bw0",
            "cable:a",
            "tap:fifteen-bytes-x",
            "pci:0000:01:00.0",
            "pci-noiommu:10000:e1:1f.7",
            "pci:0000:01:00.0,mac=02:00:00:00:00:05,promisc,vlan=5,rss-table=0/1",
            "pci-noiommu:0000:01:00.0,flow-control=full",
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        assert_eq!("tap:bw0".parse(), Ok(DeviceSpec::Tap("bw0".into())));
    }

    #[test]
    fn a_bad_spec_says_what_is_allowed() {
        for (text, said) in [
            ("", "`tap:bw0`"),
            ("eth0", "did you mean `tap:eth0`?"),
            (":x", "allowed are tap:NAME"),
            ("tun:x", "`tun` is not a kind of device; allowed are tap:NAME"),
            ("TAP:x", "`TAP` is not a kind of device"),
            ("tap:", "`` cannot be a device's name"),
            ("tap:sixteen-bytes-xx", "1 to 15 bytes"),
            ("tap:a/b", "`a/b` cannot"),
            ("tap:a b", "without `/`, `:` or spaces"),
            ("cable:a:b", "`a:b` cannot"),
            ("tap:..", "`..` cannot"),
            ("tap:bw%d", "`bw%d` cannot"),
            ("pci:eth0", "`eth0` is not a PCI address"),
            ("pci:", "such as `0000:01:00.0`"),
            ("pci:,vlan=5", "such as `0000:01:00.0`"),
            ("pci:vlan=5,01:00.0", "no setting of a card"),
            ("pci:01:00.0,", "`` is no setting of a card; there are mac="),
            ("pci:01:00.0,vlan=0", "write it as `vlan=5`"),
            ("01:00.0,vlan=5", "did you mean `pci:01:00.0,vlan=5`?"),
            ("tap:bw0,vlan=5", "only cards (pci:ADDRESS)"),
            ("tap:,vlan=5", "`` cannot be a device's name"),
            ("01:00.0", "did you mean `pci:01:00.0`?"),
            ("0000:01:00.0", "did you mean `pci:0000:01:00.0`?"),
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(!"a b".parse::<DeviceSpec>().unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn a_card_that_is_not_there_is_refused_with_where_to_look() {
        for text in ["pci:ffff:ff:1f.7", "pci-noiommu:ffff:ff:1f.7"] {
            let spec: DeviceSpec = text.parse().unwrap();
            let error = open_device(&spec, &OpenOptions::default()).unwrap_err().to_string();
            assert!(error.contains(&format!("opening {text}: there is no PCI device")), "{error}");
        }
    }

    #[test]
    fn a_cable_is_opened_by_its_name() {
        let spec: DeviceSpec = "cable:spec-a".parse().unwrap();
        let options = OpenOptions { offloads: false, mtu: Some(9000), ..OpenOptions::default() };
        let (a, b) = (open_device(&spec, &options).unwrap(), open_device(&spec, &options).unwrap());
        assert_eq!((a.name(), b.name()), (spec.to_string(), spec.to_string()));
        assert_ne!(a.mac(), b.mac());
        let offered = a.capabilities();
        assert_eq!((offered.features, offered.mtu), (Features::SCATTER_GATHER, 9000));
        assert!(matches!(open_device(&spec, &options), Err(DeviceError::Config(_))));
    }
}
