//! A PCI function behind VFIO, as drivers see it.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::space::AddressSpace;
use super::{Access, VfioError};
use crate::bus::{BusError, DmaMapping, Function, Registers};
use crate::mem::Region;
use crate::mmio::Bar;
use crate::pci::{Config, PciAddress, PciFunction, System, find};
use crate::sys::vfio::{self, Interrupt, Kernel, Linux, REGION_BAR0, REGION_CONFIG};
use crate::sys::{EventFd, errno};

/// How often a reset is tried that another of the kernel's parts stands in the way of, and the pause
/// between two tries.
const RESET_TRIES: u32 = 10;
const RESET_PAUSE: Duration = Duration::from_millis(10);

/// Largest BAR 0 that is mapped: network cards have up to a few MiB.
const MAX_BAR_LEN: u64 = 1 << 30;

/// A PCI function that VFIO has given to this process.
///
/// Dropping it forbids the device to reach memory, switches its interrupts off and closes it; the
/// kernel then resets it. When the process dies without dropping it, the kernel does the same.
///
/// To the kernel the device is open for as long as its registers are mapped or a region is: whoever
/// holds [`Function::registers`] or a mapping keeps the group from being opened anew by another
/// process.
#[derive(Debug)]
pub struct VfioFunction {
    address: PciAddress,
    id: (u16, u16),
    kernel: Arc<dyn Kernel>,
    device: Arc<File>,
    space: Arc<AddressSpace>,
    bar: Arc<Bar>,
    config: Config,
    can_reset: bool,
    vectors: u16,
    /// One eventfd a vector, in order, as far as they have been asked for.
    routed: Mutex<Vec<EventFd>>,
    /// Signalled on an error of the link and when the kernel wants the device back.
    farewells: Vec<EventFd>,
    gone: AtomicBool,
}

impl VfioFunction {
    /// Opens the function at `address`, which [`crate::pci::bind`] has given to VFIO. It comes up
    /// unable to reach memory, with BAR 0 mapped and without interrupts.
    ///
    /// # Errors
    /// [`VfioError`]: what is missing, with its remedy in [`VfioError::fix`].
    pub fn open(
        system: &System,
        address: PciAddress,
        access: Access,
    ) -> Result<VfioFunction, VfioError> {
        VfioFunction::open_with(Arc::new(Linux), system, address, access)
    }

    pub(super) fn open_with(
        kernel: Arc<dyn Kernel>,
        system: &System,
        address: PciAddress,
        access: Access,
    ) -> Result<VfioFunction, VfioError> {
        let function = find(system, address)?;
        if !function.is_bound() {
            return Err(VfioError::NotBound { address, driver: function.driver });
        }
        let (space, device) = match choose(system, &function, access) {
            Access::NoIommu => AddressSpace::open_noiommu(&kernel, system, &function)?,
            _ if function.noiommu => return Err(VfioError::NoIommuUnasked(address)),
            Access::Iommufd => AddressSpace::open_iommufd(&kernel, system, &function)?,
            Access::Group | Access::Auto => AddressSpace::open_group(&kernel, system, &function)?,
        };
        VfioFunction::set_up(kernel, &function, space, device)
    }

    fn set_up(
        kernel: Arc<dyn Kernel>,
        function: &PciFunction,
        space: Arc<AddressSpace>,
        device: File,
    ) -> Result<VfioFunction, VfioError> {
        let refused = |what| move |source| VfioError::Kernel { what, source };
        let unsupported = |why: &str| VfioError::Unsupported(format!("{} {why}", function.address));
        let device = Arc::new(device);
        let info =
            vfio::device_info(&*kernel, &device).map_err(refused("asking about the device"))?;
        if !info.is_pci {
            return Err(unsupported("is no PCI device to VFIO"));
        }
        let region = |index| {
            vfio::region_info(&*kernel, &device, index)
                .map_err(refused("asking where the device's regions lie"))
        };
        let (bar, config) = (region(REGION_BAR0)?, region(REGION_CONFIG)?);
        let len = usize::try_from(bar.len).ok().filter(|_| (1..=MAX_BAR_LEN).contains(&bar.len));
        let Some(len) = len.filter(|_| bar.mappable) else {
            return Err(unsupported("has no BAR 0 that can be mapped"));
        };
        let config = Config::at(Arc::clone(&device), config.offset);
        // Its registers answer from here on, and it reaches nothing until a driver says so.
        config.set_bus_master(false)?;
        let bar = kernel.mmap(&device, bar.offset, len).map_err(refused("mapping BAR 0"))?;
        let vectors = vfio::interrupt_count(&*kernel, &device, Interrupt::MsiX)
            .map_err(refused("asking for the number of vectors"))?;
        let farewells = farewells(&*kernel, &device)
            .map_err(refused("routing the error and device-request interrupts"))?;
        Ok(VfioFunction {
            address: function.address,
            id: (function.vendor, function.device),
            device,
            space,
            bar: Arc::new(Bar::new(bar)),
            config,
            can_reset: info.can_reset,
            // MSI-X has at most 2,048.
            vectors: u16::try_from(vectors).unwrap_or(u16::MAX),
            routed: Mutex::default(),
            farewells,
            gone: AtomicBool::new(false),
            kernel,
        })
    }

    fn route(&self, routed: &mut Vec<EventFd>, count: usize) -> std::io::Result<()> {
        let had = routed.len();
        for _ in had..count {
            routed.push(EventFd::new()?);
        }
        if had > 0 {
            // Older kernels do not add vectors to those that are on (before 6.5, or without
            // dynamic MSI-X), so all go off and on again.
            vfio::disable_interrupts(&*self.kernel, &self.device, Interrupt::MsiX)?;
        }
        vfio::interrupts_to_eventfds(&*self.kernel, &self.device, Interrupt::MsiX, 0, routed)
    }

    fn try_reset(&self) -> std::io::Result<()> {
        let mut tries = 1;
        loop {
            match vfio::device_reset(&*self.kernel, &self.device) {
                Err(error)
                    if error.raw_os_error() == Some(errno::EAGAIN) && tries < RESET_TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(RESET_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn os(&self, what: &str, source: std::io::Error) -> BusError {
        BusError::Os { what: format!("{what} {}", self.address), source, fix: None }
    }
}

/// Which interface is used where the user left it open.
fn choose(system: &System, function: &PciFunction, access: Access) -> Access {
    let group_there = || {
        let node = function.group_node(system);
        system.dev.join("vfio/vfio").exists() && node.is_some_and(|node| node.exists())
    };
    match access {
        Access::Auto if function.vfio_node.is_some() && !group_there() => Access::Iommufd,
        Access::Auto => Access::Group,
        asked => asked,
    }
}

/// Routes the interrupts that tell that a device is lost, as far as it has them.
fn farewells(kernel: &dyn Kernel, device: &File) -> std::io::Result<Vec<EventFd>> {
    let mut eventfds = Vec::new();
    for kind in [Interrupt::Error, Interrupt::Request] {
        if vfio::interrupt_count(kernel, device, kind)? > 0 {
            let eventfd = EventFd::new()?;
            vfio::interrupts_to_eventfds(kernel, device, kind, 0, std::slice::from_ref(&eventfd))?;
            eventfds.push(eventfd);
        }
    }
    Ok(eventfds)
}

impl Function for VfioFunction {
    fn id(&self) -> (u16, u16) {
        self.id
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    fn registers(&self) -> Arc<dyn Registers> {
        Arc::clone(&self.bar) as Arc<dyn Registers>
    }

    fn needs_hugepages(&self) -> bool {
        self.space.needs_hugepages()
    }

    fn map(&self, region: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError> {
        let mapping = self.space.map(region);
        let mapping = mapping
            .map_err(|error| error.on_bus(format!("mapping memory for {}", self.address)))?;
        Ok(Box::new(mapping))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.config.set_bus_master(on).map_err(|error| {
            VfioError::from(error).on_bus(format!("setting bus master of {}", self.address))
        })
    }

    fn reset(&self) -> Result<(), BusError> {
        if !self.can_reset {
            let address = self.address;
            let why = format!("{address} cannot be reset without its neighbours on the bus");
            return Err(BusError::Unsupported(why));
        }
        self.try_reset().map_err(|source| self.os("resetting", source))
    }

    fn vectors(&self) -> u16 {
        self.vectors
    }

    fn enable_vectors(&self, count: u16) -> Result<Vec<RawFd>, BusError> {
        if count > self.vectors {
            let (address, has) = (self.address, self.vectors);
            return Err(BusError::Unsupported(format!("{address} has {has} vectors, not {count}")));
        }
        let count = usize::from(count);
        let mut routed = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if count > routed.len() {
            let had = routed.len();
            if let Err(source) = self.route(&mut routed, count) {
                // Descriptors that were given away stay as they are.
                routed.truncate(had);
                return Err(self.os("enabling the interrupts of", source));
            }
        }
        Ok(routed[..count].iter().map(AsRawFd::as_raw_fd).collect())
    }

    fn is_gone(&self) -> bool {
        if self.farewells.iter().any(EventFd::drain) {
            self.gone.store(true, Ordering::Relaxed);
        }
        self.gone.load(Ordering::Relaxed)
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        // Both may fail on a device that is gone, and closing it does them again.
        let _ = self.config.set_bus_master(false);
        let _ = vfio::disable_interrupts(&*self.kernel, &self.device, Interrupt::MsiX);
    }
}
