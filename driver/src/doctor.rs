//! What this machine has for driving a network card, and what it lacks: one row a check, each lack
//! with the command that mends it.
//!
//! ```text
//!   card ─ supported by a driver ─ IOMMU ─ VFIO ─ bound ─ group viable ─ node may be opened
//!   memory: lockable bytes, hugepages                      without a card: tap
//! ```
//!
//! The checks only read: no device is opened, none is bound. They look at a [`System`], so a test
//! makes a machine of files that lacks one thing at a time.

use std::fmt;

use crate::drivers;
use crate::mem::PoolConfig;
use crate::pci::{self, PciFunction, System, VFIO_DRIVER, names, text};
use crate::vfio::NOIOMMU_WARNING;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is as it should be.
    Pass,
    /// A card can be driven, less well than it could be.
    Warn,
    /// No card can be driven before this is mended.
    Fail,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Pass => "pass",
            Status::Warn => "warn",
            Status::Fail => "fail",
        })
    }
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was looked at.
    pub check: String,
    /// What was found.
    pub status: Status,
    /// The finding in words.
    pub detail: String,
    /// The command or step that mends it; always there for a failure.
    pub fix: Option<String>,
}

impl Row {
    fn pass(check: impl Into<String>, detail: impl Into<String>) -> Row {
        Row { check: check.into(), status: Status::Pass, detail: detail.into(), fix: None }
    }

    fn warn(check: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Row {
        let (check, detail, fix) = (check.into(), detail.into(), Some(fix.into()));
        Row { check, status: Status::Warn, detail, fix }
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Row {
        Row { status: Status::Fail, ..Row::warn(check, detail, fix) }
    }
}

/// Runs every check, in the order in which a user mends things.
pub fn run(system: &System) -> Vec<Row> {
    let cards = pci::list(system);
    let mut rows = vec![cards_row(&cards), iommu(system)];
    rows.extend(interrupt_remapping(system));
    rows.extend([module(system), interface(system)]);
    rows.extend(noiommu(system));
    let some_bound = cards.iter().any(PciFunction::is_bound);
    for card in cards.iter().filter(|card| drivable(card) || card.is_bound()) {
        rows.extend(card_rows(system, card, some_bound));
    }
    rows.extend([locked_memory(system), hugepages(system), tap(system)]);
    rows
}

/// True if a driver here fits the card.
fn drivable(card: &PciFunction) -> bool {
    drivers::support((card.vendor, card.device)).is_some_and(|known| known.driver.is_some())
}

fn cards_row(cards: &[PciFunction]) -> Row {
    let name = |card: &PciFunction| {
        let known = drivers::support((card.vendor, card.device));
        let (address, vendor, device) = (card.address, card.vendor, card.device);
        let known = known.map_or(String::new(), |known| format!(", {}", known.name));
        format!("{address} ({vendor:04x}:{device:04x}{known})")
    };
    let list =
        |cards: &[&PciFunction]| cards.iter().map(|card| name(card)).collect::<Vec<_>>().join(", ");
    let fitting: Vec<&PciFunction> = cards.iter().filter(|card| drivable(card)).collect();
    let fix =
        "put in a card from the table of supported ones in the README, or use `--device tap:bw0`";
    match (&fitting[..], cards) {
        ([], []) => Row::fail("network card", "there is none on the PCI bus", fix),
        ([], cards) => {
            let all = list(&cards.iter().collect::<Vec<_>>());
            Row::fail("network card", format!("no driver fits {all}"), fix)
        }
        (fitting, _) => Row::pass("network card", list(fitting)),
    }
}

fn iommu(system: &System) -> Row {
    let groups = names(&system.sys.join("kernel/iommu_groups")).len();
    let units = names(&system.sys.join("class/iommu"));
    if groups > 0 && !units.is_empty() {
        return Row::pass("IOMMU", format!("{} with {groups} groups", units.join(", ")));
    }
    if groups > 0 {
        // Groups without a unit are those that noiommu makes.
        return Row::fail("IOMMU", "off or missing: its groups protect nothing", iommu_fix(system));
    }
    Row::fail("IOMMU", "off or missing: the kernel has made no groups", iommu_fix(system))
}

fn iommu_fix(system: &System) -> String {
    let processor = text(&system.proc.join("cpuinfo")).unwrap_or_default();
    let (unit, option) = if processor.contains("GenuineIntel") {
        (
            "VT-d",
            "add intel_iommu=on to the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then sudo update-grub)",
        )
    } else if processor.contains("AuthenticAMD") {
        ("AMD-Vi (IOMMU)", "remove amd_iommu=off from the kernel's command line if it is there")
    } else {
        ("the IOMMU", "take iommu=off from the kernel's command line if it is there")
    };
    format!("switch {unit} on in the firmware, {option}, and boot again")
}

/// Whether the IOMMU remaps interrupts: on x86 the names of the kernel's interrupt chips begin with
/// `IR-` then. Without, VFIO refuses a group, unless it was told to go without.
fn interrupt_remapping(system: &System) -> Option<Row> {
    let check = "interrupt remapping";
    let dir = system.sys.join("kernel/irq");
    let chips: Vec<String> =
        names(&dir).iter().filter_map(|irq| text(&dir.join(irq).join("chip_name"))).collect();
    let plain = |chip: &String| chip.contains("IO-APIC") || chip.contains("PCI-MSI");
    if chips.iter().any(|chip| chip.starts_with("IR-")) {
        return Some(Row::pass(check, "on"));
    }
    if !has_unit(system) || !chips.iter().any(plain) {
        return None;
    }
    let file = system.sys.join("module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    let firmware = "switch interrupt remapping (x2APIC) on in the firmware";
    Some(match text(&file).as_deref() {
        Some("Y" | "1") => Row::warn(
            check,
            "off, and VFIO was told to go without: a device could forge interrupts",
            firmware,
        ),
        _ => Row::fail(
            check,
            "off, so VFIO refuses every group",
            format!("{firmware}; where devices are trusted: echo Y | sudo tee {}", file.display()),
        ),
    })
}

/// True if the kernel drives an IOMMU.
fn has_unit(system: &System) -> bool {
    !names(&system.sys.join("class/iommu")).is_empty()
}

fn module(system: &System) -> Row {
    let check = "kernel driver vfio-pci";
    if system.pci().join("drivers").join(VFIO_DRIVER).exists() {
        return Row::pass(check, "loaded");
    }
    let release = text(&system.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let modules = system.modules.join(&release).join("kernel/drivers/vfio/pci");
    if names(&modules).iter().any(|module| module.starts_with("vfio-pci.ko")) {
        return Row::fail(check, "not loaded", "sudo modprobe vfio-pci");
    }
    Row::fail(
        check,
        format!("not loaded, and there is no such module for this kernel ({release})"),
        "boot a kernel that has it (CONFIG_VFIO_PCI), such as Debian's linux-image-amd64; in a \
         container, outside of it: sudo modprobe vfio-pci",
    )
}

fn interface(system: &System) -> Row {
    let check = "VFIO interface";
    let (container, iommufd) = (system.dev.join("vfio/vfio"), system.dev.join("iommu"));
    let found: Vec<String> = [&container, &iommufd]
        .into_iter()
        .filter(|node| node.exists())
        .map(|node| node.display().to_string())
        .collect();
    if found.is_empty() {
        return Row::fail(
            check,
            format!("{} does not exist", container.display()),
            "sudo modprobe vfio-pci  (in a container: start it with --device /dev/vfio)",
        );
    }
    if !container.exists() {
        let detail = format!("{} alone: this path has not run on a kernel yet", found[0]);
        return Row::warn(check, detail, "sudo modprobe vfio_iommu_type1");
    }
    if !(system.may_open)(&container) {
        let node = container.display();
        let detail = format!("{node} may not be opened by this user");
        return Row::fail(check, detail, format!("sudo chmod 0666 {node}  (as udev makes it)"));
    }
    Row::pass(check, found.join(", "))
}

fn noiommu(system: &System) -> Option<Row> {
    pci::noiommu_enabled(system).then(|| {
        Row::warn(
            "noiommu",
            format!("the kernel allows it. With pci-noiommu: {NOIOMMU_WARNING}"),
            "echo N | sudo tee /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        )
    })
}

/// The checks of one card: who has it, whether its group can be used, whether by this user. One that
/// the kernel has is a lack only where no other card is bound (`some_bound`).
fn card_rows(system: &System, card: &PciFunction, some_bound: bool) -> Vec<Row> {
    let address = card.address;
    let check = |what: &str| format!("{address} {what}");
    if !card.is_bound() {
        let driver = card.driver.as_deref().unwrap_or("no driver");
        if some_bound {
            return vec![Row::pass(
                check("bound"),
                format!("no, {driver} has it; another card is"),
            )];
        }
        let in_use = pci::usage(system, card);
        let detail = match &in_use {
            Some(usage) => format!("{driver} has it, and {usage}"),
            None => format!("{driver} has it"),
        };
        let fix = match in_use {
            Some(_) => {
                format!("take another card, or: sudo barewire nic bind {address} --take-in-use")
            }
            None => format!("sudo barewire nic bind {address}"),
        };
        return vec![Row::fail(check("bound"), detail, fix)];
    }
    let mut rows = vec![Row::pass(check("bound"), "vfio-pci has it")];
    let Some(group) = card.group else {
        rows.push(Row::fail(check("group"), "it is in no IOMMU group", iommu_fix(system)));
        return rows;
    };
    let blockers = card.group_blockers(system);
    rows.push(if card.noiommu {
        Row::warn(
            check("group"),
            format!("group {group} has no IOMMU behind it"),
            format!("{}; or name it pci-noiommu:{address}", iommu_fix(system)),
        )
    } else if blockers.is_empty() {
        Row::pass(check("group"), format!("group {group} is viable"))
    } else {
        let each: Vec<_> =
            blockers.iter().map(|(other, driver)| format!("{other} is with {driver}")).collect();
        let fixes: Vec<_> =
            blockers.iter().map(|(other, _)| format!("sudo barewire nic bind {other}")).collect();
        let detail = format!("group {group} is not viable: {}", each.join(", "));
        Row::fail(check("group"), detail, fixes.join(" && "))
    });
    rows.extend(node_row(system, card));
    rows
}

/// Whether this user may open the card's node, and whether somebody has it open.
fn node_row(system: &System, card: &PciFunction) -> Option<Row> {
    let check = format!("{} node", card.address);
    let group = card.group_node(system).filter(|node| node.exists());
    let device = card.vfio_node.as_ref().map(|name| system.dev.join("vfio/devices").join(name));
    let node = group.or(device)?;
    let path = node.display();
    if !node.exists() {
        let fix = "sudo modprobe vfio-pci  (in a container: start it with --device /dev/vfio)";
        return Some(Row::fail(check, format!("{path} does not exist"), fix));
    }
    if let Some((pid, name)) = system.holders(&node).first() {
        let detail = format!("{path} is in use by {name} (process {pid})");
        return Some(Row::warn(check, detail, format!("stop it: kill {pid}")));
    }
    if !(system.may_open)(&node) {
        let detail = format!("{path} may not be opened by this user");
        return Some(Row::fail(check, detail, format!("sudo chown \"$USER\" {path}")));
    }
    Some(Row::pass(check, format!("{path} may be opened")))
}

/// Bytes of packet memory that one engine has by default.
fn pool_bytes() -> u64 {
    let pool = PoolConfig::default();
    u64::from(pool.slots) * u64::from(pool.slot_len)
        + u64::from(pool.cells) * crate::mem::CELL_LEN as u64
}

fn locked_memory(system: &System) -> Row {
    let check = "locked memory";
    // Of those that the kernel counts, the rings are small beside the pool.
    let needed = pool_bytes();
    let fix = "sudo prlimit --memlock=unlimited --pid $$  (in the shell that starts it; for good, in \
               /etc/security/limits.conf), or run as root";
    match system.lockable_bytes() {
        Some(u64::MAX) => Row::pass(check, "without a limit"),
        Some(limit) if limit > needed => Row::pass(
            check,
            format!("{} MiB; each core takes {}", limit >> 20, needed.div_ceil(1 << 20)),
        ),
        Some(limit) => Row::fail(
            check,
            format!(
                "the limit is {} KiB; each core takes {} MiB",
                limit >> 10,
                needed.div_ceil(1 << 20)
            ),
            fix,
        ),
        None => Row::warn(check, "the limit cannot be read", fix),
    }
}

fn hugepages(system: &System) -> Row {
    let meminfo = text(&system.proc.join("meminfo")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let (free, size_kib) = (field("HugePages_Free:"), field("Hugepagesize:"));
    let detail = format!("{free} of {size_kib} KiB are free");
    if free * size_kib * 1024 >= pool_bytes() {
        return Row::pass("hugepages", detail);
    }
    let fix = "sudo sysctl vm.nr_hugepages=64";
    Row::warn("hugepages", format!("{detail}; ordinary pages cost TLB misses"), fix)
}

/// Without a card there is still the kernel's tap.
fn tap(system: &System) -> Row {
    let node = system.dev.join("net/tun");
    match (node.exists(), (system.may_open)(&node)) {
        (true, true) => Row::pass("tap", "`--device tap:bw0` works without a card"),
        (true, false) => {
            let path = node.display();
            let detail = format!("{path} may not be opened by this user");
            Row::warn("tap", detail, format!("sudo chmod 0666 {path}  (as udev makes it)"))
        }
        (false, _) => {
            let fix = "sudo modprobe tun  (in a container: start it with --device /dev/net/tun)";
            Row::warn("tap", format!("{} does not exist", node.display()), fix)
        }
    }
}

/// True if a row is a failure.
pub fn failed(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.status == Status::Fail)
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
