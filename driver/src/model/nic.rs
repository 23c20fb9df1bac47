//! A NIC by its data sheet: registers with side effects, links, and faults on demand.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::context::Context;
use super::mailbox::Mail;
use super::memory::Memory;
use super::phy::Phy;
use super::registers::{self as reg, File, Kind, Ring, ext, first, queue, vf};
use super::transmit::Gathering;
use crate::bus::{BusError, DmaMapping, Function, Registers};
use crate::device::MacAddr;
use crate::mem::Region;
use crate::sys::EventFd;

/// Most entries of the record of register accesses, and of violations.
const RECORD_LEN: usize = 8192;

/// Most frames kept for a test to read.
const SENT_LEN: usize = 4096;

/// Times that a frame may be handed on between two joined models within one register write: they
/// answer nothing by themselves, so one is all that happens.
const HOPS: usize = 4096;

/// One access of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A register was read.
    Read(u32),
    /// A register was written.
    Write(u32, u32),
}

/// What a broken device does to a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxFault {
    /// Nothing.
    #[default]
    None,
    /// Reports a length of 0.
    NoLength,
    /// Reports this many bytes, whatever the buffer holds.
    Length(u16),
    /// Never sets EOP.
    NoEnd,
    /// Reports in the descriptor behind the one whose turn it is.
    WrongDescriptor,
    /// Reports in a queue that the frame is not for.
    WrongQueue,
    /// Sets RXE: the frame is damaged.
    Damaged,
}

/// How the device breaks its contract.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// CTRL.RST stays set.
    pub reset_never_ends: bool,
    /// STATUS goes on to show that the device is bus master.
    pub master_never_stops: bool,
    /// Queues do not turn on.
    pub queues_never_start: bool,
    /// Queues do not turn off, and go on receiving.
    pub queues_never_stop: bool,
    /// The kernel neither takes the bus from the device nor resets it.
    pub bus_is_stuck: bool,
    /// The PHY does not answer.
    pub phy_is_silent: bool,
    /// The firmware has the PHY, and does not let go of it.
    pub phy_is_held: bool,
    /// Every register reads all ones, and no interrupt comes.
    pub gone: bool,
    /// To received frames.
    pub rx: RxFault,
    /// As many reports of sent frames get lost.
    pub lost_reports: u32,
    /// Descriptors to send wait until [`NicModel::run_transmit`].
    pub hold_transmit: bool,
    /// Sent frames are finished without being looked at: for benchmarks.
    pub discard_sent: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) kind: Kind,
    pub(super) file: File,
    pub(super) faults: Faults,
    pub(super) memory: Memory,
    pub(super) mac: MacAddr,
    /// Of a virtual function.
    pub(super) mail: Mail,
    cable: bool,
    pub(super) phy: Phy,
    pub(super) bus_master: bool,
    pub(super) enabled_vectors: u16,
    /// By queue; an 82574 has one context for both.
    pub(super) contexts: [Context; reg::MOST_QUEUES as usize],
    /// By queue: the frame that is being gathered.
    pub(super) gathering: [Gathering; reg::MOST_QUEUES as usize],
    /// Frames on their way to the wire.
    pub(super) outgoing: VecDeque<Vec<u8>>,
    record: Vec<Access>,
    violations: Vec<String>,
    /// Accesses to memory, of both directions.
    pub(super) dma_accesses: u64,
    resets: u32,
}

struct Shared {
    kind: Kind,
    state: Mutex<State>,
    events: Vec<EventFd>,
    peer: Mutex<Weak<Shared>>,
    sent: Mutex<Vec<Vec<u8>>>,
}

/// A NIC in software. Cloning gives a second handle to the same device.
#[derive(Clone)]
pub struct NicModel(Arc<Shared>);

impl std::fmt::Debug for NicModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NicModel")
    }
}

/// Joins two models: what one sends the other receives.
pub fn wire(a: &NicModel, b: &NicModel) {
    for (from, to) in [(a, b), (b, a)] {
        *from.0.peer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&to.0);
    }
}

impl NicModel {
    /// A device of this kind with this address in its EEPROM and a cable in its socket.
    ///
    /// # Errors
    /// What the kernel answers when descriptors run out.
    pub fn new(kind: Kind, mac: MacAddr) -> std::io::Result<NicModel> {
        let mut state = State {
            kind,
            file: File::new(kind),
            faults: Faults::default(),
            memory: Memory::default(),
            mac,
            mail: Mail::default(),
            cable: true,
            phy: Phy::default(),
            bus_master: false,
            enabled_vectors: 0,
            contexts: Default::default(),
            gathering: Default::default(),
            outgoing: VecDeque::new(),
            record: Vec::new(),
            violations: Vec::new(),
            dma_accesses: 0,
            resets: 0,
        };
        state.power_on();
        let events = (0..kind.vectors()).map(|_| EventFd::new()).collect::<Result<_, _>>()?;
        Ok(NicModel(Arc::new(Shared {
            kind,
            state: Mutex::new(state),
            events,
            peer: Mutex::default(),
            sent: Mutex::default(),
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the device, or mends it.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// Plugs the cable in or out, and tells the driver.
    pub fn set_cable(&self, plugged: bool) {
        let vectors = {
            let mut state = self.state();
            state.cable = plugged;
            state.raise_link_change()
        };
        self.signal(vectors);
    }

    /// A frame arrives from the wire.
    pub fn receive(&self, frame: &[u8]) {
        let vectors = self.state().receive(frame);
        self.signal(vectors);
    }

    /// Reports frames of `len` bytes in a queue's next `count` descriptors without writing any
    /// packet: for benchmarks. Gives the number that there were descriptors for.
    pub fn complete_receive(&self, queue: u16, count: u32, len: u16) -> u32 {
        self.state().complete_receive(queue, count, len)
    }

    /// Sends what waits in all rings.
    pub fn run_transmit(&self) {
        let vectors = {
            let mut state = self.state();
            (0..state.kind.queues()).fold(0, |vectors, queue| vectors | state.transmit(queue))
        };
        self.deliver();
        self.signal(vectors);
    }

    /// Frames sent to nobody since the last call, in order.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.0.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the driver did that it must not do.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Register accesses since the last call, up to a limit.
    pub fn take_record(&self) -> Vec<Access> {
        std::mem::take(&mut self.state().record)
    }

    /// Regions that are mapped for the device.
    pub fn mapped_regions(&self) -> usize {
        self.state().memory.mapped()
    }

    /// Accesses to memory so far.
    pub fn dma_accesses(&self) -> u64 {
        self.state().dma_accesses
    }

    /// Resets so far.
    pub fn resets(&self) -> u32 {
        self.state().resets
    }

    /// Writes these words to a receive descriptor, whoever it belongs to.
    pub fn scribble_receive(&self, queue: u16, index: u32, words: [u64; 2]) {
        self.state().scribble(Ring::Rx(queue), index, words);
    }

    /// The same to a transmit descriptor.
    pub fn scribble_transmit(&self, queue: u16, index: u32, words: [u64; 2]) {
        self.state().scribble(Ring::Tx(queue), index, words);
    }

    /// Leaves the PHY's semaphores taken, as a driver does that is killed while it uses the PHY.
    pub fn strand_semaphores(&self) {
        self.state().strand_semaphores();
    }

    /// True if nobody has the PHY.
    pub fn semaphores_are_free(&self) -> bool {
        self.state().semaphores_are_free()
    }

    /// Changes what the physical function of a virtual one does.
    pub fn set_mail(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.state().mail);
    }

    /// The physical function begins its reset, which takes everything of the virtual one with it.
    pub fn begin_physical_reset(&self) {
        let mut state = self.state();
        state.power_on();
        state.mail.begin_reset();
    }

    /// The physical function is up again.
    pub fn end_physical_reset(&self) {
        self.state().mail.end_reset();
    }

    /// The physical function says something on its own account: with or without CTS.
    pub fn greet(&self, clear_to_send: bool) {
        let vectors = self.state().greet(clear_to_send);
        self.signal(vectors);
    }

    /// A physical function out of its mind: V2PMAILBOX and the first words of the buffer are these.
    pub fn scribble_mail(&self, register: u32, words: [u32; 3]) {
        self.state().scribble_mail(register, words);
    }

    /// The value of a register, without side effects.
    pub fn peek(&self, offset: u32) -> u32 {
        self.state().file.get(offset)
    }

    fn signal(&self, vectors: u32) {
        for (n, event) in self.0.events.iter().enumerate() {
            if vectors >> n & 1 == 1 {
                event.signal();
            }
        }
    }

    /// Carries frames to the other end of the wire. No lock is held while the peer works.
    fn deliver(&self) {
        for _ in 0..HOPS {
            let Some(frame) = self.state().outgoing.pop_front() else { return };
            let peer = self.0.peer.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            match peer {
                Some(peer) => NicModel(peer).receive(&frame),
                None => {
                    let mut sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
                    if sent.len() < SENT_LEN {
                        sent.push(frame);
                    }
                }
            }
        }
    }
}

impl Registers for NicModel {
    fn read(&self, offset: u32) -> u32 {
        let mut state = self.state();
        if state.faults.gone || offset >= reg::BAR_LEN || !offset.is_multiple_of(4) {
            return u32::MAX;
        }
        state.note(Access::Read(offset));
        if let Some(value) = state.read_semaphore(offset) {
            return value;
        }
        match offset {
            reg::STATUS => state.status(),
            vf::V2PMAILBOX if state.kind == Kind::Virtual => state.read_mailbox(),
            // Reading clears, whatever is masked.
            reg::ICR => std::mem::take(state.file.word_mut(reg::ICR)),
            _ => state.file.read(offset),
        }
    }

    fn write(&self, offset: u32, value: u32) {
        let vectors = {
            let mut state = self.state();
            if state.faults.gone || offset >= reg::BAR_LEN || !offset.is_multiple_of(4) {
                return;
            }
            state.note(Access::Write(offset, value));
            state.write(offset, value)
        };
        self.deliver();
        self.signal(vectors);
    }
}

impl Function for NicModel {
    fn id(&self) -> (u16, u16) {
        (0x8086, self.0.kind.device_id())
    }

    fn address(&self) -> String {
        format!("model:{}", self.0.kind.name())
    }

    fn registers(&self) -> Arc<dyn Registers> {
        Arc::new(self.clone())
    }

    fn map(&self, region: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError> {
        Ok(self.state().memory.map(region))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        let mut state = self.state();
        state.check_bus()?;
        state.bus_master = on;
        Ok(())
    }

    fn reset(&self) -> Result<(), BusError> {
        let mut state = self.state();
        state.check_bus()?;
        state.power_on();
        Ok(())
    }

    fn vectors(&self) -> u16 {
        self.0.kind.vectors()
    }

    fn enable_vectors(&self, count: u16) -> Result<Vec<RawFd>, BusError> {
        self.state().enabled_vectors = count;
        Ok(self.0.events.iter().take(usize::from(count)).map(|event| event.as_raw_fd()).collect())
    }

    fn is_gone(&self) -> bool {
        self.state().faults.gone
    }
}

impl State {
    fn check_bus(&self) -> Result<(), BusError> {
        match self.faults.bus_is_stuck {
            true => Err(BusError::Unsupported("the bus is stuck".into())),
            false => Ok(()),
        }
    }

    /// Registers after a reset (§4.3): the EEPROM's address, an idle PHY, everything off.
    fn power_on(&mut self) {
        self.file = File::new(self.kind);
        self.contexts = Default::default();
        self.gathering = Default::default();
        self.outgoing.clear();
        let [a, b, c, d, e, f] = self.mac.0;
        self.file.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        self.file.set(reg::RAH, u32::from(u16::from_le_bytes([e, f])) | 1 << 31);
        self.file.set(reg::EECD, 1 << 9);
        self.file.set(reg::VET, 0x8100);
        if self.kind == Kind::I82574 {
            // 20 KiB of the packet buffer for either direction, both queues taking part.
            self.file.set(ext::PBA, 0x0014_0014);
            (0..2).for_each(|n| self.file.set(ext::TARC + 0x100 * n, 0x0700_0403));
        }
        self.phy.power_on();
    }

    fn note(&mut self, access: Access) {
        if self.record.len() < RECORD_LEN {
            self.record.push(access);
        }
    }

    pub(super) fn violation(&mut self, what: String) {
        if self.violations.len() < RECORD_LEN {
            self.violations.push(what);
        }
    }

    /// True if the device may reach memory.
    pub(super) fn may_dma(&self) -> bool {
        self.bus_master && self.file.get(reg::CTRL) & reg::CTRL_MASTER_DISABLE == 0
    }

    /// The link is up: cable, PHY awake and negotiating, MAC told to follow it.
    pub(super) fn link_up(&self) -> bool {
        if self.kind == Kind::Virtual {
            return self.cable;
        }
        self.cable && self.phy.negotiates() && self.file.get(reg::CTRL) & reg::CTRL_SLU != 0
    }

    fn status(&self) -> u32 {
        let mut status = reg::STATUS_FD;
        if self.link_up() {
            status |= reg::STATUS_LU | reg::STATUS_SPEED_1000;
        }
        let disabled = self.file.get(reg::CTRL) & reg::CTRL_MASTER_DISABLE != 0;
        if !disabled || self.faults.master_never_stops {
            status |= reg::STATUS_MASTER;
        }
        status
    }

    /// A register write; gives the vectors that it makes the device send.
    fn write(&mut self, offset: u32, value: u32) -> u32 {
        if let Some((ring, register)) = self.kind.ring_of(offset) {
            return self.write_ring(ring, register, value);
        }
        if self.kind == Kind::I82574 && ext::NOTHING.contains(&offset) {
            self.violation(format!("an 82574 has no register at {offset:#x}"));
            return 0;
        }
        if self.kind == Kind::I82575 && first::lacks(offset) {
            self.violation(format!("an 82575 has no register at {offset:#x}"));
            return 0;
        }
        if self.kind == Kind::Virtual && !vf::may_write(offset) {
            self.violation(format!("a virtual function has no register at {offset:#x}"));
            return 0;
        }
        if self.write_semaphore(offset, value) {
            return 0;
        }
        if let Some(vectors) = self.write_interrupt(offset, value) {
            return vectors;
        }
        match offset {
            reg::CTRL => self.write_ctrl(value),
            vf::V2PMAILBOX if self.kind == Kind::Virtual => return self.write_mailbox(value),
            reg::MDIC => return self.write_mdic(value),
            reg::STATUS | reg::EECD => {}
            reg::RCTL => {
                if value & !self.file.get(reg::RCTL) & reg::UNIT_EN != 0 {
                    self.check_receive_order();
                }
                self.file.set(reg::RCTL, value);
            }
            _ => self.file.set(offset, value),
        }
        0
    }

    fn scribble(&mut self, ring: Ring, index: u32, words: [u64; 2]) {
        let len = self.file.ring_len(ring);
        if len == 0 {
            return;
        }
        let at = self.file.descriptor_at(ring, index % len);
        for (word, at) in words.into_iter().zip([at, at + 8]) {
            if self.memory.write_u64(at, word).is_err() {
                self.violation(format!("{ring:?} is not mapped"));
            }
        }
    }

    /// §4.5.9: the rings are ready before the receive unit is turned on.
    fn check_receive_order(&mut self) {
        if !(0..self.kind.queues()).any(|n| self.file.enabled(Ring::Rx(n))) {
            self.violation("RCTL.RXEN was set without a receive queue".into());
        }
        if !self.bus_master {
            self.violation("RCTL.RXEN was set before the device was bus master".into());
        }
    }

    fn write_ctrl(&mut self, value: u32) {
        if value & reg::CTRL_RST == 0 {
            self.file.set(reg::CTRL, value);
            return;
        }
        self.resets += 1;
        self.power_on();
        self.mail.forget();
        if self.faults.reset_never_ends {
            self.file.set(reg::CTRL, reg::CTRL_RST);
        }
    }

    fn write_ring(&mut self, ring: Ring, register: u32, value: u32) -> u32 {
        let programming =
            matches!(register, queue::BASE_LOW | queue::BASE_HIGH | queue::LENGTH | queue::HEAD);
        if programming && self.is_working(ring) {
            self.violation(format!("{ring:?} was programmed while it was on"));
        }
        match register {
            queue::CONTROL => self.write_queue_control(ring, value),
            queue::LENGTH if !value.is_multiple_of(128) => {
                self.violation(format!("{ring:?} has a length of {value} bytes"));
            }
            queue::TAIL if value != 0 && value >= self.file.ring_len(ring) => {
                self.violation(format!("{ring:?} has a tail of {value}"));
            }
            queue::TAIL => {
                self.file.set_ring(ring, register, value);
                if let (Ring::Tx(n), false) = (ring, self.faults.hold_transmit) {
                    return self.transmit(n);
                }
            }
            _ => self.file.set_ring(ring, register, value),
        }
        0
    }

    /// The device may look at the ring's registers at any moment. On an 82576 the queue's own switch
    /// decides, on an 82574 the unit's (82574 §4.6.5).
    fn is_working(&self, ring: Ring) -> bool {
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => self.file.enabled(ring),
            Kind::I82574 => self.unit_is_on(ring),
        }
    }

    /// The unit that the ring belongs to is on; a virtual function's are when its physical one has
    /// admitted it.
    pub(super) fn unit_is_on(&self, ring: Ring) -> bool {
        let unit = match ring {
            Ring::Rx(_) => reg::RCTL,
            Ring::Tx(_) => reg::TCTL,
        };
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::I82574 => self.file.get(unit) & reg::UNIT_EN != 0,
            Kind::Virtual => self.mail.admitted,
        }
    }

    fn write_queue_control(&mut self, ring: Ring, value: u32) {
        // More loses single write-backs of an 82576 (specification update), and makes an 82574 go by
        // the threshold instead of by RS (82574 §7.2.10.1).
        let most = match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => 1,
            Kind::I82574 => 0,
        };
        if value >> 16 & 0x1f > most {
            self.violation(format!("{ring:?} has a WTHRESH above {most}"));
        }
        let mut value = value;
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => {
                let (on, was) = (value & reg::QUEUE_ENABLE != 0, self.file.enabled(ring));
                let stuck = on && !was && self.faults.queues_never_start
                    || !on && was && self.faults.queues_never_stop;
                value ^= if stuck { reg::QUEUE_ENABLE } else { 0 };
            }
            // 82574 §10.2.6.6: a bit that has to be set, and thresholds that count descriptors.
            Kind::I82574 => {
                let needed = match ring {
                    Ring::Rx(_) => ext::DCTL_GRAN,
                    Ring::Tx(_) => ext::DCTL_GRAN | ext::TXDCTL_COUNT_DESC,
                };
                if value & needed != needed {
                    self.violation(format!("{ring:?} is controlled by {value:#x}"));
                }
            }
        }
        self.file.set_ring(ring, queue::CONTROL, value);
    }
}
