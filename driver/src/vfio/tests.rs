use super::*;
use std::sync::Arc;

use crate::bus::{BusError, DmaMapping, Function, Registers};
use crate::device::{DeviceError, Features, MacAddr, QueueId};
use crate::intel;
use crate::mem::{Pool, PoolConfig, Region};
use crate::model::{Kind, NicModel};
use crate::pci::fake_tree::Tree;
use crate::pci::{PciAddress, System};
use crate::sys::vfio::fake::{BAR_LEN, FakeKernel};
use crate::sys::vfio::{Interrupt, Kernel};
use crate::sys::{errno, poll_readable};

const ADDRESS: &str = "0000:01:00.0";

fn address() -> PciAddress {
    ADDRESS.parse().unwrap()
}

/// A machine with a card that VFIO has, in group 7, and the nodes of the first interface.
fn machine(name: &str) -> Tree {
    let tree = Tree::new(&format!("vfio-{name}"));
    tree.card(ADDRESS, 0x8086, 0x10c9).driver("vfio-pci").group(7);
    tree.file("dev/vfio/vfio", "");
    tree.file("dev/vfio/7", "");
    tree
}

fn open_at(
    kernel: &Arc<FakeKernel>,
    system: &System,
    access: Access,
) -> Result<VfioFunction, VfioError> {
    let kernel = Arc::clone(kernel) as Arc<dyn Kernel>;
    VfioFunction::open_with(kernel, system, address(), access)
}

fn open(kernel: &Arc<FakeKernel>, tree: &Tree) -> Result<VfioFunction, VfioError> {
    open_at(kernel, &tree.system, Access::Auto)
}

fn region(len: usize) -> Arc<Region> {
    Arc::new(Region::new(len, false).unwrap())
}

#[test]
fn a_function_comes_up_quiet_with_its_registers_mapped() {
    let (tree, kernel) = (machine("up"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    assert_eq!((function.id(), function.address()), ((0x8086, 0x10c9), ADDRESS.to_owned()));
    assert_eq!(kernel.command_register() & 0b110, 0b010, "memory on, bus master off");
    let registers = function.registers();
    registers.write(0x18, 7);
    assert_eq!(registers.read(0x18), 7);
    assert_eq!(registers.read(BAR_LEN as u32), u32::MAX);
    function.set_bus_master(true).unwrap();
    assert_eq!(kernel.command_register() & 0b110, 0b110);
    drop(function);
    assert_eq!(kernel.command_register() & 0b110, 0b010, "no DMA after the drop");
}

#[test]
fn memory_is_reachable_for_as_long_as_its_mapping_lives() {
    let (tree, kernel) = (machine("map"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    let (small, large) = (region(8192), region(4 << 20));
    let first = function.map(&small).unwrap();
    let second = function.map(&large).unwrap();
    assert!(second.iova().0.is_multiple_of(2 << 20), "large pages are possible");
    assert_eq!(kernel.mappings(), [(first.iova().0, 8192), (second.iova().0, 4 << 20)]);
    let at = first.iova();
    drop((first, small));
    assert_eq!(kernel.mappings(), [(second.iova().0, 4 << 20)]);
    assert_eq!(function.map(&region(8192)).unwrap().iova(), at, "the address is free again");
    drop(function);
    assert_eq!(kernel.mappings().len(), 1, "a mapping outlives the function");
    drop(second);
    assert_eq!(kernel.mappings(), []);
}

#[test]
fn an_address_that_stays_mapped_is_not_given_out_again() {
    let (tree, kernel) = (machine("stuck"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    let memory = region(4096);
    let first = function.map(&memory).unwrap().iova();
    kernel.fail_times("UNMAP_DMA", errno::EINVAL, 1);
    let stuck = function.map(&memory).unwrap();
    let at = stuck.iova();
    assert_eq!(at, first);
    drop(stuck);
    assert_ne!(function.map(&memory).unwrap().iova(), at);
}

#[test]
fn an_old_kernel_that_tells_no_ranges_is_given_safe_addresses() {
    let tree = machine("untold");
    let kernel = Arc::new(FakeKernel::with(|kernel| kernel.ranges.clear()));
    let mapping = open(&kernel, &tree).unwrap().map(&region(4096)).unwrap();
    assert_eq!(mapping.iova().0, 1 << 20);
}

#[test]
fn every_vector_has_a_descriptor_of_its_own_that_lives_on() {
    let (tree, kernel) = (machine("vectors"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    assert_eq!(function.vectors(), 10);
    let two = function.enable_vectors(2).unwrap();
    let four = function.enable_vectors(4).unwrap();
    assert_eq!((two.len(), &four[..2]), (2, &two[..]), "more vectors move none");
    assert_eq!(function.enable_vectors(1).unwrap(), two[..1]);
    assert_eq!(poll_readable(&four, Some(0)).unwrap(), 0);
    assert!(kernel.fire(Interrupt::MsiX, 1) && kernel.fire(Interrupt::MsiX, 3));
    assert_eq!(poll_readable(&four, Some(0)).unwrap(), 0b1010);
    let error = function.enable_vectors(11).unwrap_err().to_string();
    assert_eq!(error, "0000:01:00.0 has 10 vectors, not 11");
    drop(function);
    assert!(!kernel.fire(Interrupt::MsiX, 0), "off after the drop");
}

#[test]
fn a_refusal_to_route_more_leaves_the_first_vectors() {
    let (tree, kernel) = (machine("vectors-refused"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    let two = function.enable_vectors(2).unwrap();
    kernel.fail_times("SET_IRQS", errno::EINVAL, 1);
    assert!(matches!(function.enable_vectors(3), Err(BusError::Os { .. })));
    assert_eq!(function.enable_vectors(2).unwrap(), two);
}

#[test]
fn an_unplugged_or_broken_device_is_told_once_and_for_all() {
    for (name, kind) in [("gone-error", Interrupt::Error), ("gone-request", Interrupt::Request)] {
        let (tree, kernel) = (machine(name), Arc::new(FakeKernel::default()));
        let function = open(&kernel, &tree).unwrap();
        assert!(!function.is_gone());
        assert!(kernel.fire(kind, 0));
        assert!(function.is_gone() && function.is_gone(), "{kind:?}");
    }
}

#[test]
fn a_reset_that_something_stands_in_the_way_of_is_tried_again_and_not_for_ever() {
    let (tree, kernel) = (machine("reset"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    kernel.fail_times("RESET", errno::EAGAIN, 3);
    function.reset().unwrap();
    kernel.fail("RESET", errno::EAGAIN);
    let error = function.reset().unwrap_err().to_string();
    assert!(error.starts_with("resetting 0000:01:00.0"), "{error}");
    let resets = kernel.log().iter().filter(|&&step| step == "RESET").count();
    assert_eq!(resets, 4 + 10);
}

#[test]
fn devices_that_cannot_be_driven_are_refused_with_the_reason() {
    let tree = machine("unsupported");
    let without_reset = FakeKernel::with(|kernel| kernel.can_reset = false);
    let function = open(&Arc::new(without_reset), &tree).unwrap();
    assert!(function.reset().unwrap_err().to_string().contains("without its neighbours"));
    drop(function);
    let unmappable = FakeKernel::with(|kernel| kernel.mappable = false);
    let error = open(&Arc::new(unmappable), &tree).unwrap_err().to_string();
    assert!(error.contains("no BAR 0"), "{error}");
}

#[test]
fn two_functions_of_a_group_share_it() {
    let (tree, kernel) = (machine("shared"), Arc::new(FakeKernel::default()));
    let (one, two) = (open(&kernel, &tree).unwrap(), open(&kernel, &tree).unwrap());
    assert_eq!(kernel.log().iter().filter(|&&step| step == "open group").count(), 1);
    let memory = region(4096);
    let (a, b) = (one.map(&memory).unwrap(), two.map(&memory).unwrap());
    assert_ne!(a.iova(), b.iova());
    drop((a, b, one, two));
    drop(open(&kernel, &tree).unwrap());
    assert_eq!(kernel.log().iter().filter(|&&step| step == "open group").count(), 2);
}

#[test]
fn iommufd_is_used_where_there_are_no_groups() {
    let (tree, kernel) = (machine("iommufd"), Arc::new(FakeKernel::default()));
    tree.file(&format!("sys/bus/pci/devices/{ADDRESS}/vfio-dev/vfio3/dev"), "511:3\n");
    drop(open(&kernel, &tree).unwrap());
    assert!(!kernel.log().contains(&"open device"), "groups first: those have been tried");
    std::fs::remove_file(tree.root.join("dev/vfio/7")).unwrap();
    let function = open(&kernel, &tree).unwrap();
    let log = kernel.log();
    assert!(log.ends_with(&["GET_IRQ_INFO", "SET_IRQS"]));
    let from = log.iter().position(|&step| step == "open device").unwrap();
    assert_eq!(
        log[from..from + 6],
        [
            "open device",
            "open iommu",
            "IOAS_ALLOC",
            "BIND_IOMMUFD",
            "ATTACH_IOMMUFD_PT",
            "IOAS_IOVA_RANGES"
        ]
    );
    let mapping = function.map(&region(3 << 20)).unwrap();
    assert_eq!(kernel.mappings(), [(mapping.iova().0, 3 << 20)]);
    drop(mapping);
    assert_eq!(kernel.mappings(), []);
    assert!(function.enable_vectors(3).is_ok() && function.reset().is_ok());
}

/// A machine whose group stands for no IOMMU, and a kernel that offers that.
fn bare_machine(name: &str, page: fn(u64) -> u64) -> (Tree, Arc<FakeKernel>) {
    let tree = machine(name);
    tree.file("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    let kernel = FakeKernel::with(|kernel| {
        kernel.iommus = vec![8];
        kernel.page = page;
    });
    (tree, Arc::new(kernel))
}

fn huge(len: usize) -> Arc<Region> {
    let mut region = Region::new(len, false).unwrap();
    region.claim_huge();
    Arc::new(region)
}

#[test]
fn without_an_iommu_nothing_is_driven_unless_asked_by_name() {
    let (tree, kernel) = bare_machine("noiommu-unasked", |page| 1 << 63 | (0x1_0000 + page));
    for access in [Access::Auto, Access::Group, Access::Iommufd] {
        let error = open_at(&kernel, &tree.system, access).unwrap_err();
        assert!(matches!(error, VfioError::NoIommuUnasked(_)), "{access:?}: {error}");
    }
    assert_eq!(kernel.log(), [""; 0]);
    let function = open_at(&kernel, &tree.system, Access::NoIommu).unwrap();
    let mapping = function.map(&huge(2 << 20)).unwrap();
    assert_eq!(mapping.iova().0, 0x1_0000 * 4096, "the physical address");
    drop(mapping);
    assert!(!kernel.log().contains(&"UNMAP_DMA") && !kernel.log().contains(&"MAP_DMA"));
}

#[test]
fn without_an_iommu_memory_has_to_stay_where_it_is_in_one_piece() {
    let (tree, kernel) =
        bare_machine("noiommu-scattered", |page| 1 << 63 | (500 + page + page / 3));
    let function = open_at(&kernel, &tree.system, Access::NoIommu).unwrap();
    let told = |memory| function.map(&memory).unwrap_err().to_string();
    let error = told(region(8192));
    assert!(error.contains("hugepages") && error.contains("sysctl vm.nr_hugepages"), "{error}");
    let error = told(huge(16384));
    assert!(error.contains("page 3 of it lies elsewhere"), "{error}");
    assert!(error.contains("hugepagesz=1G"), "{error}");
    drop(function);
    for (name, page) in [("hidden", 1u64 << 63), ("absent", 77)] {
        let entry: fn(u64) -> u64 = if page == 77 { |_| 77 } else { |_| 1 << 63 };
        let (tree, kernel) = bare_machine(&format!("noiommu-{name}"), entry);
        let function = open_at(&kernel, &tree.system, Access::NoIommu).unwrap();
        let error = function.map(&huge(4096)).unwrap_err().to_string();
        assert!(error.contains("CAP_SYS_ADMIN"), "{name}: {error}");
    }
}

/// A card that can be brought up: its registers are a model's, and its memory goes through VFIO.
#[derive(Debug)]
struct Card {
    model: NicModel,
    vfio: VfioFunction,
}

impl Function for Card {
    fn id(&self) -> (u16, u16) {
        self.vfio.id()
    }
    fn address(&self) -> String {
        self.vfio.address()
    }
    fn registers(&self) -> Arc<dyn Registers> {
        self.model.registers()
    }
    fn needs_hugepages(&self) -> bool {
        self.vfio.needs_hugepages()
    }
    fn map(&self, region: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError> {
        self.vfio.map(region)
    }
    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.model.set_bus_master(on)
    }
    fn reset(&self) -> Result<(), BusError> {
        self.vfio.reset()
    }
    fn vectors(&self) -> u16 {
        self.vfio.vectors()
    }
    fn enable_vectors(&self, count: u16) -> Result<Vec<std::os::fd::RawFd>, BusError> {
        self.vfio.enable_vectors(count)
    }
    fn is_gone(&self) -> bool {
        self.vfio.is_gone()
    }
}

/// Brings a card up and starts a queue, as applications do; gives where the rings lie.
fn start_queue(vfio: VfioFunction, pool: &Pool) -> Result<[u64; 2], DeviceError> {
    let model = NicModel::new(Kind::I82576, MacAddr([2, 0, 0, 0, 0, 1])).unwrap();
    let card = Card { model: model.clone(), vfio };
    let nic = intel::open(Arc::new(card), intel::NicConfig::new(1))?;
    let mut queue = nic.queue(QueueId(0))?.open();
    queue.start(pool, Features::all())?;
    let rings =
        [0xc000, 0xe000].map(|at| u64::from(model.peek(at + 4)) << 32 | u64::from(model.peek(at)));
    queue.stop();
    Ok(rings)
}

#[test]
fn a_queue_starts_without_an_iommu_if_there_are_hugepages() {
    let config = PoolConfig { slots: 64, slot_len: 2048, cells: 64, try_huge: true };
    let frames: fn(u64) -> u64 = |page| 1 << 63 | (0x1_0000 + page);
    let (tree, kernel) = bare_machine("noiommu-queue", frames);
    Region::pretend_huge();
    let pool = Pool::new(config).unwrap();
    let function = open_at(&kernel, &tree.system, Access::NoIommu).unwrap();
    let [rx, tx] = start_queue(function, &pool).unwrap();
    assert_eq!((rx, tx), (0x1_0000 * 4096, 0x1_0000 * 4096 + 512 * 16), "physical addresses");
    assert!(pool.audit().all_free());
    let small = Pool::new(PoolConfig { try_huge: false, ..config }).unwrap();
    let function = open_at(&kernel, &tree.system, Access::NoIommu).unwrap();
    let error = start_queue(function, &small).unwrap_err().to_string();
    assert!(error.contains("hugepages"), "{error}");
}

#[test]
fn asking_for_no_iommu_where_there_is_one_is_refused() {
    let (tree, kernel) = (machine("noiommu-refused"), Arc::new(FakeKernel::default()));
    let error = open_at(&kernel, &tree.system, Access::NoIommu).unwrap_err();
    assert!(matches!(error, VfioError::NoIommuRefused(_)));
    assert!(error.fix().unwrap().contains("pci:0000:01:00.0"));
    assert!(NOIOMMU_WARNING.contains("all of this machine's memory"));
}

/// Opens with one thing missing; gives the error and its remedy as a user reads them.
fn told(name: &str, prepare: impl FnOnce(&Tree, &mut FakeKernel)) -> (VfioError, String) {
    let (tree, mut kernel) = (machine(name), FakeKernel::default());
    prepare(&tree, &mut kernel);
    let error = open(&Arc::new(kernel), &tree).unwrap_err();
    let text = format!("{error}\n{}", error.fix().unwrap_or_default());
    (error, text.replace(tree.root.to_str().unwrap(), ""))
}

macro_rules! assert_told {
    ($told:expr, $kind:pat, $($says:expr),+) => {
        let (error, text) = $told;
        assert!(matches!(error, $kind), "{error:?}");
        for says in [$($says),+] {
            assert!(text.contains(says), "{text}");
        }
    };
}

#[test]
fn what_a_user_lacks_is_named_with_its_remedy() {
    assert_told!(
        told("lack-bind", |tree, _| tree.hold(ADDRESS, Some("igb"))),
        VfioError::NotBound { .. },
        "igb has it",
        "sudo barewire nic bind 0000:01:00.0"
    );
    assert_told!(
        told("lack-module", |_, kernel| kernel.fail("open container", errno::ENOENT)),
        VfioError::NoModule(_),
        "/dev/vfio/vfio does not exist",
        "sudo modprobe vfio-pci"
    );
    assert_told!(
        told("lack-type1", |_, kernel| kernel.iommus.clear()),
        VfioError::NoType1,
        "sudo modprobe vfio_iommu_type1"
    );
    assert_told!(
        told("lack-iommu", |tree, _| {
            let link = tree.root.join(format!("sys/bus/pci/devices/{ADDRESS}/iommu_group"));
            std::fs::remove_file(link).unwrap();
        }),
        VfioError::NoIommu(_),
        "is in no IOMMU group",
        "intel_iommu=on"
    );
    assert_told!(
        told("lack-right", |_, kernel| kernel.fail("open group", errno::EACCES)),
        VfioError::Permission(_),
        "/dev/vfio/7 may not be opened",
        "sudo chown \"$USER\" /dev/vfio/7"
    );
    assert_told!(
        told("lack-remapping", |_, kernel| kernel.fail("SET_IOMMU", errno::EPERM)),
        VfioError::NoInterruptRemapping,
        "allow_unsafe_interrupts"
    );
    assert_told!(
        told("lack-device", |tree, _| {
            std::fs::remove_dir_all(tree.root.join("sys/bus/pci/devices")).unwrap();
        }),
        VfioError::Find(_),
        "no PCI device at 0000:01:00.0"
    );
}

#[test]
fn a_group_that_is_not_viable_names_who_blocks_it() {
    assert_told!(
        told("viable", |tree, kernel| {
            kernel.viable = false;
            tree.card("0000:01:00.1", 0x8086, 0x10c9).driver("igb").group(7);
        }),
        VfioError::NotViable { group: 7, .. },
        "IOMMU group 7 is not viable: 0000:01:00.1 is with igb",
        "sudo barewire nic bind 0000:01:00.1"
    );
}

#[test]
fn a_group_that_another_process_has_names_it() {
    assert_told!(
        told("busy", |tree, kernel| {
            kernel.fail("open group", errno::EBUSY);
            tree.file("proc/4711/comm", "dpdk-testpmd\n");
            std::fs::create_dir_all(tree.root.join("proc/4711/fd")).unwrap();
            let node = tree.root.join("dev/vfio/7");
            std::os::unix::fs::symlink(node, tree.root.join("proc/4711/fd/12")).unwrap();
        }),
        VfioError::Busy { .. },
        "/dev/vfio/7 is in use by dpdk-testpmd (process 4711)",
        "kill 4711"
    );
    assert_told!(
        told("busy-hidden", |_, kernel| kernel.fail("open group", errno::EBUSY)),
        VfioError::Busy { .. },
        "in use by another process",
        "sudo fuser -v"
    );
}

#[test]
fn a_limit_of_locked_memory_is_told_with_its_size() {
    let (tree, kernel) = (machine("memlock"), Arc::new(FakeKernel::default()));
    tree.file("proc/self/limits", "Max locked memory         65536     65536     bytes     \n");
    let function = open(&kernel, &tree).unwrap();
    kernel.fail_times("MAP_DMA", errno::ENOMEM, 1);
    let memory = region(1 << 20);
    let error = function.map(&memory).unwrap_err();
    let BusError::Os { source, .. } = &error else { panic!("{error:?}") };
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<VfioError>());
    assert!(matches!(
        cause,
        Some(VfioError::MemoryLimit { bytes: 0x10_0000, limit: Some(65_536) })
    ));
    let text = error.to_string();
    assert!(text.contains("mapping memory for 0000:01:00.0: 1048576 bytes"), "{text}");
    assert!(
        text.contains("is 65536 bytes") && text.contains("prlimit --memlock=unlimited"),
        "{text}"
    );
    assert_eq!(function.map(&memory).unwrap().iova().0, 1 << 20, "the address was given back");
}

#[test]
fn a_failure_at_any_step_leaves_nothing_behind() {
    let steps = [
        "open container",
        "GET_API_VERSION",
        "CHECK_EXTENSION",
        "open group",
        "GROUP_GET_STATUS",
        "GROUP_SET_CONTAINER",
        "SET_IOMMU",
        "IOMMU_GET_INFO",
        "GROUP_GET_DEVICE_FD",
        "GET_INFO",
        "GET_REGION_INFO",
        "GET_IRQ_INFO",
        "SET_IRQS",
    ];
    let tree = machine("any-step");
    for step in steps {
        let kernel = Arc::new(FakeKernel::default());
        kernel.fail_times(step, errno::EINVAL, 1);
        assert!(open(&kernel, &tree).is_err(), "{step}");
        assert!(open(&kernel, &tree).is_ok(), "after {step} the group can be opened again");
    }
}

#[test]
fn descriptors_stay_open_while_the_function_lives() {
    let (tree, kernel) = (machine("descriptors"), Arc::new(FakeKernel::default()));
    let function = open(&kernel, &tree).unwrap();
    let fds = function.enable_vectors(10).unwrap();
    drop(function.registers());
    assert!(fds.iter().all(|&fd| std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists()));
}
