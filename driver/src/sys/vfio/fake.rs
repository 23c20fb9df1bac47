//! A kernel for tests: it keeps the order of calls that Linux asks for, checks the size, flags and
//! fields of every argument, and refuses what it is told to refuse.
//!
//! Descriptors are memory files, so that mapping, reading and writing them are real. A device's
//! file is laid out as `vfio-pci` lays it out: region *n* at `n << 40`.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use super::fields::{Argument, Fields, Form};
use super::{Interrupt, Kernel};
use crate::sys::{errno, memfd};

/// Bytes in the fake device's BAR 0.
pub(crate) const BAR_LEN: u64 = 128 * 1024;

/// Where a region begins in a device's descriptor.
const fn region_offset(index: u32) -> u64 {
    (index as u64) << 40
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Container { has_group: bool, iommu: Option<u32> },
    Group { container: Option<RawFd> },
    Device { usable: bool, bound: Option<RawFd> },
    Iommu,
    Pagemap,
}

/// The fake kernel. Change the public fields before it is used.
#[derive(Debug)]
pub(crate) struct FakeKernel {
    /// Groups are viable.
    pub(crate) viable: bool,
    /// IOMMU models on offer: 3 is type1v2, 8 none.
    pub(crate) iommus: Vec<u32>,
    /// Usable addresses, first and last; empty as on old kernels that tell none.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// MSI-X vectors.
    pub(crate) vectors: u32,
    /// The device can be reset.
    pub(crate) can_reset: bool,
    /// BAR 0 may be mapped.
    pub(crate) mappable: bool,
    /// What `pagemap` says of the page at an address, given its number from the first one asked for.
    pub(crate) page: fn(u64) -> u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<RawFd, Node>,
    /// The step that fails, with which error, how often.
    failing: HashMap<&'static str, (i32, u32)>,
    log: Vec<&'static str>,
    /// iova → length.
    mappings: HashMap<u64, u64>,
    /// (kind, index) → a duplicate of the eventfd.
    eventfds: HashMap<(u32, u32), File>,
    last_device: Option<File>,
    spaces: u32,
}

impl Default for FakeKernel {
    /// A type 1 IOMMU with the usual ranges, and a device with 10 vectors that can be reset.
    fn default() -> FakeKernel {
        FakeKernel {
            viable: true,
            iommus: vec![3],
            ranges: vec![(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)],
            vectors: 10,
            can_reset: true,
            mappable: true,
            page: |_| 0,
            state: Mutex::default(),
        }
    }
}

fn refuse<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

/// Asserts a structure's length and its `argsz`.
fn sized<'a>(argument: Argument<'a>, len: usize) -> &'a mut Fields {
    let Form::Fields(fields) = argument.0 else { panic!("a structure is expected") };
    assert_eq!((fields.len(), fields.u32(0) as usize), (len, len), "argsz");
    fields
}

impl FakeKernel {
    /// The usual kernel, changed.
    pub(crate) fn with(change: impl FnOnce(&mut FakeKernel)) -> FakeKernel {
        let mut kernel = FakeKernel::default();
        change(&mut kernel);
        kernel
    }

    /// Makes a step fail from now on: `open NODE` or a request's name.
    pub(crate) fn fail(&self, step: &'static str, code: i32) {
        self.fail_times(step, code, u32::MAX);
    }

    /// Makes a step fail so many times.
    pub(crate) fn fail_times(&self, step: &'static str, code: i32, times: u32) {
        self.state.lock().unwrap().failing.insert(step, (code, times));
    }

    /// What was asked, in order.
    pub(crate) fn log(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().log.clone()
    }

    /// What is mapped: address and length, in order.
    pub(crate) fn mappings(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<_> =
            self.state.lock().unwrap().mappings.iter().map(|(&a, &b)| (a, b)).collect();
        all.sort_unstable();
        all
    }

    /// Fires an interrupt; false if nothing is routed there.
    pub(crate) fn fire(&self, kind: Interrupt, index: u32) -> bool {
        let state = self.state.lock().unwrap();
        let eventfd = state.eventfds.get(&(kind as u32, index));
        eventfd
            .is_some_and(|mut eventfd| io::Write::write(&mut eventfd, &1u64.to_ne_bytes()).is_ok())
    }

    /// The device that was opened last, to look into its regions.
    pub(crate) fn device(&self) -> File {
        let state = self.state.lock().unwrap();
        state.last_device.as_ref().unwrap().try_clone().unwrap()
    }

    /// The command register of the device that was opened last.
    pub(crate) fn command_register(&self) -> u16 {
        let mut bytes = [0; 2];
        self.device().read_exact_at(&mut bytes, region_offset(7) + 4).unwrap();
        u16::from_le_bytes(bytes)
    }

    fn step(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.log.push(name);
        if let Some((code, times)) = state.failing.get_mut(name)
            && *times > 0
        {
            *times = times.saturating_sub(1);
            return refuse(*code);
        }
        Ok(())
    }

    fn add(&self, node: Node) -> io::Result<File> {
        let file = memfd("fake", false)?;
        if let Node::Device { .. } = node {
            file.set_len(region_offset(8))?;
            // A capability list with MSI-X is not needed: VFIO tells the number of vectors.
            file.write_all_at(&[0x86, 0x80, 0xc9, 0x10, 0x07, 0x04], region_offset(7))?;
            self.state.lock().unwrap().last_device = Some(file.try_clone()?);
        }
        self.state.lock().unwrap().nodes.insert(file.as_raw_fd(), node);
        Ok(file)
    }

    fn node(&self, file: &File) -> Node {
        self.state.lock().unwrap().nodes[&file.as_raw_fd()]
    }

    fn set_node(&self, fd: RawFd, node: Node) {
        self.state.lock().unwrap().nodes.insert(fd, node);
    }

    fn map(&self, iova: u64, len: u64, address: u64) -> io::Result<()> {
        assert!(address != 0 && address.is_multiple_of(4096) && len.is_multiple_of(4096));
        let last = iova + len - 1;
        let allowed = |&(first, end): &(u64, u64)| first <= iova && last <= end;
        if !iova.is_multiple_of(4096)
            || !(self.ranges.is_empty() || self.ranges.iter().any(allowed))
        {
            return refuse(errno::EINVAL);
        }
        let mut state = self.state.lock().unwrap();
        if state.mappings.iter().any(|(&start, &len)| start <= last && iova < start + len) {
            return refuse(libc::EEXIST);
        }
        state.mappings.insert(iova, len);
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> u64 {
        let mut state = self.state.lock().unwrap();
        if state.mappings.get(&iova) == Some(&len) {
            state.mappings.remove(&iova).unwrap()
        } else {
            0
        }
    }

    fn container_request(
        &self,
        file: &File,
        request: u32,
        argument: Argument<'_>,
    ) -> io::Result<u32> {
        let Node::Container { has_group, iommu } = self.node(file) else { unreachable!() };
        match request & 0xff {
            100 => self.step("GET_API_VERSION").map(|()| 0),
            101 => {
                self.step("CHECK_EXTENSION")?;
                let Form::Value(asked) = argument.0 else { panic!("a number is expected") };
                Ok(u32::from(self.iommus.contains(&asked)))
            }
            102 => {
                self.step("SET_IOMMU")?;
                let Form::Value(asked) = argument.0 else { panic!("a number is expected") };
                assert!(has_group, "the IOMMU is chosen after a group is in the container");
                assert!(self.iommus.contains(&asked), "only what is on offer");
                self.set_node(file.as_raw_fd(), Node::Container { has_group, iommu: Some(asked) });
                Ok(0)
            }
            112 => {
                self.step("IOMMU_GET_INFO")?;
                assert_eq!(iommu, Some(3), "only type 1 describes itself");
                self.describe_iommu(argument);
                Ok(0)
            }
            113 => {
                self.step("MAP_DMA")?;
                let map = sized(argument, 32);
                assert_eq!((iommu, map.u32(4)), (Some(3), 3), "readable and writable");
                self.map(map.u64(16), map.u64(24), map.u64(8)).map(|()| 0)
            }
            114 => {
                self.step("UNMAP_DMA")?;
                let unmap = sized(argument, 24);
                assert_eq!(unmap.u32(4), 0, "no flags");
                let done = self.unmap(unmap.u64(8), unmap.u64(16));
                unmap.set_u64(16, done);
                Ok(0)
            }
            other => panic!("request {other} of a container"),
        }
    }

    /// Page sizes; then a capability that nobody knows, one with the ranges, one with the mappings
    /// left, as far as they fit.
    fn describe_iommu(&self, argument: Argument<'_>) {
        let Form::Fields(info) = argument.0 else { panic!("a structure is expected") };
        let argsz = info.u32(0) as usize;
        assert!(
            argsz >= 20 && argsz <= info.len(),
            "argsz covers the fixed part, no more than all"
        );
        info.set_u64(8, 0x4020_1000);
        if self.ranges.is_empty() {
            info.set_u32(4, 1);
            return;
        }
        info.set_u32(4, 3);
        let whole = 24 + 8 + 16 + 16 * self.ranges.len() + 16;
        info.set_u32(0, whole as u32);
        if argsz < whole {
            return;
        }
        let cap = |info: &mut Fields, at: usize, id: u32, next: usize| {
            info.set_u32(at, id | 1 << 16);
            info.set_u32(at + 4, next as u32);
        };
        let left = whole - 16;
        info.set_u32(16, 24);
        cap(info, 24, 99, 32);
        cap(info, 32, 1, left);
        info.set_u32(40, self.ranges.len() as u32);
        for (i, &(first, last)) in self.ranges.iter().enumerate() {
            info.set_u64(48 + 16 * i, first);
            info.set_u64(56 + 16 * i, last);
        }
        cap(info, left, 3, 0);
        info.set_u32(left + 8, 65_535);
    }

    fn group_request(&self, file: &File, request: u32, argument: Argument<'_>) -> io::Result<u32> {
        match request & 0xff {
            103 => {
                self.step("GROUP_GET_STATUS")?;
                let status = sized(argument, 8);
                status.set_u32(4, u32::from(self.viable));
                Ok(0)
            }
            104 => {
                self.step("GROUP_SET_CONTAINER")?;
                assert!(self.viable, "a group that is not viable is not used");
                let Form::Fields(fd) = argument.0 else { panic!("a descriptor is expected") };
                assert_eq!(fd.len(), 4, "descriptors have 32 bits");
                let container = fd.u32(0) as RawFd;
                let node = self.state.lock().unwrap().nodes[&container];
                assert_eq!(node, Node::Container { has_group: false, iommu: None });
                self.set_node(container, Node::Container { has_group: true, iommu: None });
                self.set_node(file.as_raw_fd(), Node::Group { container: Some(container) });
                Ok(0)
            }
            other => panic!("request {other} of a group"),
        }
    }

    fn device_request(&self, file: &File, request: u32, argument: Argument<'_>) -> io::Result<u32> {
        let Node::Device { usable, bound } = self.node(file) else { unreachable!() };
        let number = request & 0xff;
        assert!(usable || matches!(number, 118 | 119), "not before an address space is attached");
        match number {
            107 => {
                self.step("GET_INFO")?;
                let Form::Fields(info) = argument.0 else { panic!("a structure is expected") };
                assert!(info.u32(0) >= 16 && info.u32(0) as usize <= info.len());
                info.set_u32(4, 2 | u32::from(self.can_reset));
                info.set_u32(8, 9);
                info.set_u32(12, 5);
            }
            108 => {
                self.step("GET_REGION_INFO")?;
                let info = sized(argument, 32);
                let index = info.u32(8);
                let (flags, len) = match index {
                    0 => (3 | u32::from(self.mappable) << 2, BAR_LEN),
                    7 => (3, 4096),
                    _ => (0, 0),
                };
                info.set_u32(4, flags);
                info.set_u64(16, len);
                info.set_u64(24, region_offset(index));
            }
            109 => {
                self.step("GET_IRQ_INFO")?;
                let info = sized(argument, 16);
                let count = if info.u32(8) == 2 { self.vectors } else { 1 };
                info.set_u32(4, 1 | 8);
                info.set_u32(12, count);
            }
            110 => {
                self.step("SET_IRQS")?;
                return self.set_irqs(argument);
            }
            111 => self.step("RESET")?,
            118 => {
                self.step("BIND_IOMMUFD")?;
                let bind = sized(argument, 16);
                assert_eq!((bind.u32(4), usable, bound), (0, false, None));
                let iommu = bind.u32(8) as RawFd;
                assert_eq!(self.state.lock().unwrap().nodes[&iommu], Node::Iommu);
                bind.set_u32(12, 1);
                self.set_node(file.as_raw_fd(), Node::Device { usable, bound: Some(iommu) });
            }
            119 => {
                self.step("ATTACH_IOMMUFD_PT")?;
                let attach = sized(argument, 12);
                assert_eq!(attach.u32(4), 0, "no flags");
                assert!(bound.is_some(), "bound before it is attached");
                assert_eq!(attach.u32(8), self.state.lock().unwrap().spaces, "a space that exists");
                self.set_node(file.as_raw_fd(), Node::Device { usable: true, bound });
            }
            other => panic!("request {other} of a device"),
        }
        Ok(0)
    }

    fn set_irqs(&self, argument: Argument<'_>) -> io::Result<u32> {
        let Form::Fields(set) = argument.0 else { panic!("a structure is expected") };
        let (flags, kind, start, count) = (set.u32(4), set.u32(8), set.u32(12), set.u32(16));
        let mut state = self.state.lock().unwrap();
        let most = if kind == 2 { self.vectors } else { 1 };
        assert!(start + count <= most, "interrupts that the device has");
        match flags {
            // DATA_NONE | ACTION_TRIGGER without a count: off.
            0x21 => {
                assert_eq!((set.u32(0), start, count), (20, 0, 0));
                state.eventfds.retain(|&(routed, _), _| routed != kind);
            }
            // DATA_EVENTFD | ACTION_TRIGGER.
            0x24 => {
                assert_eq!(set.u32(0), 20 + 4 * count, "descriptors have 32 bits");
                for i in 0..count {
                    let fd = set.u32(20 + 4 * i as usize) as RawFd;
                    // SAFETY: the caller has the descriptor open over the call, as for the kernel.
                    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                    let copy: OwnedFd = fd.try_clone_to_owned()?;
                    state.eventfds.insert((kind, start + i), copy.into());
                }
            }
            other => panic!("interrupt flags {other:#x}"),
        }
        Ok(0)
    }

    fn iommu_request(&self, request: u32, argument: Argument<'_>) -> io::Result<u32> {
        match request & 0xff {
            0x81 => {
                self.step("IOAS_ALLOC")?;
                let alloc = sized(argument, 12);
                assert_eq!(alloc.u32(4), 0, "no flags");
                let mut state = self.state.lock().unwrap();
                state.spaces += 1;
                alloc.set_u32(8, state.spaces);
            }
            0x84 => {
                self.step("IOAS_IOVA_RANGES")?;
                let query = sized(argument, 32);
                assert_eq!(query.u32(12), 0, "the reserved field is zero");
                let room = query.u32(8) as usize;
                query.set_u32(8, self.ranges.len() as u32);
                query.set_u64(24, 4096);
                if room < self.ranges.len() {
                    return refuse(libc::EMSGSIZE);
                }
                let array = query.u64(16) as *mut u64;
                for (i, &(first, last)) in self.ranges.iter().enumerate() {
                    // SAFETY: as for the kernel, the caller's array has `room` pairs, and `i` is
                    // below that; the array need not be aligned.
                    unsafe {
                        array.add(2 * i).write_unaligned(first);
                        array.add(2 * i + 1).write_unaligned(last);
                    }
                }
            }
            0x85 => {
                self.step("IOAS_MAP")?;
                let map = sized(argument, 40);
                assert_eq!((map.u32(4), map.u32(12)), (7, 0), "fixed, readable, writable");
                self.map(map.u64(32), map.u64(24), map.u64(16))?;
            }
            0x86 => {
                self.step("IOAS_UNMAP")?;
                let unmap = sized(argument, 24);
                let done = self.unmap(unmap.u64(8), unmap.u64(16));
                unmap.set_u64(16, done);
            }
            other => panic!("request {other:#x} of an iommufd"),
        }
        Ok(0)
    }

    fn pagemap(&self, file: &File) -> io::Result<()> {
        // Entries are made for every page of the process that a test may ask for: the file is read
        // by offset, so a sparse one with the right entries is filled when it is opened.
        for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
            if !line.contains("barewire-packets") {
                continue;
            }
            let (from, rest) = line.split_once('-').unwrap();
            let to = rest.split(' ').next().unwrap();
            let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (from, to) = (address(from), address(to));
            for page in 0..(to - from) / 4096 {
                let entry = (self.page)(page).to_ne_bytes();
                file.write_all_at(&entry, (from / 4096 + page) * 8)?;
            }
        }
        Ok(())
    }
}

impl Kernel for FakeKernel {
    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        let name = path.file_name().unwrap().to_str().unwrap();
        let parent = path.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
        match (parent, name) {
            ("vfio", "vfio") => {
                self.step("open container")?;
                self.add(Node::Container { has_group: false, iommu: None })
            }
            ("vfio", _) => {
                self.step("open group")?;
                self.add(Node::Group { container: None })
            }
            ("devices", _) => {
                self.step("open device")?;
                self.add(Node::Device { usable: false, bound: None })
            }
            (_, "iommu") => {
                self.step("open iommu")?;
                self.add(Node::Iommu)
            }
            (_, "pagemap") => {
                self.step("open pagemap")?;
                assert!(!write, "page tables are only read");
                let file = self.add(Node::Pagemap)?;
                self.pagemap(&file)?;
                Ok(file)
            }
            other => panic!("{other:?} is not opened"),
        }
    }

    fn ioctl(&self, file: &File, request: u32, argument: Argument<'_>) -> io::Result<u32> {
        assert_eq!(request >> 8, u32::from(b';'), "the type of VFIO's and iommufd's requests");
        match self.node(file) {
            Node::Container { .. } => self.container_request(file, request, argument),
            Node::Group { .. } => self.group_request(file, request, argument),
            Node::Device { .. } => self.device_request(file, request, argument),
            Node::Iommu => self.iommu_request(request, argument),
            Node::Pagemap => panic!("page tables take no requests"),
        }
    }

    fn device_of_group(&self, group: &File, name: &CStr) -> io::Result<File> {
        self.step("GROUP_GET_DEVICE_FD")?;
        assert_eq!(name, c"0000:01:00.0");
        let Node::Group { container: Some(container) } = self.node(group) else {
            panic!("the group has no container")
        };
        let node = self.state.lock().unwrap().nodes[&container];
        assert!(matches!(node, Node::Container { iommu: Some(_), .. }), "the IOMMU is not chosen");
        self.add(Node::Device { usable: true, bound: None })
    }
}
