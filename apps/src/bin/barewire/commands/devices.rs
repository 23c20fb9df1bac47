//! `barewire devices`: what there is on this machine, and what can be driven.
//!
//! It reads sysfs only and changes nothing. Network cards are listed even where no driver of ours
//! fits them, with the reason: a list that hides a card answers no question about it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

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
    rows.extend(cards(Path::new("/sys/bus/pci/devices")));
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
fn cards(bus: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for address in names(bus) {
        let dir = bus.join(&address);
        // Class 02 is a network controller (PCI Code and ID Assignment, §1.3).
        if hex(&dir.join("class")).is_none_or(|class| class >> 16 != 0x02) {
            continue;
        }
        let id = |file: &str| hex(&dir.join(file)).unwrap_or(0);
        let driver = link_name(&dir.join("driver")).unwrap_or_else(|| "none".into());
        let group = link_name(&dir.join("iommu_group"));
        let iommu = group.map_or("no IOMMU".into(), |group| format!("IOMMU group {group}"));
        let note = format!(
            "not yet: no driver for {:04x}:{:04x} in this version (kernel driver {driver}, {iommu})",
            id("vendor"),
            id("device"),
        );
        rows.push(Row { device: format!("pci:{address}"), note });
    }
    rows
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

fn link_name(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
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
                ("0000:01:00.0/class", "0x020000\n"),
                ("0000:01:00.0/vendor", "0x8086\n"),
                ("0000:01:00.0/device", "0x1521\n"),
                ("0000:02:00.0/class", "0x030000\n"),
            ],
        );
        symlink("../../drivers/igb", sys.0.join("0000:01:00.0/driver")).unwrap();
        let rows = cards(&sys.0);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].device, "pci:0000:01:00.0");
        assert!(
            rows[0].note.contains("8086:1521") && rows[0].note.contains("driver igb, no IOMMU")
        );
    }

    #[test]
    fn a_missing_tun_says_how_to_get_it() {
        assert!(tap_row(Some(io::ErrorKind::NotFound)).note.contains("modprobe tun"));
        assert!(tap_row(Some(io::ErrorKind::PermissionDenied)).note.contains("run as root"));
        assert!(tap_row(None).note.starts_with("ready"));
    }
}
