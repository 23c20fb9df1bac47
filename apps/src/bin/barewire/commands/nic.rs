//! `barewire nic`: taking a network card from the kernel, giving it back, describing it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use barewire_driver::pci::{self, Bound, Config, PciAddress, PciFunction, System};
use barewire_driver::settings::SETTINGS;
use barewire_driver::{NicSettings, PciSpec, drivers};

use super::{nic_device, stats};
use crate::cli::NicCommand;
use crate::output::{self, Advice};

pub(crate) fn run(command: NicCommand) -> anyhow::Result<ExitCode> {
    let system = System::default();
    let lines = match command {
        NicCommand::Bind { address, take_in_use } => {
            told_bound(address, &pci::bind(&system, address, take_in_use)?)
        }
        NicCommand::Unbind { address } => {
            let driver = pci::unbind(&system, address)?;
            vec![match driver {
                Some(driver) => format!("{address} is back with {driver}"),
                None => format!("{address} is free; the kernel has no driver for it"),
            }]
        }
        NicCommand::Info { card: spec } => {
            let card = pci::find_card(&system, spec.address)?;
            let mut lines = described(&system, &card);
            lines.extend(config_lines(&system, spec.address));
            if card.is_bound() && drivers::support((card.vendor, card.device)).is_some() {
                lines.extend(nic_device::info_lines(&spec)?);
            } else {
                refuse_settings(&card, &spec)?;
            }
            lines
        }
        NicCommand::Settings => settings_lines(),
        NicCommand::Stats { card: spec, seconds } => {
            let card = pci::find_card(&system, spec.address)?;
            return stats(&system, &card, &spec, seconds.duration());
        }
        NicCommand::Test { address, unmapped_dma: true } => {
            nic_device::send_unmapped(address)?;
            vec![format!("{address} was told to read from where nothing is mapped; see `dmesg`")]
        }
        NicCommand::Test { address, unmapped_dma: false } => {
            let (lines, all) = nic_device::test_vectors(address)?;
            lines.into_iter().try_for_each(output::line)?;
            return Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    };
    for line in lines {
        output::line(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The hardware's counters, from whoever has the card.
fn stats(
    system: &System,
    card: &PciFunction,
    spec: &PciSpec,
    time: Duration,
) -> anyhow::Result<ExitCode> {
    if card.is_bound() {
        for (name, value) in nic_device::statistics(spec, time)? {
            stats::print_one(name, value)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    refuse_settings(card, spec)?;
    for interface in &card.interfaces {
        let dir = system.sys.join("class/net").join(&interface.name).join("statistics");
        for (name, value) in kernel_counters(&dir) {
            stats::print_one(&format!("{}.{name}", interface.name), value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses settings for a card that is not opened: they would be without effect.
fn refuse_settings(card: &PciFunction, spec: &PciSpec) -> anyhow::Result<()> {
    if spec.settings == NicSettings::default() {
        return Ok(());
    }
    let address = card.address;
    Err(match (card.is_bound(), &card.driver) {
        (true, _) => anyhow::anyhow!("{address} cannot be set: no driver of barewire fits it"),
        (false, driver) => Advice::new(
            format!("{address} cannot be set: {} has it", driver.as_deref().unwrap_or("no driver")),
            format!("sudo barewire nic bind {address}"),
        )
        .into(),
    })
}

/// The kernel's counters of an interface, by name.
fn kernel_counters(dir: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut counters: Vec<_> = entries
        .filter_map(|entry| {
            let value = std::fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
            Some((entry.file_name().into_string().ok()?, value))
        })
        .collect();
    counters.sort();
    counters
}

/// What can be set behind a card's address.
fn settings_lines() -> Vec<String> {
    let width = SETTINGS.iter().map(|(write, _)| write.chars().count()).max().unwrap_or(0);
    SETTINGS.iter().map(|(write, what)| format!("{write:width$}  {what}")).collect()
}

/// What happened, and what is left to do.
fn told_bound(address: PciAddress, bound: &Bound) -> Vec<String> {
    let mut lines = vec![match &bound.previous {
        Some(driver) => format!("{address} is bound to vfio-pci; {driver} had it"),
        None => format!("{address} is bound to vfio-pci"),
    }];
    for (other, driver) in &bound.blockers {
        lines.push(format!(
            "its IOMMU group is not usable yet, {driver} has {other}: sudo barewire nic bind {other}"
        ));
    }
    if let Some(node) = &bound.node {
        lines.push(format!("as an ordinary user: sudo chown \"$USER\" {}", node.display()));
    }
    lines.push(format!("use it with: --device pci:{address}"));
    lines.push(format!("give it back with: sudo barewire nic unbind {address}"));
    lines
}

/// What sysfs tells of a card, one property a line.
fn described(system: &System, card: &PciFunction) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |name: &str, value: String| lines.push(format!("{name:12} {value}"));
    let known = drivers::support((card.vendor, card.device));
    say("address", card.address.to_string());
    say(
        "card",
        format!(
            "{:04x}:{:04x}, {}{}",
            card.vendor,
            card.device,
            known.map_or("unknown", |known| known.name),
            if card.is_virtual { ", a virtual function" } else { "" }
        ),
    );
    say(
        "supported",
        match known.map(|known| (known.driver, known.tested, known.reason)) {
            Some((Some(driver), true, _)) => format!("by {driver}, tested in emulation"),
            Some((Some(driver), false, _)) => format!("by {driver}, untested"),
            Some((None, _, Some(why))) => format!("no: {why}"),
            Some((None, _, None)) | None => "no".into(),
        },
    );
    say("driver", card.driver.clone().unwrap_or_else(|| "none".into()));
    for interface in &card.interfaces {
        let link = match interface.carrier {
            Some(true) => ", link",
            Some(false) => ", no link",
            None => "",
        };
        let speed = interface.speed_mbps.map_or(String::new(), |mbps| format!(", {mbps} Mbit/s"));
        say("interface", format!("{}, {}{link}{speed}", interface.name, interface.state));
    }
    if let Some(usage) = pci::usage(system, card) {
        say("in use", usage.to_string());
    }
    say(
        "IOMMU group",
        match card.group {
            Some(group) if card.noiommu => format!("{group}, without an IOMMU"),
            Some(group) => {
                let members: Vec<String> =
                    card.group_members.iter().map(ToString::to_string).collect();
                format!("{group}: {}", members.join(" "))
            }
            None => "none".into(),
        },
    );
    if let Some(node) = card.numa_node {
        say("memory node", node.to_string());
    }
    if let Some(link) = &card.bus_link {
        say("bus", link.clone());
    }
    lines
}

/// What configuration space tells; an ordinary user may read no more than its header.
fn config_lines(system: &System, address: PciAddress) -> Vec<String> {
    let read = || {
        let config = Config::open(system, address)?;
        Ok((config.msix_vectors()?, config.has_function_reset()?, config.is_bus_master()?))
    };
    let answer: Result<_, pci::ConfigError> = read();
    match answer {
        Ok((vectors, reset, master)) => vec![
            format!("{:12} {vectors} MSI-X vectors", "interrupts"),
            format!("{:12} {}", "reset", if reset { "by function (FLR)" } else { "no FLR" }),
            format!("{:12} {}", "bus master", if master { "on" } else { "off" }),
        ],
        Err(error) => vec![format!("{:12} unknown: {error} (run it as root)", "interrupts")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::pci::Interface;

    fn card() -> PciFunction {
        PciFunction {
            address: "01:00.0".parse().unwrap(),
            vendor: 0x10ec,
            device: 0x8168,
            class: 0x02_0000,
            driver: Some("r8169".into()),
            interfaces: vec![Interface {
                name: "eth0".into(),
                state: "up".into(),
                carrier: Some(true),
                speed_mbps: Some(1000),
            }],
            group: Some(7),
            noiommu: false,
            group_members: vec!["01:00.0".parse().unwrap(), "01:00.1".parse().unwrap()],
            numa_node: Some(1),
            is_virtual: false,
            bus_link: Some("5.0 GT/s PCIe x4".into()),
            vfio_node: None,
        }
    }

    #[test]
    fn a_card_is_described_a_line_a_property() {
        let mut system = System::below(std::path::Path::new("/nonexistent"));
        system.addresses = |_| Vec::new();
        assert_eq!(
            described(&system, &card()),
            [
                "address      0000:01:00.0",
                "card         10ec:8168, unknown",
                "supported    no",
                "driver       r8169",
                "interface    eth0, up, link, 1000 Mbit/s",
                "IOMMU group  7: 0000:01:00.0 0000:01:00.1",
                "memory node  1",
                "bus          5.0 GT/s PCIe x4",
            ]
        );
        system.addresses = |_| vec![std::net::Ipv4Addr::new(192, 0, 2, 7)];
        let lines = described(&system, &card());
        assert!(lines[5].starts_with("in use       eth0 carries"), "{lines:?}");
        let unknown = config_lines(&system, "01:00.0".parse().unwrap());
        assert!(unknown[0].contains("run it as root"), "{unknown:?}");
    }

    #[test]
    fn settings_that_would_be_without_effect_are_refused() {
        let spec = |text: &str| text.parse::<PciSpec>().unwrap();
        assert!(refuse_settings(&card(), &spec("01:00.0")).is_ok());
        let error = refuse_settings(&card(), &spec("01:00.0,vlan=5")).unwrap_err();
        assert!(error.to_string().contains("cannot be set: r8169 has it"), "{error}");
        let bound = PciFunction { driver: Some("vfio-pci".into()), ..card() };
        let error = refuse_settings(&bound, &spec("01:00.0,promisc")).unwrap_err();
        assert!(error.to_string().contains("no driver of barewire fits"), "{error}");
    }

    #[test]
    fn settings_are_listed_one_a_line() {
        let lines = settings_lines();
        assert_eq!(lines.len(), SETTINGS.len());
        let vlan = lines.iter().find(|line| line.starts_with("vlan=5 ")).unwrap();
        assert!(vlan.ends_with(
            "  be on this VLAN: tag what is sent, take what has its tag and nothing else"
        ));
    }

    #[test]
    fn after_binding_it_is_said_what_is_left_to_do() {
        let bound = Bound {
            previous: Some("igb".into()),
            blockers: vec![("01:00.1".parse().unwrap(), "igb".into())],
            node: Some("/dev/vfio/7".into()),
        };
        let lines = told_bound("01:00.0".parse().unwrap(), &bound);
        assert_eq!(lines[0], "0000:01:00.0 is bound to vfio-pci; igb had it");
        assert!(lines[1].ends_with("sudo barewire nic bind 0000:01:00.1"));
        assert_eq!(lines[2], "as an ordinary user: sudo chown \"$USER\" /dev/vfio/7");
        assert_eq!(lines[4], "give it back with: sudo barewire nic unbind 0000:01:00.0");
    }
}
