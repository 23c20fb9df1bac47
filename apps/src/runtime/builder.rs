//! Starting an instance.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barewire_driver::middleware::capture::{CaptureFile, CapturedDevice, DEFAULT_SNAPLEN};
use barewire_driver::middleware::fault::{FaultConfig, FaultyDevice};
use barewire_driver::spec::{OpenOptions, open_device};
use barewire_driver::{Device, DeviceError, DeviceSpec, PoolConfig, QueueId, sys};
use barewire_stack::engine::{EngineConfig, EngineError, Engines, Idle};
use barewire_stack::tcp::TcpConfig;
use barewire_stack::{Cidr, Limits};
use thiserror::Error;

use super::instance::Barewire;

/// Why an instance could not be started; each says what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// No device was named.
    #[error("no device was given: name one, such as `tap:bw0`")]
    NoDevice,
    /// No address was given.
    #[error("no address was given: every instance needs one, such as `10.77.0.2/24`")]
    NoAddress,
    /// The number of cores is zero or more than the device has queues.
    #[error(
        "{wanted} cores were asked for, but the device has {queues} queues, and each core needs one"
    )]
    Cores {
        /// Cores asked for.
        wanted: u16,
        /// Queues that there are.
        queues: u16,
    },
    /// The address cannot be a host's on a network.
    #[error("{0} is no address of a host on a network: give one such as `10.77.0.2/24`")]
    Address(Cidr),
    /// The gateway is on none of the networks of the addresses given.
    #[error("the gateway {0} is on none of the networks of the addresses given")]
    Gateway(IpAddr),
    /// The device could not be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The capture file could not be made.
    #[error("cannot write the capture file {path}: {source}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The engines could not be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Puts an instance together; see [`Barewire::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    device: Option<DeviceSpec>,
    cores: u16,
    capture: Option<PathBuf>,
    faults: Option<FaultConfig>,
    config: EngineConfig,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            device: None,
            cores: 1,
            capture: None,
            faults: None,
            config: EngineConfig::default(),
        }
    }

    /// The device to run on. A card's settings are part of its name
    /// (`"pci:0000:01:00.0,vlan=5".parse()`), or fields of [`PciSpec`](crate::PciSpec).
    pub fn device(mut self, device: DeviceSpec) -> Builder {
        self.device = Some(device);
        self
    }

    /// An address of this host, with its network's prefix. May be given several times.
    pub fn address(mut self, address: Cidr) -> Builder {
        self.config.addresses.push(address);
        self
    }

    /// The way to addresses outside of the networks.
    pub fn gateway(mut self, gateway: IpAddr) -> Builder {
        self.config.gateway = Some(gateway);
        self
    }

    /// Engines to run, each on a core and a queue of its own; one by default.
    pub fn cores(mut self, cores: u16) -> Builder {
        self.cores = cores;
        self
    }

    /// The processors to run on, in the order of the engines; engines beyond the list run anywhere.
    pub fn pin(mut self, processors: Vec<usize>) -> Builder {
        self.config.pin = processors;
        self
    }

    /// What an engine does while there is nothing to do.
    pub fn idle(mut self, idle: Idle) -> Builder {
        self.config.idle = idle;
        self
    }

    /// Largest IP packet; the device's by default.
    pub fn mtu(mut self, mtu: u16) -> Builder {
        self.config.mtu = Some(mtu);
        self
    }

    /// The packet memory of each engine.
    pub fn pool(mut self, pool: PoolConfig) -> Builder {
        self.config.pool = pool;
        self
    }

    /// Settings that TCP sockets start with.
    pub fn tcp(mut self, tcp: TcpConfig) -> Builder {
        self.config.tcp = tcp;
        self
    }

    /// Bounds of every table that the network or the application can fill.
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.config.limits = limits;
        self
    }

    /// How long handlers may go on after `stop`, and how long connections may take to end then.
    pub fn stop_times(mut self, drain: Duration, grace: Duration) -> Builder {
        (self.config.drain, self.config.grace) = (drain, grace);
        self
    }

    /// Seeds everything random, so that a run can be repeated; the operating system does otherwise.
    pub fn seed(mut self, seed: u128) -> Builder {
        self.config.seed = Some(seed);
        self
    }

    /// Writes every frame to a pcapng file.
    pub fn capture(mut self, path: impl AsRef<Path>) -> Builder {
        self.capture = Some(path.as_ref().to_owned());
        self
    }

    /// Makes the wire bad: frames are lost, repeated, reordered, corrupted or late, by a seed. The
    /// device's offloads are withdrawn, so that faults hit frames as they would be on a wire.
    pub fn faults(mut self, faults: FaultConfig) -> Builder {
        self.faults = Some(faults);
        self
    }

    /// Opens the device and starts the engines. The first instance of a process becomes its
    /// default.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(self) -> Result<Barewire, StartError> {
        let spec = self.device.clone().ok_or(StartError::NoDevice)?;
        self.check()?;
        let options = OpenOptions {
            queues: self.cores,
            mtu: self.config.mtu,
            kernel_address: self.kernel_address(&spec),
            ..OpenOptions::default()
        };
        let device = open_device(&spec, &options)?;
        self.start_on(device)
    }

    /// As [`Builder::start`], on a device that is open already.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_on(self, device: Arc<dyn Device>) -> Result<Barewire, StartError> {
        self.check()?;
        let queues = device.queues();
        if self.cores == 0 || self.cores > queues {
            return Err(StartError::Cores { wanted: self.cores, queues });
        }
        let device = self.wrap(device)?;
        let seeds = (0..self.cores)
            .map(|queue| device.queue(QueueId(queue)))
            .collect::<Result<Vec<_>, DeviceError>>()?;
        let steering = device.steering().map(Arc::new);
        let config = EngineConfig { steering, ..self.config };
        let engines = Engines::start(&config, device.mac(), seeds)?;
        Ok(Barewire::new(engines, device))
    }

    /// The device behind the middleware that was asked for. The capture is on the device's side of
    /// the faults: it shows what really went out, and what came before it was spoiled.
    fn wrap(&self, mut device: Arc<dyn Device>) -> Result<Arc<dyn Device>, StartError> {
        if let Some(path) = &self.capture {
            let file = CaptureFile::create(path, DEFAULT_SNAPLEN)
                .map_err(|source| StartError::Capture { path: path.clone(), source })?;
            device = Arc::new(CapturedDevice::new(device, file));
        }
        if let Some(faults) = self.faults {
            device = Arc::new(FaultyDevice::new(device, faults));
        }
        Ok(device)
    }

    fn check(&self) -> Result<(), StartError> {
        let addresses = &self.config.addresses;
        if addresses.is_empty() {
            return Err(StartError::NoAddress);
        }
        if let Some(&bad) = addresses.iter().find(|cidr| !is_host(cidr)) {
            return Err(StartError::Address(bad));
        }
        match self.config.gateway {
            Some(gateway) if !addresses.iter().any(|cidr| cidr.contains(gateway)) => {
                Err(StartError::Gateway(gateway))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the kernel's side of a tap is given: the network's first other address, unless it has
    /// addresses already, which are left alone.
    fn kernel_address(&self, spec: &DeviceSpec) -> Option<(Ipv4Addr, u8)> {
        let DeviceSpec::Tap(name) = spec else { return None };
        let taken = sys::interface_addresses(name).is_ok_and(|addresses| !addresses.is_empty());
        if taken {
            return None;
        }
        let cidr = self.config.addresses.iter().find(|cidr| cidr.addr().is_ipv4())?;
        match cidr.first_other_host()? {
            IpAddr::V4(addr) => Some((addr, cidr.prefix())),
            IpAddr::V6(_) => None,
        }
    }
}

/// True for addresses that others on the network can reach one host at.
fn is_host(cidr: &Cidr) -> bool {
    let addr = cidr.addr();
    let one = !(addr.is_loopback() || addr.is_unspecified() || addr.is_multicast());
    one && Some(addr) != cidr.broadcast() && addr != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        for bad in ["127.0.0.1/8", "0.0.0.0/0", "224.0.0.1/24", "10.77.0.255/24"] {
            let builder = Builder::new().address(bad.parse().unwrap());
            assert!(matches!(builder.check(), Err(StartError::Address(_))), "{bad}");
        }
        assert!(Builder::new().address("10.77.0.2/24".parse().unwrap()).check().is_ok());
        assert!(matches!(Builder::new().check(), Err(StartError::NoAddress)));
    }
}
