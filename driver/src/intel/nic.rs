//! The control plane that igb and e1000e share: what is told, what is set, who may start and stop.
//!
//! ```text
//!   Device ─▶ NicDevice<F> ─▶ Core<F> ◀─ each queue          (shared, behind one lock)
//!                               ├─ family: F    igb or e1000e: bring-up, queues, interrupts
//!                               ├─ running      which queues the device is serving
//!                               └─ drop         quiet: masked, disabled, no DMA
//! ```

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::filters::Filters;
use super::hw::{Hw, Reg};
use super::link;
use super::phy::PhySharing;
use super::queue::NicSeed;
use super::regs::{self, CTRL, MTA, RAH, RAL, STATISTICS, Statistic, VFTA, ctrl, rah};
use super::{FlowControl, MAX_STATIONS, Nic, NicConfig, PauseFrames, Support};
use crate::bus::BusError;
use crate::device::{
    Capabilities, Device, DeviceError, Features, LinkState, MacAddr, QueueId, QueueSeed,
};
use crate::intel::format::Format;
use crate::intel::tx::{TxLimits, max_segments};
use crate::rss::{self, Steering};
use crate::sys;

/// Bytes of the Ethernet header, of a VLAN tag and of the frame check sequence.
pub(crate) const ETHERNET_LEN: u32 = 14;
pub(crate) const VLAN_LEN: u32 = 4;
pub(crate) const FCS_LEN: u32 = 4;

/// Most payload of a frame that is cut up: an IP packet's length has 16 bits, and 240 bytes are for
/// its headers.
const TSO_MAX_BYTES: u32 = 65_535 - 240;

/// How long a vector that was fired may take to arrive.
const VECTOR_WAIT_NS: u64 = 1_000_000_000;

/// Where a queue's rings are for the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPlaces {
    pub(crate) rx: u64,
    pub(crate) rx_len: u16,
    pub(crate) tx: u64,
    pub(crate) tx_len: u16,
    /// Bytes of a receive buffer.
    pub(crate) buffer_len: u32,
}

/// How a device stands that may lose its queues without having been asked to: a virtual function,
/// when its physical one is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Queues can be used.
    Working,
    /// Queues are off, and will have to be started anew.
    Lost,
}

/// Says that a device does no DMA for a queue. Made where a queue is stopped, and nowhere else.
#[derive(Debug)]
pub(crate) struct Quiet(());

/// What differs between the families. All of it is called under the core's lock, but for `arm`,
/// `disarm` and the two tails, which touch registers of one queue alone.
pub(crate) trait Family: std::fmt::Debug + Send + Sync + 'static {
    type Format: Format;

    fn hw(&self) -> &Hw;
    /// Programs a queue's rings and turns the queue on. Nothing is received before the tail moves.
    fn start_queue(&self, queue: u16, places: &RingPlaces) -> Result<(), BusError>;
    /// Lets frames in: called when the first queue's rings are ready.
    fn start_receiving(&self);
    /// Turns a queue off; when it returns without an error the device does no DMA for it.
    fn stop_queue(&self, queue: u16, last: bool) -> Result<(), BusError>;
    /// Deals flows out to the queues that run.
    fn write_table(&self, table: &[u8; regs::RETA_LEN]);
    /// Masks everything and stops all DMA.
    fn quiesce(&self) -> Result<(), BusError>;
    /// Unmasks a queue's interrupt; what happened before is visible in memory afterwards.
    fn arm(&self, queue: u16);
    fn disarm(&self, queue: u16);
    /// Acknowledges the interrupt that tells of the link.
    fn acknowledge_link(&self);
    /// Looks whether the device has lost its queues, and goes on with getting them back; never waits.
    /// Between a loss and the next `Working` it says `Lost` at least once.
    ///
    /// # Errors
    /// [`BusError::Unsupported`] if they cannot be had back.
    fn stand(&self) -> Result<Standing, BusError> {
        Ok(Standing::Working)
    }
    /// Prepares the device for firing vectors by hand; `end_vector_test` takes that back.
    fn begin_vector_test(&self, vectors: u16);
    /// Fires one vector.
    fn fire_vector(&self, vector: u16);
    fn end_vector_test(&self);
    /// Least microseconds between two interrupts of a queue.
    fn set_moderation(&self, queue: u16, interval_us: u16);
    fn context_index(&self, queue: u16) -> u8;
    /// False if queues share one context, which each changes for all.
    fn context_lasts(&self) -> bool;
    /// Offers that this device cannot make.
    fn missing(&self) -> Features;
    /// How the PHY is taken, which a virtual function has none of.
    fn phy_sharing(&self) -> PhySharing;
    /// Bytes of the packet buffer's receive part.
    fn receive_buffer(&self) -> u32;
    /// False for a virtual function, whose filters belong to the physical one.
    fn owns_filters(&self) -> bool;
    fn statistics(&self) -> &'static [Statistic] {
        STATISTICS
    }
}

#[derive(Debug)]
struct State {
    taken: Vec<bool>,
    /// Queues that the device serves.
    running: Vec<bool>,
    table: [u8; regs::RETA_LEN],
    filters: Filters,
    /// Totals by statistic: the registers forget when they are read.
    totals: Vec<u64>,
    /// The link as it was seen last, and as it was told last.
    link: Option<LinkState>,
    told_link: Option<LinkState>,
    flow_control: FlowControl,
}

/// What queues and the device share.
#[derive(Debug)]
pub(crate) struct Core<F: Family> {
    pub(crate) family: F,
    pub(crate) config: NicConfig,
    support: Support,
    mac: MacAddr,
    /// One eventfd a vector: the queues', then the link's.
    vectors: Vec<RawFd>,
    /// A queue could not be stopped, so the device was cut off from memory.
    broken: AtomicBool,
    /// How often the device has lost its queues, doubled, and one more while it has not got them
    /// back: a queue looks at both without a lock.
    losses: AtomicU32,
    state: Mutex<State>,
}

impl<F: Family> Core<F> {
    pub(crate) fn new(
        family: F,
        config: NicConfig,
        support: Support,
        mac: MacAddr,
        vectors: Vec<RawFd>,
    ) -> Arc<Core<F>> {
        let queues = usize::from(config.queues);
        let state = State {
            taken: vec![false; queues],
            running: vec![false; queues],
            table: config.rss_table,
            filters: Filters { promiscuous: config.promiscuous, ..Filters::default() },
            totals: vec![0; family.statistics().len()],
            link: None,
            told_link: None,
            flow_control: config.flow_control,
        };
        let state = Mutex::new(state);
        let (broken, losses) = (false.into(), 0.into());
        let core = Core { family, config, support, mac, vectors, broken, losses, state };
        if core.family.owns_filters() {
            core.lock().filters.apply(core.hw());
        }
        Arc::new(core)
    }

    fn hw(&self) -> &Hw {
        self.family.hw()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn vector(&self, queue: u16) -> Option<RawFd> {
        self.vectors.get(usize::from(queue)).copied()
    }

    /// Becomes readable when the link may have changed.
    pub(crate) fn link_vector(&self) -> Option<RawFd> {
        self.vector(self.config.queues)
    }

    /// Takes the interrupt that tells of the link, if there is one.
    pub(crate) fn take_link_event(&self) {
        if self.link_vector().is_some_and(sys::drain_eventfd) {
            self.family.acknowledge_link();
        }
    }

    /// A look at the link, for a queue's engine: without waiting for whoever has the device now.
    pub(crate) fn watch(&self) {
        match self.state.try_lock() {
            Ok(mut state) => self.watch_link(&mut state),
            Err(TryLockError::Poisoned(state)) => self.watch_link(&mut state.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Looks at the device and the link, and does what a change asks for.
    fn watch_link(&self, state: &mut State) {
        match self.family.stand() {
            Ok(Standing::Working) => self.losses.fetch_add(self.losses() & 1, Ordering::Relaxed),
            Ok(Standing::Lost) => self.losses.fetch_add(!self.losses() & 1, Ordering::Relaxed),
            Err(_) => {
                self.cut_off();
                self.losses()
            }
        };
        let now = self.link();
        if state.link.replace(now) != Some(now) && now.up && self.family.owns_filters() {
            // Without the PHY's answer the link works all the same, without pause frames.
            let sharing = self.family.phy_sharing();
            let _ = link::resolve_flow_control(self.hw(), sharing, state.flow_control);
        }
    }

    /// The link, which a device without queues does not have.
    fn link(&self) -> LinkState {
        match self.losses() & 1 {
            0 => link::state(self.hw()),
            _ => LinkState { up: false, speed_mbps: None },
        }
    }

    /// Odd while the device has lost its queues; see the field.
    pub(crate) fn losses(&self) -> u32 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut features = Features::TX_CHECKSUM
            | Features::TSO4
            | Features::TSO6
            | Features::RX_CHECKSUM
            | Features::SCATTER_GATHER
            | Features::RSS_HASH;
        if !self.config.offloads {
            features = Features::SCATTER_GATHER | Features::RSS_HASH;
        }
        features.set(Features::VLAN, self.config.vlan);
        Capabilities {
            features: features.difference(self.family.missing()),
            mtu: self.config.mtu,
            tso_max_bytes: if self.config.offloads { TSO_MAX_BYTES } else { 0 },
            tx_max_segs: max_segments(self.config.tx_ring),
        }
    }

    pub(crate) fn tx_limits(&self, queue: u16) -> TxLimits {
        TxLimits {
            max_frame: u32::from(self.config.mtu) + ETHERNET_LEN + VLAN_LEN,
            max_tso: TSO_MAX_BYTES + 240,
            context_index: self.family.context_index(queue),
            context_lasts: self.family.context_lasts(),
        }
    }

    /// Turns a queue on and lets flows to it.
    pub(crate) fn start_queue(&self, queue: u16, places: &RingPlaces) -> Result<(), BusError> {
        let mut state = self.lock();
        if self.is_broken() {
            return Err(BusError::Unsupported(
                "the device was cut off and has to be opened anew".into(),
            ));
        }
        let first = !state.running.contains(&true);
        state.running[usize::from(queue)] = true;
        if let Err(error) = self.family.start_queue(queue, places) {
            // One of its rings may be on already.
            drop(state);
            self.stop_queue(queue);
            return Err(error);
        }
        self.family.write_table(&effective_table(&state));
        if first {
            self.family.start_receiving();
        }
        Ok(())
    }

    /// Turns a queue off. A device that does not stop is cut off from all memory. `None` for one
    /// that the kernel would not cut off either: then it may still do DMA for the queue.
    pub(crate) fn stop_queue(&self, queue: u16) -> Option<Quiet> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.running[usize::from(queue)]) {
            return Some(Quiet(()));
        }
        let last = !state.running.contains(&true);
        if !last {
            self.family.write_table(&effective_table(&state));
        }
        match self.family.stop_queue(queue, last) {
            // A device that is gone does nothing any more.
            Ok(()) | Err(BusError::Gone) => Some(Quiet(())),
            Err(_) => self.cut_off(),
        }
    }

    /// Keeps the device from all memory, for good, if the kernel lets us.
    fn cut_off(&self) -> Option<Quiet> {
        self.broken.store(true, Ordering::Relaxed);
        let function = self.hw().function();
        // The last resort takes the configuration with it, and so DMA.
        let cut = function.set_bus_master(false).or_else(|_| function.reset());
        (cut.is_ok() || function.is_gone()).then_some(Quiet(()))
    }

    /// Makes sure that a queue is off which the device has lost; it stays one that is to run. `None`
    /// as in [`Core::stop_queue`].
    pub(crate) fn halt_queue(&self, queue: u16) -> Option<Quiet> {
        let _state = self.lock();
        match self.family.stop_queue(queue, false) {
            Ok(()) | Err(BusError::Gone) => Some(Quiet(())),
            Err(_) => self.cut_off(),
        }
    }

    /// Turns a queue on again that was halted.
    pub(crate) fn resume_queue(&self, queue: u16, places: &RingPlaces) -> Result<(), BusError> {
        let state = self.lock();
        self.family.start_queue(queue, places)?;
        self.family.write_table(&effective_table(&state));
        self.family.start_receiving();
        Ok(())
    }

    /// Fires every vector once and waits for its eventfd.
    fn test_vectors(&self) -> Result<Vec<bool>, BusError> {
        let state = self.lock();
        if state.running.contains(&true) {
            let why = "vectors can be tested only while no queue is running";
            return Err(BusError::Unsupported(why.into()));
        }
        let function = self.hw().function();
        let count = function.vectors();
        let vectors = function.enable_vectors(count)?;
        self.family.begin_vector_test(count);
        let fire = |(vector, fd): (u16, RawFd)| {
            sys::drain_eventfd(fd);
            self.family.fire_vector(vector);
            let ready = sys::poll_readable(&[fd], Some(VECTOR_WAIT_NS));
            ready.is_ok_and(|ready| ready > 0) && sys::drain_eventfd(fd)
        };
        let fired = (0..count).zip(vectors).map(fire).collect();
        self.family.end_vector_test();
        Ok(fired)
    }

    fn change_filters(&self, change: impl FnOnce(&mut Filters)) -> Result<(), DeviceError> {
        if !self.family.owns_filters() {
            return Err(DeviceError::Config(
                "the filters of a virtual function belong to its physical function".into(),
            ));
        }
        let mut state = self.lock();
        let mut wanted = state.filters.clone();
        change(&mut wanted);
        if wanted.stations.len() > MAX_STATIONS {
            let text = format!("the device holds {MAX_STATIONS} more addresses");
            return Err(DeviceError::Config(text));
        }
        if wanted.vlans.iter().any(|vlan| *vlan > 4095) {
            return Err(DeviceError::Config("a VLAN has a number below 4096".into()));
        }
        wanted.apply(self.hw());
        state.filters = wanted;
        Ok(())
    }
}

impl<F: Family> Drop for Core<F> {
    fn drop(&mut self) {
        // Every queue holds the core, so all of them have been stopped. What fails here fails
        // because the device is gone or does not answer, and bus mastering ends in any case.
        let _ = self.family.quiesce();
        let _ = self.hw().function().set_bus_master(false);
    }
}

/// The redirection table with entries of queues that do not run led to one that does: a frame for a
/// queue that is off would be lost, or stand in the way of others.
fn effective_table(state: &State) -> [u8; regs::RETA_LEN] {
    let fallback = state.running.iter().position(|&runs| runs).unwrap_or(0) as u8;
    state.table.map(|queue| {
        let runs = state.running.get(usize::from(queue)).copied().unwrap_or(false);
        if runs { queue } else { fallback }
    })
}

/// RAL and RAH for an address (82576 §8.10.18).
pub(crate) fn station_words(mac: MacAddr) -> (u32, u32) {
    let [a, b, c, d, e, f] = mac.0;
    let high = u32::from(u16::from_le_bytes([e, f])) | rah::AV;
    (u32::from_le_bytes([a, b, c, d]), high)
}

/// The address to be: the one that is wanted, else that which the device loaded from its EEPROM.
///
/// # Errors
/// [`BusError::Unsupported`] if it has none.
pub(crate) fn station(hw: &Hw, wanted: Option<MacAddr>) -> Result<MacAddr, BusError> {
    if let Some(mac) = wanted {
        return Ok(mac);
    }
    let (low, high) = (hw.read(RAL), hw.read(RAH));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let mac = MacAddr([a, b, c, d, e, f]);
    if mac == MacAddr::default() || mac.is_group() {
        return Err(BusError::Unsupported(format!(
            "{} has no address: {} reads {low:#010x} and {} {high:#010x}; give it one with `mac=`",
            hw.function().address(),
            RAL.name,
            RAH.name,
        )));
    }
    Ok(mac)
}

/// A NIC of either family, opened and reset, without queues running.
#[derive(Debug)]
pub(crate) struct NicDevice<F: Family>(pub(crate) Arc<Core<F>>);

impl<F: Family> Device for NicDevice<F> {
    fn name(&self) -> String {
        format!("pci:{}", self.0.hw().function().address())
    }

    fn mac(&self) -> MacAddr {
        self.0.mac
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn queues(&self) -> u16 {
        self.0.config.queues
    }

    fn link(&self) -> LinkState {
        self.0.link()
    }

    fn poll_link(&self) -> Option<LinkState> {
        self.0.take_link_event();
        let mut state = self.0.lock();
        self.0.watch_link(&mut state);
        let now = state.link;
        if std::mem::replace(&mut state.told_link, now) == now { None } else { now }
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let core = &self.0;
        let registers = core.family.statistics();
        let mut state = core.lock();
        for (total, statistic) in state.totals.iter_mut().zip(registers) {
            let low = core.hw().read(Reg::new(statistic.name, statistic.low));
            let high = match statistic.pair {
                true => core.hw().read(Reg::new(statistic.name, statistic.low + 4)),
                false => 0,
            };
            // A device that is gone reads all ones, which nothing counted.
            if low == u32::MAX && core.hw().is_gone() {
                break;
            }
            let value = u64::from(high) << 32 | u64::from(low);
            match statistic.running {
                true => *total += u64::from(low.wrapping_sub(*total as u32)),
                false => *total = total.saturating_add(value),
            }
        }
        registers.iter().map(|statistic| statistic.name).zip(state.totals.iter().copied()).collect()
    }

    fn flow_queue(&self, remote: SocketAddr, local: SocketAddr) -> Option<QueueId> {
        let state = self.0.lock();
        if self.0.config.queues == 1 {
            return Some(QueueId(0));
        }
        if self.0.family.missing().contains(Features::RSS_HASH) {
            return None;
        }
        let (mut input, mut len) = ([0; 36], 0);
        let mut put = |bytes: &[u8]| {
            input[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        };
        match (remote.ip(), local.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(&from.octets());
                put(&to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(&from.octets());
                put(&to.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        put(&remote.port().to_be_bytes());
        put(&local.port().to_be_bytes());
        let hash = rss::toeplitz(&self.0.config.rss_key, &input[..len]);
        Some(QueueId(u16::from(state.table[hash as usize % regs::RETA_LEN])))
    }

    fn steering(&self) -> Option<Steering> {
        let dealt = self.0.config.queues > 1;
        let hashes = !self.0.family.missing().contains(Features::RSS_HASH);
        let table = self.0.lock().table;
        (dealt && hashes).then(|| Steering::new(&self.0.config.rss_key, table))
    }

    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        let mut state = self.0.lock();
        let taken = state.taken.get_mut(usize::from(id.0));
        let taken = taken.ok_or(DeviceError::NoQueue(id.0, self.0.config.queues))?;
        if std::mem::replace(taken, true) {
            return Err(DeviceError::QueueTaken(id.0));
        }
        Ok(Box::new(NicSeed { core: Arc::clone(&self.0), queue: id.0 }))
    }
}

impl<F: Family> Nic for NicDevice<F> {
    fn support(&self) -> Support {
        self.0.support
    }

    fn link_event_fd(&self) -> Option<RawFd> {
        self.0.link_vector()
    }

    fn test_vectors(&self) -> Result<Vec<bool>, DeviceError> {
        self.0.test_vectors().map_err(super::device_error)
    }

    fn set_promiscuous(&self, on: bool) -> Result<(), DeviceError> {
        self.0.change_filters(|filters| filters.promiscuous = on)
    }

    fn set_all_multicast(&self, on: bool) -> Result<(), DeviceError> {
        self.0.change_filters(|filters| filters.all_multicast = on)
    }

    fn set_multicast(&self, addresses: &[MacAddr]) -> Result<(), DeviceError> {
        self.0.change_filters(|filters| filters.multicast = addresses.to_vec())
    }

    fn set_stations(&self, addresses: &[MacAddr]) -> Result<(), DeviceError> {
        self.0.change_filters(|filters| filters.stations = addresses.to_vec())
    }

    fn set_vlan_filter(&self, vlans: &[u16]) -> Result<(), DeviceError> {
        self.0.change_filters(|filters| filters.vlans = vlans.to_vec())
    }

    fn set_rss_table(&self, table: &[u8; regs::RETA_LEN]) -> Result<(), DeviceError> {
        self.0.config.check_table(table)?;
        let mut state = self.0.lock();
        state.table = *table;
        self.0.family.write_table(&effective_table(&state));
        Ok(())
    }

    fn set_moderation(&self, interval_us: u16) {
        let _state = self.0.lock();
        for queue in 0..self.0.config.queues {
            self.0.family.set_moderation(queue, interval_us);
        }
    }

    fn pause_frames(&self) -> PauseFrames {
        link::pause_frames(self.0.hw())
    }

    fn set_flow_control(&self, flow: FlowControl) -> Result<(), DeviceError> {
        if !self.0.family.owns_filters() {
            return Err(DeviceError::Config("a virtual function has no link of its own".into()));
        }
        let mut state = self.0.lock();
        state.flow_control = flow;
        let (buffer, frame) = (self.0.family.receive_buffer(), self.0.config.frame_len());
        link::configure_flow_control(self.0.hw(), flow, buffer, frame);
        let sharing = self.0.family.phy_sharing();
        link::start_negotiation(self.0.hw(), sharing, flow).map_err(super::device_error)
    }
}

/// Empties every filter table and puts the device's own address first.
pub(crate) fn clear_filters(hw: &Hw, mac: MacAddr, vlan: bool) {
    let (low, high) = station_words(mac);
    hw.write(RAL, low);
    hw.write(RAH, high);
    for i in 0..regs::TABLE_WORDS {
        hw.write(MTA.nth(i, 4), 0);
        hw.write(VFTA.nth(i, 4), 0);
    }
    hw.modify(CTRL, ctrl::VME, if vlan { ctrl::VME } else { 0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn station_addresses_are_little_endian() {
        let words = station_words(MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(words, (0x1200_5452, 0x8000_5634));
    }
}
