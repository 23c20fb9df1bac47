use super::*;
use crate::pci::fake_tree::Tree;

const ADDRESS: &str = "0000:01:00.0";

const MEMINFO: &str = "MemTotal: 1 kB\nHugePages_Total:  64\nHugePages_Free:   64\n\
                       HugePages_Rsvd: 0\nHugepagesize:    2048 kB\n";

/// A machine that lacks nothing: a bound card alone in its group, as an ordinary user's.
fn complete(name: &str) -> Tree {
    let tree = Tree::new(&format!("doctor-{name}"));
    tree.card(ADDRESS, 0x8086, 0x10c9).driver("vfio-pci").group(7);
    tree.file("sys/class/iommu/dmar0/name", "");
    tree.file("dev/vfio/vfio", "");
    tree.file("dev/vfio/7", "");
    tree.file("dev/net/tun", "");
    tree.file("proc/meminfo", MEMINFO);
    tree.file("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    tree.file("proc/self/limits", "Max locked memory         unlimited    unlimited    bytes\n");
    tree
}

/// The row of a check, its paths relative to the machine.
fn row(tree: &Tree, check: &str) -> Row {
    let rows = run(&tree.system);
    let found = rows.into_iter().find(|row| row.check.ends_with(check));
    let mut row = found.unwrap_or_else(|| panic!("no row {check}"));
    let root = tree.root.to_str().unwrap();
    row.detail = row.detail.replace(root, "");
    row.fix = row.fix.map(|fix| fix.replace(root, ""));
    row
}

#[track_caller]
fn assert_row(tree: &Tree, check: &str, status: Status, detail: &str, fix: &str) {
    let row = row(tree, check);
    assert_eq!(row.status, status, "{row:?}");
    assert!(row.detail.contains(detail), "{row:?}");
    assert!(row.fix.as_deref().unwrap_or_default().contains(fix), "{row:?}");
}

#[test]
fn what_is_there_passes() {
    let tree = complete("complete");
    for row in run(&tree.system) {
        // The ids that a driver fits are the drivers' affair.
        assert!(row.status == Status::Pass || row.check == "network card", "{row:?}");
    }
}

#[test]
fn a_bare_machine_is_told_each_thing_that_it_lacks_with_its_remedy() {
    let tree = Tree::new("doctor-bare");
    let rows = run(&tree.system);
    assert!(failed(&rows));
    let failing: Vec<_> = rows.iter().filter(|row| row.status == Status::Fail).collect();
    let checks: Vec<_> = failing.iter().map(|row| row.check.as_str()).collect();
    assert_eq!(checks, ["network card", "IOMMU", "kernel driver vfio-pci", "VFIO interface"]);
    for row in &rows {
        let told = row.fix.as_deref().is_some_and(|fix| !fix.is_empty());
        assert!(told || row.status == Status::Pass, "{row:?}");
    }
}

#[test]
fn a_module_is_loaded_where_there_is_one_and_looked_for_elsewhere_where_there_is_none() {
    let tree = Tree::new("doctor-module");
    tree.file("proc/sys/kernel/osrelease", "6.1.0-9-cloud\n");
    let check = "kernel driver vfio-pci";
    let detail = "no such module for this kernel (6.1.0-9-cloud)";
    assert_row(&tree, check, Status::Fail, detail, "CONFIG_VFIO_PCI");
    tree.file("lib/modules/5.10.0-1/kernel/drivers/vfio/pci/vfio-pci.ko", "");
    assert_row(&tree, check, Status::Fail, detail, "CONFIG_VFIO_PCI");
    tree.file("lib/modules/6.1.0-9-cloud/kernel/drivers/vfio/pci/vfio-pci.ko.xz", "");
    assert_eq!(row(&tree, check).detail, "not loaded");
    assert_eq!(row(&tree, check).fix.as_deref(), Some("sudo modprobe vfio-pci"));
}

#[test]
fn a_card_without_a_driver_here_is_named() {
    let tree = Tree::new("doctor-unknown");
    tree.card(ADDRESS, 0x10ec, 0x8168).driver("r8169");
    let detail = "no driver fits 0000:01:00.0 (10ec:8168)";
    assert_row(&tree, "network card", Status::Fail, detail, "tap:bw0");
}

#[test]
fn the_way_to_an_iommu_depends_on_the_processor() {
    let tree = Tree::new("doctor-iommu");
    for (vendor, fix) in
        [("GenuineIntel", "intel_iommu=on"), ("AuthenticAMD", "AMD-Vi"), ("other", "iommu=off")]
    {
        tree.file("proc/cpuinfo", &format!("vendor_id\t: {vendor}\n"));
        assert_row(&tree, "IOMMU", Status::Fail, "no groups", fix);
    }
    // noiommu makes groups without an IOMMU behind them.
    tree.card(ADDRESS, 0x8086, 0x10c9).driver("vfio-pci").group(0);
    tree.file("sys/kernel/iommu_groups/0/name", "vfio-noiommu\n");
    tree.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert_row(&tree, "IOMMU", Status::Fail, "protect nothing", "boot again");
    assert_row(&tree, "noiommu", Status::Warn, "all of this machine's memory", "echo N");
    assert_row(&tree, "group", Status::Warn, "no IOMMU behind it", "pci-noiommu:0000:01:00.0");
}

#[test]
fn a_card_that_the_kernel_has_is_a_lack_where_no_other_is_bound() {
    let mut tree = complete("unbound");
    tree.hold(ADDRESS, Some("igb"));
    let rows = |tree: &Tree, some_bound| {
        let card = pci::find(&tree.system, ADDRESS.parse().unwrap()).unwrap();
        card_rows(&tree.system, &card, some_bound)
    };
    let unbound = rows(&tree, false);
    assert_eq!((unbound.len(), unbound[0].status), (1, Status::Fail));
    assert_eq!(unbound[0].detail, "igb has it");
    assert_eq!(unbound[0].fix.as_deref(), Some("sudo barewire nic bind 0000:01:00.0"));
    assert!(!failed(&rows(&tree, true)));
    tree.file(&format!("sys/bus/pci/devices/{ADDRESS}/net/eth1/operstate"), "up\n");
    tree.system.addresses = |_| vec![std::net::Ipv4Addr::new(192, 0, 2, 7)];
    let in_use = rows(&tree, false).remove(0);
    assert!(in_use.detail.contains("eth1 carries this machine's address 192.0.2.7"), "{in_use:?}");
    assert!(in_use.fix.unwrap().contains("--take-in-use"));
}

#[test]
fn a_group_names_who_blocks_it() {
    let tree = complete("group");
    tree.card("0000:01:00.1", 0x8086, 0x10c9).driver("igb").group(7);
    let detail = "group 7 is not viable: 0000:01:00.1 is with igb";
    assert_row(&tree, "group", Status::Fail, detail, "sudo barewire nic bind 0000:01:00.1");
}

#[test]
fn a_node_that_this_user_may_not_open_or_that_another_has_is_told() {
    let mut tree = complete("node");
    tree.system.may_open = |path| !path.ends_with("vfio/7");
    let fix = "sudo chown \"$USER\" /dev/vfio/7";
    assert_row(&tree, "node", Status::Fail, "/dev/vfio/7 may not be opened", fix);
    tree.file("proc/4711/comm", "testpmd\n");
    std::fs::create_dir_all(tree.root.join("proc/4711/fd")).unwrap();
    let node = tree.system.dev.join("vfio/7");
    std::os::unix::fs::symlink(node, tree.root.join("proc/4711/fd/3")).unwrap();
    assert_row(&tree, "node", Status::Warn, "in use by testpmd (process 4711)", "kill 4711");
    tree.system.may_open = |_| false;
    assert_row(&tree, "VFIO interface", Status::Fail, "may not be opened", "chmod 0666");
    assert_row(&tree, "tap", Status::Warn, "may not be opened", "chmod 0666 /dev/net/tun");
}

#[test]
fn iommufd_alone_is_a_path_that_nobody_has_walked() {
    let tree = complete("iommufd");
    std::fs::remove_file(tree.root.join("dev/vfio/vfio")).unwrap();
    tree.file("dev/iommu", "");
    assert_row(&tree, "VFIO interface", Status::Warn, "has not run on a kernel", "modprobe");
}

#[test]
fn the_limit_of_locked_memory_counts_unless_the_process_is_above_it() {
    let tree = complete("memlock");
    let limit = |bytes: u64| {
        let line = format!("Max locked memory         {bytes}      {bytes}      bytes     \n");
        tree.file("proc/self/limits", &line);
    };
    limit(8 << 20);
    assert_row(&tree, "locked memory", Status::Fail, "8192 KiB; each core takes 36 MiB", "prlimit");
    limit(64 << 20);
    assert_row(&tree, "locked memory", Status::Pass, "64 MiB", "");
    limit(0);
    tree.file("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
    assert_row(&tree, "locked memory", Status::Pass, "without a limit", "");
}

#[test]
fn few_hugepages_are_a_warning() {
    let tree = complete("hugepages");
    tree.file("proc/meminfo", &MEMINFO.replace("Free:   64", "Free:   17"));
    let fix = "sudo sysctl vm.nr_hugepages=64";
    assert_row(&tree, "hugepages", Status::Warn, "17 of 2048 KiB are free", fix);
    assert!(!failed(&[row(&tree, "hugepages")]));
}

#[test]
fn interrupts_that_are_not_remapped_are_told() {
    let tree = complete("remapping");
    let rows = |tree: &Tree| run(&tree.system);
    let told = |row: &Row| row.check == "interrupt remapping";
    tree.file("sys/kernel/irq/1/chip_name", "GICv3\n");
    assert!(!rows(&tree).iter().any(told), "other architectures are not judged by x86's names");
    tree.file("sys/kernel/irq/9/chip_name", "IO-APIC\n");
    let check = "interrupt remapping";
    assert_row(&tree, check, Status::Fail, "VFIO refuses every group", "allow_unsafe_interrupts");
    tree.file("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
    assert_row(&tree, check, Status::Warn, "forge interrupts", "firmware");
    tree.file("sys/kernel/irq/24/chip_name", "IR-PCI-MSI\n");
    assert_row(&tree, check, Status::Pass, "on", "");
    let bare = Tree::new("doctor-no-unit");
    bare.file("sys/kernel/irq/9/chip_name", "IO-APIC\n");
    assert!(!rows(&bare).iter().any(told), "without an IOMMU that is what is missing first");
}
