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

pub mod capture;
pub mod fault;
pub mod vlan;
