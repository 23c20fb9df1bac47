//! Where the kernel shows itself: roots of its file systems, and reading small files there.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::sys;

/// Most bytes of one of the kernel's files that are read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The machine as this process sees it. Tests make one of a directory of their own.
#[derive(Clone, Debug)]
pub struct System {
    /// sysfs, mounted at `/sys`.
    pub sys: PathBuf,
    /// procfs, mounted at `/proc`.
    pub proc: PathBuf,
    /// Device nodes, in `/dev`.
    pub dev: PathBuf,
    /// State that a reboot forgets, in `/run/barewire`.
    pub run: PathBuf,
    /// The kernels' modules, in `/lib/modules`.
    pub modules: PathBuf,
    /// The IPv4 addresses of an interface.
    pub addresses: fn(&str) -> Vec<Ipv4Addr>,
    /// True if this process may open a file for reading and writing.
    pub may_open: fn(&Path) -> bool,
}

impl Default for System {
    /// The machine itself.
    fn default() -> System {
        System::below(Path::new("/"))
    }
}

impl System {
    /// A machine whose file systems lie below `root`.
    pub fn below(root: &Path) -> System {
        System {
            sys: root.join("sys"),
            proc: root.join("proc"),
            dev: root.join("dev"),
            run: root.join("run/barewire"),
            modules: root.join("lib/modules"),
            addresses: |interface| {
                let found = sys::interface_addresses(interface).unwrap_or_default();
                found.into_iter().map(|(address, _)| address).collect()
            },
            may_open: |path| sys::may_read_and_write(path),
        }
    }

    /// The directory of the PCI bus.
    pub(crate) fn pci(&self) -> PathBuf {
        self.sys.join("bus/pci")
    }

    /// The processes, by id and name, that have `path` open. Those of other users are seen by root
    /// only; then the answer is empty, not wrong.
    pub fn holders(&self, path: &Path) -> Vec<(u32, String)> {
        let mut holders = Vec::new();
        for pid in names(&self.proc).iter().filter_map(|name| name.parse::<u32>().ok()) {
            let process = self.proc.join(pid.to_string());
            let files = process.join("fd");
            let open = |name: &String| fs::read_link(files.join(name)).is_ok_and(|to| to == path);
            if names(&files).iter().any(open) {
                holders.push((pid, text(&process.join("comm")).unwrap_or_default()));
            }
        }
        holders
    }
}

/// `CAP_IPC_LOCK` in `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

impl System {
    /// Bytes that this process may lock in memory, `u64::MAX` for all; `None` if the kernel does
    /// not say.
    pub fn lockable_bytes(&self) -> Option<u64> {
        if self.may_lock_all() {
            return Some(u64::MAX);
        }
        let limits = text(&self.proc.join("self/limits"))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            soft => soft.parse().ok(),
        }
    }

    /// True with `CAP_IPC_LOCK`, which the limit does not bind.
    fn may_lock_all(&self) -> bool {
        let status = text(&self.proc.join("self/status")).unwrap_or_default();
        let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        caps.and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok())
            .is_some_and(|caps| caps & 1 << CAP_IPC_LOCK != 0)
    }
}

/// Names of a directory's entries in order; none if it cannot be read.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A file's content without the white space around it.
pub(crate) fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut content = String::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut content).ok()?;
    Some(content.trim().to_owned())
}

/// A file's content as `0x…`.
pub(crate) fn hex(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path)?.strip_prefix("0x")?, 16).ok()
}

/// A file's content as a decimal number.
pub(crate) fn number(path: &Path) -> Option<i64> {
    text(path)?.parse().ok()
}

/// The last component of what a symbolic link points to.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}
