//! Queues around queues: each wraps any [`Queue`](crate::Queue) and is one.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`fault`] | loses, doubles, reorders, corrupts, delays and throttles frames, by a seed |
//! | [`capture`] | writes the frames that pass to a pcapng file |
//! | [`vlan`] | puts a device that inserts and strips tags on one VLAN |
//!
//! The first two are tools for tests and for finding faults: they allocate for each frame, which the
//! queues themselves never do. `FaultyDevice`, `CapturedDevice` and `VlanDevice` wrap whole devices,
//! so that whoever opens queues needs not know.

use std::fmt;
use std::net::SocketAddr;

use crate::device::{Capabilities, Device, DeviceError, LinkState, MacAddr, QueueId, QueueSeed};
use crate::rss::Steering;

pub mod capture;
pub mod fault;
pub mod vlan;

/// A device around a device: one that differs in its queues, and perhaps in what they offer.
trait Wrapper: Send + Sync + fmt::Debug {
    /// The device within.
    fn inner(&self) -> &dyn Device;

    /// What the queues of the wrapper offer, by what those within do.
    fn offered(&self, inner: Capabilities) -> Capabilities {
        inner
    }

    /// A queue pair around one of the device within.
    fn wrapped(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError>;
}

impl<W: Wrapper> Device for W {
    fn name(&self) -> String {
        self.inner().name()
    }

    fn mac(&self) -> MacAddr {
        self.inner().mac()
    }

    fn capabilities(&self) -> Capabilities {
        self.offered(self.inner().capabilities())
    }

    fn queues(&self) -> u16 {
        self.inner().queues()
    }

    fn link(&self) -> LinkState {
        self.inner().link()
    }

    fn poll_link(&self) -> Option<LinkState> {
        self.inner().poll_link()
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        self.inner().statistics()
    }

    fn flow_queue(&self, remote: SocketAddr, local: SocketAddr) -> Option<QueueId> {
        self.inner().flow_queue(remote, local)
    }

    fn steering(&self) -> Option<Steering> {
        self.inner().steering()
    }

    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        self.wrapped(id)
    }
}
