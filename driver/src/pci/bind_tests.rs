use super::super::fake_tree::Tree;
use super::*;

const ADDRESS: &str = "0000:01:00.0";

/// The kernel's side: drivers are chosen by `driver_override`, else `native` takes the function.
struct Chooser<'a> {
    tree: &'a Tree,
    overridden: String,
    native: Option<&'static str>,
    written: Vec<String>,
    /// A file that refuses to be written.
    refuses: Option<&'static str>,
}

impl<'a> Chooser<'a> {
    fn new(tree: &'a Tree, native: Option<&'static str>) -> Chooser<'a> {
        Chooser { tree, overridden: String::new(), native, written: Vec::new(), refuses: None }
    }

    fn write(&mut self, path: &Path, content: &str) -> io::Result<()> {
        let path = path.strip_prefix(&self.tree.root).unwrap().display().to_string();
        self.written.push(format!(
            "{}={}",
            path.trim_start_matches("sys/bus/pci/"),
            content.trim()
        ));
        if self.refuses.is_some_and(|refuses| path.ends_with(refuses)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match path.rsplit('/').next().unwrap() {
            "driver_override" => self.overridden = content.trim().to_owned(),
            "unbind" => self.tree.hold(content, None),
            "drivers_probe" => {
                let forced = Some(self.overridden.as_str()).filter(|name| !name.is_empty());
                self.tree.hold(content, forced.or(self.native));
            }
            "bind" => {
                let driver = path.rsplit('/').nth(1).unwrap();
                self.tree.hold(content, Some(driver));
            }
            other => panic!("{other} is not written"),
        }
        Ok(())
    }

    fn bind(&mut self, take: bool) -> Result<Bound, BindError> {
        let system = self.tree.system.clone();
        bind_with(&system, ADDRESS.parse().unwrap(), take, &mut |path, text| self.write(path, text))
    }

    fn unbind(&mut self) -> Result<Option<String>, BindError> {
        let system = self.tree.system.clone();
        unbind_with(&system, ADDRESS.parse().unwrap(), &mut |path, text| self.write(path, text))
    }

    fn driver(&self) -> Option<String> {
        find(&self.tree.system, ADDRESS.parse().unwrap()).unwrap().driver
    }
}

fn tree(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.load("vfio-pci");
    tree.card(ADDRESS, 0x8086, 0x10c9).driver("igb").group(7).interface("eth1");
    tree
}

#[test]
fn a_card_goes_to_vfio_and_back_to_its_driver() {
    let tree = tree("bind");
    let mut kernel = Chooser::new(&tree, Some("igb"));
    let bound = kernel.bind(false).unwrap();
    assert_eq!(bound.previous.as_deref(), Some("igb"));
    assert_eq!(bound.node, Some(tree.system.dev.join("vfio/7")));
    assert_eq!(bound.blockers, []);
    assert_eq!(
        kernel.written,
        [
            "devices/0000:01:00.0/driver_override=vfio-pci",
            "devices/0000:01:00.0/driver/unbind=0000:01:00.0",
            "drivers_probe=0000:01:00.0",
        ]
    );
    kernel.written.clear();
    assert_eq!(kernel.bind(false).unwrap().previous, None, "binding again changes nothing");
    assert_eq!(kernel.written, [""; 0]);
    assert_eq!(kernel.unbind().unwrap().as_deref(), Some("igb"));
    assert_eq!(kernel.written[0], "devices/0000:01:00.0/driver_override=");
    assert!(!state_file(&tree.system, ADDRESS.parse().unwrap()).exists());
}

#[test]
fn a_driver_that_the_kernel_does_not_choose_is_bound_by_name() {
    let tree = tree("bind-by-name");
    let mut kernel = Chooser::new(&tree, None);
    kernel.bind(false).unwrap();
    assert_eq!(kernel.unbind().unwrap().as_deref(), Some("igb"));
    assert_eq!(kernel.written.last().unwrap(), "drivers/igb/bind=0000:01:00.0");
}

#[test]
fn a_driver_that_has_been_removed_is_named_and_remembered() {
    let tree = tree("bind-removed");
    let mut kernel = Chooser::new(&tree, None);
    kernel.bind(false).unwrap();
    fs::remove_dir(tree.root.join("sys/bus/pci/drivers/igb")).unwrap();
    let error = kernel.unbind().unwrap_err().to_string();
    assert!(error.contains("sudo modprobe igb"), "{error}");
    tree.load("igb");
    assert_eq!(kernel.unbind().unwrap().as_deref(), Some("igb"), "a second try knows it still");
}

#[test]
fn a_card_without_a_driver_goes_back_to_none() {
    let tree = Tree::new("bind-none");
    tree.load("vfio-pci");
    tree.card(ADDRESS, 0x8086, 0x10c9).group(7);
    let mut kernel = Chooser::new(&tree, None);
    assert_eq!(kernel.bind(false).unwrap().previous, None);
    assert!(!kernel.written.iter().any(|line| line.contains("unbind")));
    assert_eq!(kernel.unbind().unwrap(), None);
}

#[test]
fn a_card_that_the_machine_uses_is_taken_only_when_asked_by_name() {
    let mut tree = tree("bind-in-use");
    tree.system.addresses = |_| vec![std::net::Ipv4Addr::new(192, 0, 2, 7)];
    let mut kernel = Chooser::new(&tree, Some("igb"));
    let error = kernel.bind(false).unwrap_err().to_string();
    assert!(error.contains("eth1 carries this machine's address 192.0.2.7"), "{error}");
    assert!(error.contains("nic bind 0000:01:00.0 --take-in-use"), "{error}");
    assert_eq!(kernel.written, [""; 0], "nothing was touched");
    assert!(kernel.bind(true).is_ok());
}

#[test]
fn a_refusal_half_way_gives_the_card_back() {
    let tree = tree("bind-refused");
    let mut kernel = Chooser::new(&tree, Some("igb"));
    kernel.refuses = Some("driver/unbind");
    let error = kernel.bind(false).unwrap_err();
    assert!(matches!(error, BindError::Write { .. }));
    assert!(error.to_string().contains("run the command with sudo"), "{error}");
    assert_eq!(kernel.driver().as_deref(), Some("igb"));
    assert_eq!(kernel.overridden, "", "no override stays behind");
}

#[test]
fn what_is_missing_is_said_before_anything_is_touched() {
    let tree = Tree::new("bind-missing");
    tree.card(ADDRESS, 0x8086, 0x10c9).driver("igb");
    tree.card("0000:02:00.0", 0x10de, 0x1234).class(0x03_0000);
    let mut kernel = Chooser::new(&tree, Some("igb"));
    let error = kernel.bind(false).unwrap_err().to_string();
    assert!(error.contains("sudo modprobe vfio-pci"), "{error}");
    tree.load("vfio-pci");
    let error = kernel.bind(false).unwrap_err().to_string();
    assert!(error.contains("intel_iommu=on"), "{error}");
    assert!(matches!(kernel.unbind(), Err(BindError::NotBound { .. })));
    assert_eq!(kernel.written, [""; 0]);
    let display = bind(&tree.system, "02:00.0".parse().unwrap(), false).unwrap_err();
    assert!(display.to_string().contains("no network card (class 030000)"));
    tree.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert!(kernel.bind(false).is_ok(), "without an IOMMU where the kernel was told so");
}

#[test]
fn a_card_that_a_process_drives_is_not_unbound_under_it() {
    let tree = tree("bind-held");
    let mut kernel = Chooser::new(&tree, Some("igb"));
    kernel.bind(false).unwrap();
    tree.file("proc/4711/comm", "barewire\n");
    fs::create_dir_all(tree.root.join("proc/4711/fd")).unwrap();
    let node = tree.system.dev.join("vfio/7");
    std::os::unix::fs::symlink(node, tree.root.join("proc/4711/fd/9")).unwrap();
    let error = kernel.unbind().unwrap_err().to_string();
    assert!(error.contains("held by barewire (process 4711)"), "{error}");
    assert_eq!(kernel.driver().as_deref(), Some("vfio-pci"));
}

#[test]
fn group_mates_with_other_drivers_are_told() {
    let tree = tree("bind-mates");
    tree.card("0000:01:00.1", 0x8086, 0x10c9).driver("igb").group(7);
    let bound = Chooser::new(&tree, Some("igb")).bind(false).unwrap();
    assert_eq!(bound.blockers, [("01:00.1".parse().unwrap(), "igb".to_owned())]);
}
