//! One function on the bus, as sysfs describes it.

use std::path::PathBuf;

use thiserror::Error;

use super::{PciAddress, System, VFIO_DRIVER, hex, link_name, names, number, text};

/// The base class of network controllers (PCI Code and ID Assignment §1.3).
const CLASS_NETWORK: u8 = 0x02;

/// The base class of bridges: a group with a bridge in it is viable whatever drives the bridge.
const CLASS_BRIDGE: u8 = 0x06;

/// A kernel interface on a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Such as `eth0`.
    pub name: String,
    /// `up`, `down` or another word of RFC 2863's.
    pub state: String,
    /// True with a link; `None` while the interface is down, for then the kernel does not say.
    pub carrier: Option<bool>,
    /// Speed in Mbit/s, where there is a link.
    pub speed_mbps: Option<u32>,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// The kernel driver that holds it.
    pub driver: Option<String>,
    /// The interfaces that the kernel has made of it, in this network namespace.
    pub interfaces: Vec<Interface>,
    /// Its IOMMU group; `None` without an IOMMU.
    pub group: Option<u32>,
    /// True for a group that stands for no IOMMU at all.
    pub noiommu: bool,
    /// Every function in the group, this one included.
    pub group_members: Vec<PciAddress>,
    /// The memory node that it is close to, on machines with several.
    pub numa_node: Option<u32>,
    /// True for a virtual function of SR-IOV.
    pub is_virtual: bool,
    /// Speed and width of its link to the machine, such as `5.0 GT/s PCIe x4`.
    pub bus_link: Option<String>,
    /// Its node in `/dev/vfio/devices`, where VFIO holds it and the kernel makes such nodes.
    pub vfio_node: Option<String>,
}

/// Why a function is not found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindError {
    /// There is no such function.
    #[error("there is no PCI device at {0}; `barewire devices` lists what there is")]
    Absent(PciAddress),
    /// It is no network card.
    #[error(
        "{address} is no network card (class {class:06x}); `barewire devices` lists those there are"
    )]
    NotNetwork {
        /// The function.
        address: PciAddress,
        /// What it is.
        class: u32,
    },
}

impl PciFunction {
    /// True for a network controller.
    pub fn is_network(&self) -> bool {
        self.base_class() == CLASS_NETWORK
    }

    /// True for a bridge.
    pub fn is_bridge(&self) -> bool {
        self.base_class() == CLASS_BRIDGE
    }

    /// True if VFIO holds it.
    pub fn is_bound(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_DRIVER)
    }

    fn base_class(&self) -> u8 {
        (self.class >> 16) as u8
    }

    /// The members of its group that keep VFIO from giving the group out: those that another driver
    /// holds, with that driver. Bridges do not.
    pub fn group_blockers(&self, system: &System) -> Vec<(PciAddress, String)> {
        let others = self.group_members.iter().filter_map(|&member| find(system, member).ok());
        let blocking = others.filter(|other| !other.is_bridge() && !other.is_bound());
        blocking.filter_map(|other| Some((other.address, other.driver?))).collect()
    }

    /// The group's node below `/dev/vfio`.
    pub fn group_node(&self, system: &System) -> Option<PathBuf> {
        let name = if self.noiommu { "noiommu-" } else { "" };
        self.group.map(|group| system.dev.join(format!("vfio/{name}{group}")))
    }
}

/// Every network function, in the order of their addresses.
pub fn list(system: &System) -> Vec<PciFunction> {
    let names = names(&system.pci().join("devices"));
    let addresses = names.iter().filter_map(|name| name.parse().ok());
    let functions = addresses.filter_map(|address| find(system, address).ok());
    functions.filter(PciFunction::is_network).collect()
}

/// The function at an address, of whatever class.
///
/// # Errors
/// [`FindError::Absent`] if there is none.
pub fn find(system: &System, address: PciAddress) -> Result<PciFunction, FindError> {
    let dir = directory(system, address);
    let id = |file: &str| hex(&dir.join(file)).and_then(|id| u16::try_from(id).ok());
    let (Some(vendor), Some(device), Some(class)) =
        (id("vendor"), id("device"), hex(&dir.join("class")))
    else {
        return Err(FindError::Absent(address));
    };
    let group = link_name(&dir.join("iommu_group")).and_then(|group| group.parse().ok());
    let group_dir = dir.join("iommu_group");
    let members = names(&group_dir.join("devices"));
    Ok(PciFunction {
        address,
        vendor,
        device,
        class,
        driver: link_name(&dir.join("driver")),
        interfaces: interfaces(system, address),
        group,
        noiommu: text(&group_dir.join("name")).is_some_and(|name| name == "vfio-noiommu"),
        group_members: members.iter().filter_map(|name| name.parse().ok()).collect(),
        // The kernel writes -1 on machines with one node.
        numa_node: number(&dir.join("numa_node")).and_then(|node| u32::try_from(node).ok()),
        is_virtual: dir.join("physfn").exists(),
        bus_link: bus_link(system, address),
        vfio_node: names(&dir.join("vfio-dev")).into_iter().next(),
    })
}

/// The network card at an address.
///
/// # Errors
/// [`FindError`] if there is none, and if what is there is something else.
pub fn find_card(system: &System, address: PciAddress) -> Result<PciFunction, FindError> {
    let function = find(system, address)?;
    match function.is_network() {
        true => Ok(function),
        false => Err(FindError::NotNetwork { address, class: function.class }),
    }
}

/// The function's directory in sysfs.
pub(super) fn directory(system: &System, address: PciAddress) -> PathBuf {
    system.pci().join("devices").join(address.to_string())
}

fn bus_link(system: &System, address: PciAddress) -> Option<String> {
    let dir = directory(system, address);
    let speed = text(&dir.join("current_link_speed"))?;
    Some(format!("{speed} x{}", text(&dir.join("current_link_width"))?))
}

/// The interfaces below a function: its own, or for virtio those of the device on its bus.
fn interfaces(system: &System, address: PciAddress) -> Vec<Interface> {
    let dir = directory(system, address);
    let virtio = names(&dir).into_iter().filter(|name| name.starts_with("virtio"));
    let places = std::iter::once(dir.clone()).chain(virtio.map(|name| dir.join(name)));
    let mut found = Vec::new();
    for place in places.map(|place| place.join("net")) {
        for name in names(&place) {
            let own = place.join(&name);
            let carrier = number(&own.join("carrier")).map(|carrier| carrier == 1);
            let speed = number(&own.join("speed")).and_then(|speed| u32::try_from(speed).ok());
            let state = text(&own.join("operstate")).unwrap_or_else(|| "unknown".into());
            found.push(Interface { name, state, carrier, speed_mbps: speed });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fake_tree::Tree;
    use super::*;

    #[test]
    fn a_card_is_described_as_sysfs_shows_it() {
        let tree = Tree::new("function");
        tree.card("0000:01:00.0", 0x8086, 0x10c9).driver("igb").group(7).interface("eth1");
        tree.card("0000:00:01.0", 0x8086, 0x1234).class(0x06_0400).driver("pcieport").group(7);
        tree.card("0000:02:00.0", 0x1af4, 0x1041).file("virtio3/net/eth0/operstate", "down\n");
        let found = list(&tree.system);
        assert_eq!(found.len(), 2, "bridges are no cards");
        let card = &found[0];
        assert_eq!((card.vendor, card.device), (0x8086, 0x10c9));
        assert_eq!((card.driver.as_deref(), card.group), (Some("igb"), Some(7)));
        assert_eq!(card.group_members.len(), 2);
        assert_eq!((card.numa_node, card.is_virtual, card.noiommu), (None, false, false));
        assert_eq!(
            card.interfaces,
            [Interface {
                name: "eth1".into(),
                state: "up".into(),
                carrier: Some(true),
                speed_mbps: Some(1000)
            }]
        );
        assert_eq!(found[1].interfaces[0].name, "eth0", "virtio keeps them a level below");
        assert_eq!(found[1].interfaces[0].carrier, None);
    }

    #[test]
    fn only_members_that_another_driver_holds_block_a_group() {
        let tree = Tree::new("blockers");
        tree.card("0000:01:00.0", 0x8086, 0x10c9).driver("vfio-pci").group(7);
        tree.card("0000:01:00.1", 0x8086, 0x10c9).driver("igb").group(7);
        tree.card("0000:01:00.2", 0x8086, 0x10c9).group(7);
        tree.card("0000:00:01.0", 0x8086, 0x1234).class(0x06_0400).driver("pcieport").group(7);
        let card = find(&tree.system, "01:00.0".parse().unwrap()).unwrap();
        assert!(card.is_bound());
        let blockers = card.group_blockers(&tree.system);
        assert_eq!(blockers, [("01:00.1".parse().unwrap(), "igb".to_owned())]);
        assert_eq!(card.group_node(&tree.system).unwrap(), tree.system.dev.join("vfio/7"));
    }

    #[test]
    fn what_is_not_there_is_said_to_be_not_there() {
        let tree = Tree::new("absent");
        let error = find(&tree.system, "01:00.0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no PCI device at 0000:01:00.0"));
        tree.card("0000:02:00.0", 0x10de, 0x1234).class(0x03_0000);
        let display = "02:00.0".parse().unwrap();
        assert!(find(&tree.system, display).is_ok());
        let error = find_card(&tree.system, display).unwrap_err();
        assert_eq!(error, FindError::NotNetwork { address: display, class: 0x03_0000 });
        assert_eq!(list(&tree.system), []);
    }
}
