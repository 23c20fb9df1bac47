//! A device's address space: which regions it reaches, and where.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::VfioError;
use super::iova::IovaSpace;
use crate::bus::{DmaMapping, Iova};
use crate::mem::{PageKind, Region};
use crate::pci::{PciFunction, System};
use crate::sys::vfio::{self, IommuKind, Kernel};
use crate::sys::{self, errno};

/// Regions at least this long are placed at its multiples, so that the IOMMU can use large pages.
const LARGE_PAGE: u64 = 2 << 20;

/// The only version of VFIO's interface there has been.
const API_VERSION: u32 = 0;

/// Bit 63 of a page's entry in `pagemap`: it is in memory. Bits 0 to 54 are its frame number.
const PAGE_PRESENT: u64 = 1 << 63;
const PAGE_FRAME: u64 = (1 << 55) - 1;

/// The interface behind an address space, with the descriptors that keep it alive.
#[derive(Debug)]
enum Backend {
    Group { container: File, group: File },
    Iommufd { iommu: File, id: u32 },
    NoIommu { _container: File, group: File, pagemap: PathBuf },
}

/// One device's (or group's) address space.
#[derive(Debug)]
pub(super) struct AddressSpace {
    kernel: Arc<dyn Kernel>,
    backend: Backend,
    iovas: Mutex<IovaSpace>,
    system: System,
}

/// The address spaces of this process: a group can be opened once only, and the functions in it
/// share what they reach.
static SPACES: Mutex<Vec<(PathBuf, Weak<AddressSpace>)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves its data half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address space of `node`, made anew if this process has none.
fn shared(
    node: &Path,
    make: impl FnOnce() -> Result<AddressSpace, VfioError>,
) -> Result<Arc<AddressSpace>, VfioError> {
    let mut spaces = lock(&SPACES);
    spaces.retain(|(_, space)| space.strong_count() > 0);
    if let Some(space) =
        spaces.iter().find_map(|(path, space)| (path == node).then(|| space.upgrade()).flatten())
    {
        return Ok(space);
    }
    let space = Arc::new(make()?);
    spaces.push((node.to_owned(), Arc::downgrade(&space)));
    Ok(space)
}

/// The error for a node that cannot be opened.
fn open_node(
    kernel: &dyn Kernel,
    system: &System,
    path: &Path,
    what: &'static str,
) -> Result<File, VfioError> {
    kernel.open(path, true).map_err(|source| match source.raw_os_error() {
        Some(errno::ENOENT | errno::ENODEV | errno::ENXIO) => VfioError::NoModule(path.to_owned()),
        Some(errno::EACCES | errno::EPERM) => VfioError::Permission(path.to_owned()),
        Some(errno::EBUSY) => {
            VfioError::Busy { path: path.to_owned(), holders: system.holders(path) }
        }
        _ => VfioError::Kernel { what, source },
    })
}

/// Wraps a refusal that has no remedy of its own.
fn step(what: &'static str) -> impl FnOnce(io::Error) -> VfioError {
    move |source| VfioError::Kernel { what, source }
}

impl AddressSpace {
    /// Opens a function's group with an IOMMU and the function in it.
    pub(super) fn open_group(
        kernel: &Arc<dyn Kernel>,
        system: &System,
        function: &PciFunction,
    ) -> Result<(Arc<AddressSpace>, File), VfioError> {
        let node = function.group_node(system).ok_or(VfioError::NoIommu(function.address))?;
        let space = shared(&node, || {
            let (container, group) =
                join_container(&**kernel, system, function, &node, IommuKind::Type1v2)?;
            let info = vfio::iommu_info(&**kernel, &container)
                .map_err(step("asking what the IOMMU allows"))?;
            let iovas = Mutex::new(IovaSpace::new(info.ranges));
            let backend = Backend::Group { container, group };
            Ok(AddressSpace { kernel: Arc::clone(kernel), backend, iovas, system: system.clone() })
        })?;
        let device = space.device_in_group(function, &node)?;
        Ok((space, device))
    }

    /// Opens a function's group without an IOMMU and the function in it.
    pub(super) fn open_noiommu(
        kernel: &Arc<dyn Kernel>,
        system: &System,
        function: &PciFunction,
    ) -> Result<(Arc<AddressSpace>, File), VfioError> {
        let refused = VfioError::NoIommuRefused(function.address);
        let Some(node) = function.group_node(system).filter(|_| function.noiommu) else {
            return Err(refused);
        };
        let space = shared(&node, || {
            let joined = join_container(&**kernel, system, function, &node, IommuKind::None);
            let (container, group) = joined.map_err(|error| match error {
                VfioError::NoType1 => refused,
                // The node may be this user's; the kernel wants CAP_SYS_RAWIO all the same.
                VfioError::Permission(_) => VfioError::NoIommuRights,
                other => other,
            })?;
            let pagemap = system.proc.join("self/pagemap");
            let backend = Backend::NoIommu { _container: container, group, pagemap };
            let iovas = Mutex::new(IovaSpace::new(Vec::new()));
            Ok(AddressSpace { kernel: Arc::clone(kernel), backend, iovas, system: system.clone() })
        })?;
        let device = space.device_in_group(function, &node)?;
        Ok((space, device))
    }

    /// Opens a function's own node and attaches it to the process's iommufd.
    pub(super) fn open_iommufd(
        kernel: &Arc<dyn Kernel>,
        system: &System,
        function: &PciFunction,
    ) -> Result<(Arc<AddressSpace>, File), VfioError> {
        let devices = system.dev.join("vfio/devices");
        let Some(name) = &function.vfio_node else { return Err(VfioError::NoModule(devices)) };
        let node = devices.join(name);
        let device = open_node(&**kernel, system, &node, "opening the device")?;
        let path = system.dev.join("iommu");
        let space = shared(&path, || {
            let iommu = open_node(&**kernel, system, &path, "opening iommufd")?;
            let id = vfio::create_address_space(&**kernel, &iommu)
                .map_err(step("making an address space"))?;
            let iovas = Mutex::new(IovaSpace::new(Vec::new()));
            let backend = Backend::Iommufd { iommu, id };
            Ok(AddressSpace { kernel: Arc::clone(kernel), backend, iovas, system: system.clone() })
        })?;
        space.attach(function, &node, &device)?;
        Ok((space, device))
    }

    fn attach(&self, function: &PciFunction, node: &Path, device: &File) -> Result<(), VfioError> {
        let Backend::Iommufd { iommu, id } = &self.backend else {
            return Err(VfioError::NoIommu(function.address));
        };
        let kernel = &*self.kernel;
        vfio::bind(kernel, device, iommu).map_err(|source| match source.raw_os_error() {
            Some(errno::EBUSY | errno::EINVAL) => self.busy(node),
            _ => VfioError::Kernel { what: "giving the device to iommufd", source },
        })?;
        vfio::attach(kernel, device, *id).map_err(|source| match source.raw_os_error() {
            Some(errno::EPERM) => VfioError::NoInterruptRemapping,
            _ => VfioError::Kernel { what: "attaching the device to its address space", source },
        })?;
        // Attaching narrows what is allowed, so this is asked for only now.
        let (ranges, _) = vfio::iova_ranges(kernel, iommu, *id)
            .map_err(step("asking which addresses the IOMMU allows"))?;
        lock(&self.iovas).allow_only(ranges);
        Ok(())
    }

    fn device_in_group(&self, function: &PciFunction, node: &Path) -> Result<File, VfioError> {
        let (Backend::Group { group, .. } | Backend::NoIommu { group, .. }) = &self.backend else {
            return Err(VfioError::NoIommu(function.address));
        };
        let name = std::ffi::CString::new(function.address.to_string())
            .map_err(|error| VfioError::Unsupported(error.to_string()))?;
        self.kernel.device_of_group(group, &name).map_err(|source| match source.raw_os_error() {
            Some(errno::EBUSY) => self.busy(node),
            _ => VfioError::Kernel { what: "opening the device in its group", source },
        })
    }

    fn busy(&self, node: &Path) -> VfioError {
        VfioError::Busy { path: node.to_owned(), holders: self.system.holders(node) }
    }

    /// True if regions are reached by their physical address, which only hugepages keep.
    pub(super) fn needs_hugepages(&self) -> bool {
        match self.backend {
            Backend::NoIommu { .. } => true,
            Backend::Group { .. } | Backend::Iommufd { .. } => false,
        }
    }

    /// Makes a region reachable.
    pub(super) fn map(self: &Arc<Self>, region: &Arc<Region>) -> Result<Mapping, VfioError> {
        let iova = match &self.backend {
            Backend::NoIommu { pagemap, .. } => physical_address(&*self.kernel, pagemap, region)?,
            Backend::Group { .. } | Backend::Iommufd { .. } => self.map_behind_iommu(region)?,
        };
        Ok(Mapping {
            space: Arc::clone(self),
            _region: Arc::clone(region),
            iova,
            len: region.len(),
        })
    }

    fn map_behind_iommu(&self, region: &Region) -> Result<u64, VfioError> {
        let len = region.len() as u64;
        let align = if len < LARGE_PAGE { sys::page_size() as u64 } else { LARGE_PAGE };
        let mut iovas = lock(&self.iovas);
        let iova = iovas.take(len, align).ok_or(VfioError::NoIova(len))?;
        let kernel = &*self.kernel;
        let mapped = match &self.backend {
            Backend::Group { container, .. } => vfio::map_dma(kernel, container, region, iova),
            Backend::Iommufd { iommu, id } => vfio::map(kernel, iommu, *id, region, iova),
            Backend::NoIommu { .. } => Ok(()),
        };
        mapped.map_err(|source| {
            iovas.give_back(iova);
            match source.raw_os_error() {
                // Type 1 answers so when the limit of locked memory is reached.
                Some(errno::ENOMEM) => {
                    let limit = self.system.lockable_bytes().filter(|&limit| limit < u64::MAX);
                    VfioError::MemoryLimit { bytes: len, limit }
                }
                _ => VfioError::Kernel { what: "making memory reachable for the device", source },
            }
        })?;
        Ok(iova)
    }

    fn unmap(&self, iova: u64, len: u64) {
        let kernel = &*self.kernel;
        let unmapped = match &self.backend {
            Backend::Group { container, .. } => vfio::unmap_dma(kernel, container, iova, len),
            Backend::Iommufd { iommu, id } => vfio::unmap(kernel, iommu, *id, iova, len),
            Backend::NoIommu { .. } => return,
        };
        // An address that the kernel would not unmap is not used again. The pages behind it stay
        // pinned until the descriptors close, so whatever the device writes there hits nobody.
        if unmapped.is_ok_and(|done| done == len) {
            lock(&self.iovas).give_back(iova);
        }
    }
}

/// Opens a container and a group, and puts the one into the other.
fn join_container(
    kernel: &dyn Kernel,
    system: &System,
    function: &PciFunction,
    node: &Path,
    iommu: IommuKind,
) -> Result<(File, File), VfioError> {
    let container = open_node(kernel, system, &system.dev.join("vfio/vfio"), "opening VFIO")?;
    let version = vfio::api_version(kernel, &container).map_err(step("asking VFIO's version"))?;
    if version != API_VERSION {
        return Err(VfioError::Unsupported(format!("VFIO has version {version}, not 0")));
    }
    let offered = vfio::supports(kernel, &container, iommu);
    if !offered.map_err(step("asking which IOMMUs VFIO drives"))? {
        return Err(VfioError::NoType1);
    }
    let group = open_node(kernel, system, node, "opening the IOMMU group")?;
    let status = vfio::group_status(kernel, &group).map_err(step("asking the group's status"))?;
    if !status.viable {
        let blockers = function.group_blockers(system);
        return Err(VfioError::NotViable { group: function.group.unwrap_or(0), blockers });
    }
    if status.in_container {
        return Err(VfioError::Busy { path: node.to_owned(), holders: system.holders(node) });
    }
    vfio::set_container(kernel, &group, &container)
        .map_err(step("putting the group into a container"))?;
    vfio::set_iommu(kernel, &container, iommu).map_err(|source| match source.raw_os_error() {
        Some(errno::EPERM) if iommu == IommuKind::Type1v2 => VfioError::NoInterruptRemapping,
        Some(errno::EPERM) => VfioError::NoIommuRights,
        _ => VfioError::Kernel { what: "choosing the IOMMU", source },
    })?;
    Ok((container, group))
}

/// The physical address of a region that is one run of hugepages.
///
/// Hugepages neither move nor are swapped; ordinary pages, even locked ones, may be moved by the
/// kernel at any time, and a device without an IOMMU would go on writing to where they were.
fn physical_address(
    kernel: &dyn Kernel,
    pagemap: &Path,
    region: &Region,
) -> Result<u64, VfioError> {
    if region.pages() != PageKind::Huge {
        return Err(VfioError::NoHugepages);
    }
    region.populate().map_err(step("giving packet memory its pages"))?;
    let page = sys::page_size() as u64;
    let mut entries = vec![0; region.len() / page as usize * 8];
    kernel
        .open(pagemap, false)
        .and_then(|file| file.read_exact_at(&mut entries, region.address() / page * 8))
        .map_err(step("reading where packet memory lies"))?;
    let mut first = None;
    for (i, entry) in (0..).zip(entries.chunks_exact(8)) {
        let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
        let frame = entry & PAGE_FRAME;
        // Without CAP_SYS_ADMIN the kernel shows every frame as zero.
        if entry & PAGE_PRESENT == 0 || frame == 0 {
            return Err(VfioError::NoIommuRights);
        }
        if frame != *first.get_or_insert(frame) + i {
            return Err(VfioError::Scattered { page: i });
        }
    }
    first.map(|frame| frame * page).ok_or(VfioError::NoHugepages)
}

/// A region that a device reaches, until this is dropped.
pub(super) struct Mapping {
    space: Arc<AddressSpace>,
    /// Kept alive: the device may write to it for as long as it is mapped.
    _region: Arc<Region>,
    iova: u64,
    len: usize,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:#x}+{:#x})", self.iova, self.len)
    }
}

impl DmaMapping for Mapping {
    fn iova(&self) -> Iova {
        Iova(self.iova)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.space.unmap(self.iova, self.len as u64);
    }
}
