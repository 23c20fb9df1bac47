//! `barewire devices`: what there is on this machine, and what can be driven.
//!
//! It reads sysfs only and changes nothing. Network cards are listed even where no driver of ours
//! fits them, with the reason: a list that hides a card answers no question about it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use barewire_driver::drivers;
use barewire_driver::pci::{self, PciFunction, System};
use barewire_driver::sys::TUN_PATH;

use crate::output;

/// Bit of `tun_flags` in sysfs that tells a tap (Ethernet) from a tun (IP).
const IFF_TAP: u32 = 0x0002;

/// One line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    device: String,
    note: String,
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let tun = File::options().read(true).write(true).open(TUN_PATH);
    let mut rows = vec![tap_row(tun.err().map(|error| error.kind()))];
    rows.extend(taps(Path::new("/sys/class/net")));
    rows.extend(cards(&System::default()));
    let width = rows.iter().map(|row| row.device.len()).max().unwrap_or(0);
    for row in rows {
        output::line(format_args!("{:width$}  {}", row.device, row.note))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What can be said about making a new tap.
fn tap_row(error: Option<io::ErrorKind>) -> Row {
    let note = match error {
        None => "ready: a new tap interface; making it needs CAP_NET_ADMIN".to_owned(),
        Some(io::ErrorKind::NotFound) => format!("{TUN_PATH} is missing; try `modprobe tun`"),
        Some(io::ErrorKind::PermissionDenied) => {
            format!("{TUN_PATH} may not be opened; run as root, or try `chmod 666 {TUN_PATH}`")
        }
        Some(kind) => format!("{TUN_PATH}: {kind}"),
    };
    Row { device: "tap:NAME".into(), note }
}

/// The taps that exist, by name.
fn taps(class: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in names(class) {
        let Some(flags) = hex(&class.join(&name).join("tun_flags")) else { continue };
        if flags & IFF_TAP != 0 {
            let state = text(&class.join(&name).join("operstate")).unwrap_or_default();
            let note = format!("ready: an existing tap interface ({state})");
            rows.push(Row { device: format!("tap:{name}"), note });
        }
    }
    rows
}

/// The machine's network cards on PCI, by address.
fn cards(system: &System) -> Vec<Row> {
    pci::list(system).iter().map(card_row).collect()
}

/// What a card is, whether a driver fits it, who has it, and whether that has been tried.
fn card_row(card: &PciFunction) -> Row {
    let known = drivers::support((card.vendor, card.device));
    let name = known.map_or("unknown card", |known| known.name);
    let supported = match known.map(|known| (known.driver, known.reason)) {
        Some((Some(driver), _)) => format!("supported ({driver})"),
        Some((None, Some(why))) => format!("not supported ({why})"),
        Some((None, None)) | None => "not supported".into(),
    };
    let bound = match card.driver.as_deref() {
        _ if card.is_bound() => "bound".into(),
        Some(driver) => format!("not bound ({driver} has it)"),
        None => "not bound".into(),
    };
    let tested = match known.is_some_and(|known| known.tested) {
        true => "tested in emulation",
        false => "untested",
    };
    let group = match card.group {
        Some(_) if card.noiommu => "no IOMMU".into(),
        Some(group) => format!("IOMMU group {group}"),
        None => "no IOMMU".into(),
    };
    let (vendor, device) = (card.vendor, card.device);
    let interfaces: String =
        card.interfaces.iter().map(|interface| format!(", {}", interface.name)).collect();
    Row {
        device: format!("pci:{}", card.address),
        note: format!(
            "{name} {vendor:04x}:{device:04x}{interfaces}: {supported}, {bound}, {tested}, {group}"
        ),
    }
}

/// Names of a directory's entries in order; none if it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn hex(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path)?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Sysfs(PathBuf);

    impl Sysfs {
        fn new(name: &str, files: &[(&str, &str)]) -> Sysfs {
            let top = std::env::temp_dir().join(format!("barewire-{name}-{}", std::process::id()));
            for (file, content) in files {
                let path = top.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Sysfs(top)
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn taps_are_told_from_other_interfaces() {
        let sys = Sysfs::new(
            "taps",
            &[
                ("bw0/tun_flags", "0x5102\n"),
                ("bw0/operstate", "down\n"),
                ("vpn0/tun_flags", "0x1001\n"),
                ("eth0/operstate", "up\n"),
            ],
        );
        let rows = taps(&sys.0);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].device.as_str(), rows[0].note.contains("down")), ("tap:bw0", true));
        assert_eq!(taps(&sys.0.join("none")), []);
    }

    #[test]
    fn cards_are_listed_with_what_holds_them() {
        let sys = Sysfs::new(
            "cards",
            &[
                ("sys/bus/pci/devices/0000:01:00.0/class", "0x020000\n"),
                ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10ec\n"),
                ("sys/bus/pci/devices/0000:01:00.0/device", "0x8168\n"),
                ("sys/bus/pci/devices/0000:01:00.0/net/eth0/operstate", "up\n"),
                ("sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n"),
                ("sys/bus/pci/devices/0000:02:00.0/vendor", "0x10ec\n"),
                ("sys/bus/pci/devices/0000:02:00.0/device", "0x8168\n"),
            ],
        );
        let card = sys.0.join("sys/bus/pci/devices/0000:01:00.0");
        symlink("../../drivers/r8169", card.join("driver")).unwrap();
        let rows = cards(&System::below(&sys.0));
        assert_eq!(rows.len(), 1, "a display is no card");
        assert_eq!(rows[0].device, "pci:0000:01:00.0");
        assert_eq!(
            rows[0].note,
            "unknown card 10ec:8168, eth0: not supported, not bound (r8169 has it), untested, no IOMMU"
        );
        std::fs::remove_file(card.join("driver")).unwrap();
        symlink("../../drivers/vfio-pci", card.join("driver")).unwrap();
        symlink("../../../../kernel/iommu_groups/12", card.join("iommu_group")).unwrap();
        let note = cards(&System::below(&sys.0)).remove(0).note;
        assert!(note.ends_with(": not supported, bound, untested, IOMMU group 12"), "{note}");
        fs::write(card.join("vendor"), "0x8086\n").unwrap();
        for (id, said) in [
            ("0x10c9", "82576 8086:10c9, eth0: supported (igb), bound, tested in emulation, IOMMU"),
            ("0x1533", "I210 copper 8086:1533, eth0: supported (igb), bound, untested, IOMMU"),
        ] {
            fs::write(card.join("device"), id).unwrap();
            let note = cards(&System::below(&sys.0)).remove(0).note;
            assert!(note.starts_with(said), "{note}");
        }
    }

    #[test]
    fn a_missing_tun_says_how_to_get_it() {
        assert!(tap_row(Some(io::ErrorKind::NotFound)).note.contains("modprobe tun"));
        assert!(tap_row(Some(io::ErrorKind::PermissionDenied)).note.contains("run as root"));
        assert!(tap_row(None).note.starts_with("ready"));
    }
}
