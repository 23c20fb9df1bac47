//! Time and frames: hosts, what joins them, and one clock that a hand turns.

use std::io::Write;
use std::time::Duration;

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::middleware::capture::{CaptureFile, Captured};
use barewire_driver::sys::{Clock, ClockHand};
use barewire_driver::{DeviceError, PacketSlice, Queue, RxFrame, TxFrame};

use super::host::{Host, HostConfig};
use super::switch::{Switch, Wire};
use crate::time::Instant;

/// Bytes of each frame that a capture keeps: all of every wire-sized one.
const CAPTURE_BYTES: u32 = 2048;

/// Sees every frame where it leaves or enters a host's card.
pub trait Watch {
    /// A host has sent a frame; with TSO it is one of many on the wire.
    fn sent(&mut self, now: Instant, host: usize, frame: &TxFrame, pieces: &[PacketSlice]);
    /// A host is about to take a frame in.
    fn received(&mut self, now: Instant, host: usize, frame: &RxFrame, pieces: &[PacketSlice]);
}

/// Looks away.
impl Watch for () {
    fn sent(&mut self, _: Instant, _: usize, _: &TxFrame, _: &[PacketSlice]) {}
    fn received(&mut self, _: Instant, _: usize, _: &RxFrame, _: &[PacketSlice]) {}
}

/// Hosts on a wire, in virtual time.
///
/// One round at one moment is [`World::deliver`], then whatever the applications do, then
/// [`World::finish`]. When neither has done anything, [`World::next_deadline`] says where to
/// [`World::advance_to`].
pub struct World {
    /// The hosts.
    pub hosts: Vec<Host>,
    switch: Option<Switch>,
    hand: ClockHand,
    now: Instant,
    /// Hosts that have something to do in this round, and when the stack of each is due next:
    /// most hosts are idle at most moments.
    active: Vec<bool>,
    due: Vec<Option<Instant>>,
}

impl World {
    /// Hosts on a switch, each behind its own bad link. What their cards send and receive is
    /// written to `capture` as pcapng.
    ///
    /// # Errors
    /// [`DeviceError`] if a pool or a cable cannot be made.
    pub fn switched(
        hosts: Vec<(HostConfig, Wire)>,
        cable: &CableConfig,
        capture: Option<Box<dyn Write + Send>>,
    ) -> Result<World, DeviceError> {
        let (clock, hand) = Clock::manual();
        let file = capture
            .map(|out| CaptureFile::to_writer(out, CAPTURE_BYTES, clock.clone(), 0))
            .transpose()
            .map_err(|error| DeviceError::Config(format!("cannot capture: {error}")))?;
        let mut made = Vec::with_capacity(hosts.len());
        let mut ends = Vec::with_capacity(hosts.len());
        for (index, (config, wire)) in hosts.into_iter().enumerate() {
            let (near, far) = cable::local(cable.clone())?;
            let near: Box<dyn Queue> = match &file {
                Some(file) => {
                    let name = format!("host {index}");
                    Box::new(Captured::new(Box::new(near), file.clone(), &name))
                }
                None => Box::new(near),
            };
            made.push(Host::new(index, config, near)?);
            ends.push((far, wire));
        }
        let switch = Some(Switch::new(ends, &clock)?);
        Ok(World::new(made, switch, hand))
    }

    /// Two hosts on one cable, without faults and with the offloads that both ask for.
    ///
    /// # Errors
    /// [`DeviceError`] if a pool or the cable cannot be made.
    pub fn direct(
        first: HostConfig,
        second: HostConfig,
        cable: &CableConfig,
    ) -> Result<World, DeviceError> {
        let (_, hand) = Clock::manual();
        let (a, b) = cable::local(cable.clone())?;
        let hosts = vec![Host::new(0, first, Box::new(a))?, Host::new(1, second, Box::new(b))?];
        Ok(World::new(hosts, None, hand))
    }

    fn new(hosts: Vec<Host>, switch: Option<Switch>, hand: ClockHand) -> World {
        let (active, due) = (vec![true; hosts.len()], vec![None; hosts.len()]);
        World { hosts, switch, hand, now: Instant::ZERO, active, due }
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The switch, where there is one.
    pub fn switch(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// Brings every frame that is due to its host; says whether there were any. Hosts that got one,
    /// and those whose stack is due, are active in this round.
    pub fn deliver(&mut self, watch: &mut dyn Watch) -> bool {
        let mut any = self.switch.as_mut().is_some_and(|switch| switch.pump(self.now));
        for (at, host) in self.hosts.iter_mut().enumerate() {
            let received = host.receive(self.now, watch);
            any |= received;
            self.active[at] |= received || self.due[at].is_some_and(|due| due <= self.now);
        }
        any
    }

    /// True if the host takes part in this round.
    pub fn is_active(&self, host: usize) -> bool {
        self.active[host]
    }

    /// Makes the host take part: something is about to be done to its stack.
    pub fn activate(&mut self, host: usize) {
        self.active[host] = true;
    }

    /// Lets every active host's stack do what is due and send; says whether a frame was sent, or a
    /// timer has left news for the host's applications, who have had their turn in this round.
    pub fn finish(&mut self, watch: &mut dyn Watch) -> bool {
        let mut any = false;
        for (at, host) in self.hosts.iter_mut().enumerate() {
            if std::mem::take(&mut self.active[at]) {
                // Events that nobody takes are no reason to go on.
                let told = host.has_news();
                host.stack.handle_timeout(self.now);
                any |= host.transmit(self.now, watch);
                self.active[at] = !told && host.has_news();
                any |= self.active[at];
                // What the cable did not take is tried again as soon as it has moved on.
                let waits = host.stack.wants_transmit().then_some(self.now);
                self.due[at] = waits.or(host.stack.poll_at());
            }
        }
        any
    }

    /// When a stack or a delayed frame is due next; the past if one is due already.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let now_ns = self.now.as_nanos();
        let frames = self.switch.as_mut().and_then(|switch| switch.next_ns(now_ns));
        let stacks = self.due.iter().copied().flatten();
        stacks.chain(frames.map(Instant::from_nanos)).min()
    }

    /// Moves time forward; never back.
    pub fn advance_to(&mut self, to: Instant) {
        self.now = self.now.max(to);
        self.hand.advance_to(self.now.as_nanos());
    }

    /// Moves time forward by `span`.
    pub fn advance(&mut self, span: Duration) {
        self.advance_to(self.now + span);
    }

    /// Takes the wire away; false if the switch has lost a slot of its own memory.
    pub fn stop(&mut self) -> bool {
        for host in &mut self.hosts {
            host.stop();
        }
        self.switch.as_mut().is_none_or(Switch::stop)
    }
}
