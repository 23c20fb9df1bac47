//! A tap interface of the kernel as a device: the machine's own stack at the other end.
//!
//! ```text
//!   our stack ─▶ tx_burst ─ writev ─▶ ┌──────────────┐ ─▶ kernel's stack (10.77.0.1)
//!   10.77.0.2                         │ tap interface│
//!             ◀─ rx_burst ◀─ readv ── └──────────────┘ ◀─ routes, sockets, bridges
//! ```
//!
//! A frame costs one system call, so the offloads decide the speed: behind a `virtio_net_hdr`
//! (`IFF_VNET_HDR`) one call moves a TCP segment of up to 64 KiB, and nobody computes a checksum
//! that never crosses a wire. Received bytes land in the pool's slots, sent ones leave from them:
//! the only copy is the kernel's.
//!
//! * **Life of the interface.** One that [`TapDevice::open`] creates vanishes when its last queue is
//!   stopped. One made before (`ip tuntap add … user …`) stays, and its owner needs no privilege.
//! * **Several queues.** The kernel picks a queue for a flow by where the flow's last frame came
//!   from, else by its own hash. All queues are attached from the start: open and start them all.
//!   What the kernel may leave undone is a property of the interface, so all queues must be started
//!   with the same features.
//! * **No free slots.** The queue then does not read: frames wait in the kernel's own queue (1,000
//!   frames by default), which drops what does not fit and counts it on the kernel's side. Each
//!   attempt counts in `rx_no_buffer`. `arm` then gives a time instead of the descriptor, which
//!   would be readable all along.
//! * **No room to send.** `tx_burst` leaves the frames in the burst; the kernel gives no descriptor
//!   to wait on, so try again in the next turn. A tap's own send buffer is unlimited by default.

mod queue;
mod refusal;
mod vnet;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{
    Capabilities, Device, DeviceError, Features, LinkState, MacAddr, QueueId, QueueSeed,
};
use crate::spec;
use crate::sys::{self, InterfaceControl, TunFlags, errno};
use queue::TapSeed;
use refusal::{Step, refusal};

/// Most queues of one tap interface (the kernel's `MAX_TAP_QUEUES`).
pub const MAX_QUEUES: u16 = 256;

/// What TSO frames may hold besides headers: the whole IP packet has at most 65,535 bytes, with 60
/// bytes of IP header and 60 of TCP header at most (RFC 791 §3.1, RFC 9293 §3.1).
const TSO_MAX_BYTES: u32 = 65_535 - 60 - 60;

/// How long `open` waits for the kernel to use the interface.
const LINK_WAIT: Duration = Duration::from_secs(2);
const LINK_WAIT_STEP: Duration = Duration::from_millis(5);

/// How to open a tap interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Queue pairs, one for each engine.
    pub queues: u16,
    /// Checksum and segmentation offload both ways, where the stack asks for them at `start`.
    pub offloads: bool,
    /// The interface's MTU; `None` leaves it as it is (1,500 on a new one).
    pub mtu: Option<u16>,
    /// Address and prefix length of the kernel's side. An interface without an address is given
    /// it; one that exists with other addresses only is refused.
    pub kernel_address: Option<(Ipv4Addr, u8)>,
    /// Ethernet address of our side; `None` derives one from the name.
    pub mac: Option<MacAddr>,
}

impl TapConfig {
    /// One queue, offloads on, everything else as the interface has it.
    pub fn new(name: &str) -> TapConfig {
        TapConfig {
            name: name.to_owned(),
            queues: 1,
            offloads: true,
            mtu: None,
            kernel_address: None,
            mac: None,
        }
    }
}

/// What all queues of one interface share.
struct Shared {
    name: String,
    offloads: bool,
    /// Features granted to the first queue that was started.
    granted: Mutex<Option<Features>>,
    /// Holds the interface's name against other processes while this is alive.
    _claim: UnixDatagram,
}

impl Shared {
    /// Offloads are the interface's, not the queue's: all queues have to agree.
    fn agree(&self, granted: Features) -> Result<(), DeviceError> {
        let mut first = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        match *first {
            Some(other) if other != granted => Err(DeviceError::Config(format!(
                "all queues of {} have to be started with the same features: {other:?}, not {granted:?}",
                self.name
            ))),
            _ => {
                *first = Some(granted);
                Ok(())
            }
        }
    }
}

/// What is granted of `wanted`: an offload that stands on another needs that one, too.
fn grant(wanted: Features, offered: Features) -> Features {
    let mut granted = wanted & offered;
    if !granted.contains(Features::TX_CHECKSUM) {
        granted.remove(Features::TSO4 | Features::TSO6);
    }
    if !granted.contains(Features::RX_CHECKSUM) {
        // The kernel has no large receive without leaving checksums out (TUNSETOFFLOAD).
        granted.remove(Features::LARGE_RECEIVE);
    }
    granted
}

/// A tap interface.
pub struct TapDevice {
    shared: Arc<Shared>,
    mac: MacAddr,
    mtu: u16,
    created: bool,
    control: InterfaceControl,
    /// Descriptors of the queues that have not been taken.
    files: Mutex<Vec<Option<std::fs::File>>>,
    queues: u16,
}

impl TapDevice {
    /// Attaches to the interface, creating it if there is none, and configures it where it is not
    /// as wanted. Looks in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`DeviceError::Os`] with the commands to run where a right is missing or the interface does
    /// not fit; [`DeviceError::Config`] for a configuration that no interface can have.
    pub fn open(config: TapConfig) -> Result<TapDevice, DeviceError> {
        validate(&config)?;
        let control = InterfaceControl::new().map_err(|e| refusal(Step::Open, e, &config))?;
        let claim = claim(&config)?;
        let existed = control
            .exists(&config.name)
            .map_err(|e| refusal(Step::Configure("asking for the existence"), e, &config))?;
        let files = attach_all(&config, existed)?;
        configure(&config, &control, existed)?;
        wait_for_link(&config.name, &control);
        let ask = |e| refusal(Step::Configure("asking for the settings"), e, &config);
        let mtu = control.mtu(&config.name).map_err(ask)?;
        let kernel_mac = MacAddr(control.hardware_address(&config.name).map_err(ask)?);
        let queues = config.queues;
        Ok(TapDevice {
            mac: config.mac.unwrap_or_else(|| our_mac(&config.name, kernel_mac)),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            created: !existed,
            control,
            files: Mutex::new(files),
            queues,
            shared: Arc::new(Shared {
                name: config.name,
                offloads: config.offloads,
                granted: Mutex::new(None),
                _claim: claim,
            }),
        })
    }

    /// True if there was no such interface before: it vanishes with its last queue.
    pub fn created(&self) -> bool {
        self.created
    }
}

fn validate(config: &TapConfig) -> Result<(), DeviceError> {
    spec::check_interface_name(&config.name)?;
    if config.queues == 0 || config.queues > MAX_QUEUES {
        return Err(DeviceError::Config(format!(
            "a tap interface has 1 to {MAX_QUEUES} queues, not {}",
            config.queues
        )));
    }
    match config.kernel_address {
        Some((_, prefix_len)) if prefix_len > 32 => {
            Err(DeviceError::Config(format!("an IPv4 prefix has 0 to 32 bits, not {prefix_len}")))
        }
        _ => Ok(()),
    }
}

/// Claims the interface's name among processes of this project. The kernel lets any number of
/// processes of one owner attach queues to a multi-queue interface and would deal the flows out
/// between them; an abstract socket address is freed by the kernel when its holder dies, needs no
/// right, and belongs to the same network namespace as the interface.
fn claim(config: &TapConfig) -> Result<UnixDatagram, DeviceError> {
    let address = SocketAddr::from_abstract_name(format!("barewire/tap/{}", config.name));
    match address.and_then(|address| UnixDatagram::bind_addr(&address)) {
        Ok(claim) => Ok(claim),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(refusal::held_elsewhere(config))
        }
        Err(error) => Err(refusal(Step::Configure("claiming the name"), error, config)),
    }
}

fn attach_all(
    config: &TapConfig,
    existed: bool,
) -> Result<Vec<Option<std::fs::File>>, DeviceError> {
    let mut flags = TunFlags::empty();
    flags.set(TunFlags::VNET_HDR, config.offloads);
    flags.set(TunFlags::MULTI_QUEUE, config.queues > 1);
    let mut files = Vec::new();
    for _ in 0..config.queues {
        let file = sys::open_tun().map_err(|e| refusal(Step::Open, e, config))?;
        let mut attached = sys::tun_attach(&file, &config.name, flags);
        let wrong_kind = matches!(&attached, Err(e) if e.raw_os_error() == Some(errno::EINVAL));
        if wrong_kind && existed && config.queues == 1 {
            // An interface made for several queues serves one, too.
            attached = sys::tun_attach(&file, &config.name, flags | TunFlags::MULTI_QUEUE);
        }
        attached.map_err(|e| refusal(Step::Attach { existed }, e, config))?;
        if config.offloads {
            sys::tun_set_header_len(&file, vnet::HEADER_LEN)
                .map_err(|e| refusal(Step::Configure("setting the header length"), e, config))?;
            // Until a queue is started, nothing is known of what its stack can take.
            sys::tun_set_offload(&file, TunFlags::empty())
                .map_err(|e| refusal(Step::Configure("setting the offloads"), e, config))?;
        }
        files.push(Some(file));
    }
    Ok(files)
}

/// Sets what is not as wanted: an owner without privilege attaches to an interface that is.
fn configure(
    config: &TapConfig,
    control: &InterfaceControl,
    existed: bool,
) -> Result<(), DeviceError> {
    let name = &config.name;
    let step = |what| move |e| refusal(Step::Configure(what), e, config);
    if let Some(mtu) = config.mtu
        && control.mtu(name).map_err(step("asking for the MTU"))? != u32::from(mtu)
    {
        control.set_mtu(name, u32::from(mtu)).map_err(step("setting the MTU"))?;
    }
    if let Some((address, prefix_len)) = config.kernel_address {
        let present = sys::interface_addresses(name).map_err(step("asking for the addresses"))?;
        if existed && !present.is_empty() {
            // Whoever gave it these addresses needs them: replacing them is not for us.
            if !present.contains(&(address, prefix_len)) {
                return Err(refusal::other_address(config));
            }
        } else {
            control.set_address(name, address, prefix_len).map_err(step("setting the address"))?;
        }
    }
    if !control.is_up(name).map_err(step("asking for the state"))? {
        control.set_up(name, true).map_err(step("bringing up the link"))?;
    }
    Ok(())
}

/// Waits until the kernel sends through the interface. One that was up without anybody attached has
/// just got its carrier, which the kernel acts on a little later (up to a second, by its rate limit
/// for such events), and until then it silently drops what it should send, ARP answers included. An
/// interface that does not get ready in time is used as it is: its link state tells.
fn wait_for_link(name: &str, control: &InterfaceControl) {
    let ready = || control.is_running(name).unwrap_or(true);
    if ready() {
        return;
    }
    let deadline = Instant::now() + LINK_WAIT;
    while !ready() && Instant::now() < deadline {
        std::thread::sleep(LINK_WAIT_STEP);
    }
    // The flag shows a moment before the interface's queue is attached.
    std::thread::sleep(LINK_WAIT_STEP);
}

/// Our side's address: stable for a name, and never the kernel's own.
fn our_mac(name: &str, kernel_mac: MacAddr) -> MacAddr {
    let mac = MacAddr::from_name(name);
    if mac == kernel_mac { MacAddr::from_name(&format!("{name}/ours")) } else { mac }
}

impl Device for TapDevice {
    fn name(&self) -> String {
        format!("tap:{}", self.shared.name)
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn capabilities(&self) -> Capabilities {
        let mut features = Features::SCATTER_GATHER;
        if self.shared.offloads {
            features |= Features::TX_CHECKSUM
                | Features::TSO4
                | Features::TSO6
                | Features::RX_CHECKSUM
                | Features::LARGE_RECEIVE;
        }
        Capabilities {
            features,
            mtu: self.mtu,
            tso_max_bytes: if self.shared.offloads { TSO_MAX_BYTES } else { 0 },
            tx_max_segs: sys::MAX_IOVECS as u16 - 1,
        }
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn link(&self) -> LinkState {
        LinkState {
            up: self.control.is_running(&self.shared.name).unwrap_or(false),
            speed_mbps: None,
        }
    }

    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let slot =
            files.get_mut(usize::from(id.0)).ok_or(DeviceError::NoQueue(id.0, self.queues))?;
        let file = slot.take().ok_or(DeviceError::QueueTaken(id.0))?;
        let (shared, capabilities) = (Arc::clone(&self.shared), self.capabilities());
        Ok(Box::new(TapSeed { file, shared, capabilities }))
    }
}

impl fmt::Debug for TapDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapDevice")
            .field("name", &self.shared.name)
            .field("mac", &self.mac)
            .field("queues", &self.queues)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_address_is_stable_and_not_the_kernels() {
        let mac = our_mac("bw0", MacAddr([6; 6]));
        assert_eq!(mac, our_mac("bw0", MacAddr([7; 6])));
        assert_ne!(mac, our_mac("bw1", MacAddr([6; 6])));
        assert_ne!(mac, our_mac("bw0", mac));
        assert!(!mac.is_group() && mac.0[0] & 2 != 0);
    }

    #[test]
    fn offloads_that_stand_on_others_fall_with_them() {
        let all = Features::all();
        assert_eq!(grant(all, all), all);
        let granted = grant(all.difference(Features::TX_CHECKSUM), all);
        assert!(!granted.intersects(Features::TSO4 | Features::TSO6));
        let granted = grant(all.difference(Features::RX_CHECKSUM), all);
        assert!(!granted.contains(Features::LARGE_RECEIVE));
    }

    #[test]
    fn impossible_configurations_are_refused_before_the_kernel_is_asked() {
        let refused = |change: fn(&mut TapConfig)| {
            let mut config = TapConfig::new("bw0");
            change(&mut config);
            TapDevice::open(config).is_err_and(|e| !matches!(e, DeviceError::Os { .. }))
        };
        assert!(refused(|c| c.queues = 0));
        assert!(refused(|c| c.queues = MAX_QUEUES + 1));
        assert!(refused(|c| c.kernel_address = Some((Ipv4Addr::LOCALHOST, 33))));
        assert!(refused(|c| c.name = "a name".into()));
    }
}
