//! A machine of files for tests: cards, drivers, groups.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::System;

/// A machine below a temporary directory, gone when dropped.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) system: System,
}

/// A card being described.
pub(crate) struct Card<'a> {
    tree: &'a Tree,
    address: String,
}

impl Tree {
    /// An empty machine. No interface has an address, and every file may be opened.
    pub(crate) fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("barewire-pci-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
        let mut system = System::below(&root);
        system.addresses = |_| Vec::new();
        system.may_open = |_| true;
        Tree { root, system }
    }

    /// Writes a file, and the directories above it.
    pub(crate) fn file(&self, path: &str, content: &str) {
        write(&self.root.join(path), content);
    }

    /// Adds a card without driver and group.
    pub(crate) fn card(&self, address: &str, vendor: u16, device: u16) -> Card<'_> {
        let card = Card { tree: self, address: address.to_owned() };
        card.file("vendor", &format!("{vendor:#06x}\n"))
            .file("device", &format!("{device:#06x}\n"))
            .file("numa_node", "-1\n")
            .class(0x02_0000)
    }

    /// Loads a driver.
    pub(crate) fn load(&self, driver: &str) {
        fs::create_dir_all(self.root.join("sys/bus/pci/drivers").join(driver)).unwrap();
    }

    /// Makes a driver hold a card, or no driver.
    pub(crate) fn hold(&self, address: &str, driver: Option<&str>) {
        let link = self.root.join("sys/bus/pci/devices").join(address).join("driver");
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            self.load(driver);
            symlink(self.root.join("sys/bus/pci/drivers").join(driver), link).unwrap();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Card<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.tree.root.join("sys/bus/pci/devices").join(&self.address).join(file)
    }

    /// Writes a file in the card's directory.
    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        write(&self.path(path), content);
        self
    }

    /// Sets its class.
    pub(crate) fn class(self, class: u32) -> Self {
        self.file("class", &format!("{class:#08x}\n"))
    }

    /// Makes a driver hold it.
    pub(crate) fn driver(self, driver: &str) -> Self {
        self.tree.hold(&self.address, Some(driver));
        self
    }

    /// Puts it into an IOMMU group.
    pub(crate) fn group(self, group: u32) -> Self {
        let dir = self.tree.root.join(format!("sys/kernel/iommu_groups/{group}"));
        fs::create_dir_all(dir.join("devices")).unwrap();
        symlink(self.path(""), dir.join("devices").join(&self.address)).unwrap();
        symlink(dir, self.path("iommu_group")).unwrap();
        self
    }

    /// Gives it an interface that is up, with a link of 1 Gbit/s.
    pub(crate) fn interface(self, name: &str) -> Self {
        self.file(&format!("net/{name}/operstate"), "up\n")
            .file(&format!("net/{name}/carrier"), "1\n")
            .file(&format!("net/{name}/speed"), "1000\n")
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
