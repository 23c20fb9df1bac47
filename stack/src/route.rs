//! Routes: which interface and which neighbour a destination is reached through.
//!
//! The longest prefix wins, then the lowest metric (RFC 1122 §3.3.1, RFC 1812 §5.2.4.3). A lookup
//! costs one search a prefix length that is in use, so few, however many routes there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

use crate::addr::Cidr;

/// Most routes of a table.
pub const MAX_ROUTES: usize = 1024;

/// Which interface of a `Stack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IfaceId(pub u16);

/// Where packets to a network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Out of this interface,
    pub iface: IfaceId,
    /// to this router, or to the destination itself.
    pub gateway: Option<IpAddr>,
    /// The lower one of two routes to the same network is taken.
    pub metric: u32,
}

/// The next station of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface that it leaves through.
    pub iface: IfaceId,
    /// The neighbour that it goes to: a gateway, or its destination.
    pub next_hop: IpAddr,
}

/// Why a route is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The table holds [`MAX_ROUTES`].
    #[error("the routing table is full ({MAX_ROUTES} routes): remove some")]
    Full,
    /// The gateway is of another address family than the network.
    #[error("the gateway {0} is of another address family than the network")]
    Family(IpAddr),
}

/// Routes to networks of one address family: by length of the prefix, by network, by metric.
type Family = BTreeMap<u8, BTreeMap<IpAddr, Vec<Route>>>;

/// A routing table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    v4: Family,
    v6: Family,
    len: usize,
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        Table::default()
    }

    /// Routes in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a route to the network of `to`. One through the same interface and gateway that is
    /// there already is replaced.
    ///
    /// # Errors
    /// [`RouteError`]; the table is then as it was.
    pub fn add(&mut self, to: Cidr, route: Route) -> Result<(), RouteError> {
        if let Some(gateway) = route.gateway.filter(|g| g.is_ipv4() != to.addr().is_ipv4()) {
            return Err(RouteError::Family(gateway));
        }
        let replaces = self.remove(to, route.iface, route.gateway);
        if !replaces && self.len >= MAX_ROUTES {
            return Err(RouteError::Full);
        }
        let network = to.network();
        let routes = self
            .family_mut(network.addr())
            .entry(network.prefix())
            .or_default()
            .entry(network.addr())
            .or_default();
        let at = routes.partition_point(|other| other.metric <= route.metric);
        routes.insert(at, route);
        self.len += 1;
        Ok(())
    }

    /// Removes the route to the network of `to` through `iface` and `gateway`. False if there is
    /// none.
    pub fn remove(&mut self, to: Cidr, iface: IfaceId, gateway: Option<IpAddr>) -> bool {
        let network = to.network();
        let family = self.family_mut(network.addr());
        let Some(networks) = family.get_mut(&network.prefix()) else { return false };
        let Some(routes) = networks.get_mut(&network.addr()) else { return false };
        let Some(at) = routes.iter().position(|r| r.iface == iface && r.gateway == gateway) else {
            return false;
        };
        routes.remove(at);
        // What is empty goes, so that a lookup searches only lengths in use.
        if routes.is_empty() {
            networks.remove(&network.addr());
        }
        if networks.is_empty() {
            family.remove(&network.prefix());
        }
        self.len -= 1;
        true
    }

    /// The way to `dst`, or `None` if no network with a route contains it.
    pub fn lookup(&self, dst: IpAddr) -> Option<NextHop> {
        let route = self.family(dst).iter().rev().find_map(|(&prefix, networks)| {
            let network = Cidr::new(dst, prefix)?.network();
            networks.get(&network.addr())?.first()
        })?;
        Some(NextHop { iface: route.iface, next_hop: route.gateway.unwrap_or(dst) })
    }

    /// Every route, longest prefix last, for people to read.
    pub fn iter(&self) -> impl Iterator<Item = (Cidr, &Route)> {
        [&self.v4, &self.v6].into_iter().flatten().flat_map(|(&prefix, networks)| {
            networks.iter().flat_map(move |(&addr, routes)| {
                let to = Cidr::new(addr, prefix);
                routes.iter().filter_map(move |route| Some((to?, route)))
            })
        })
    }

    fn family(&self, addr: IpAddr) -> &Family {
        match addr {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    fn family_mut(&mut self, addr: IpAddr) -> &mut Family {
        match addr {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

/// The first step of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Through an interface, to this neighbour.
    Link { iface: IfaceId, next_hop: Ipv4Addr },
    /// Through an interface, to everybody on it.
    Broadcast { iface: IfaceId },
    /// To this host itself; the interface is the one that has the address.
    Local { iface: IfaceId },
}

impl Hop {
    pub(crate) fn iface(&self) -> IfaceId {
        match *self {
            Hop::Link { iface, .. } | Hop::Broadcast { iface } | Hop::Local { iface } => iface,
        }
    }
}

/// What a connection remembers of its way, so that a segment costs no search. It names places,
/// never a link address: that is the neighbour cache's, which has to see that it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathCache {
    /// The hop, and how often routing had changed when it was found.
    pub(crate) hop: Option<(u32, Hop)>,
    /// Where the neighbour was in the cache of its interface.
    pub(crate) neighbor: u32,
}

/// What a datagram socket remembers of the destination that it sent to last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) dst: Ipv4Addr,
    pub(crate) path: PathCache,
    /// The source address of a socket that is bound to none.
    pub(crate) source: Ipv4Addr,
}

impl Default for Way {
    fn default() -> Way {
        let nobody = Ipv4Addr::UNSPECIFIED;
        Way { dst: nobody, path: PathCache::default(), source: nobody }
    }
}

impl Default for PathCache {
    fn default() -> PathCache {
        PathCache { hop: None, neighbor: u32::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn via(iface: u16, gateway: Option<&str>, metric: u32) -> Route {
        Route { iface: IfaceId(iface), gateway: gateway.map(ip), metric }
    }

    fn hop(iface: u16, next_hop: &str) -> Option<NextHop> {
        Some(NextHop { iface: IfaceId(iface), next_hop: ip(next_hop) })
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_lowest_metric() {
        let mut table = Table::new();
        assert_eq!(table.lookup(ip("10.0.0.1")), None);
        table.add(cidr("0.0.0.0/0"), via(0, Some("10.77.0.1"), 0)).unwrap();
        table.add(cidr("10.77.0.2/24"), via(0, None, 0)).unwrap();
        table.add(cidr("10.77.0.128/25"), via(1, None, 20)).unwrap();
        table.add(cidr("10.77.0.128/25"), via(2, None, 10)).unwrap();
        assert_eq!(table.lookup(ip("8.8.8.8")), hop(0, "10.77.0.1"));
        assert_eq!(table.lookup(ip("10.77.0.9")), hop(0, "10.77.0.9"));
        assert_eq!(table.lookup(ip("10.77.0.200")), hop(2, "10.77.0.200"));
        assert_eq!(table.lookup(ip("fe80::1")), None, "the other family has no route");
        assert!(table.remove(cidr("10.77.0.128/25"), IfaceId(2), None));
        assert_eq!(table.lookup(ip("10.77.0.200")), hop(1, "10.77.0.200"));
        assert!(!table.remove(cidr("10.77.0.128/25"), IfaceId(2), None));
        assert_eq!(table.iter().count(), table.len());
    }

    #[test]
    fn adding_a_route_again_replaces_it() {
        let mut table = Table::new();
        table.add(cidr("10.0.0.0/8"), via(0, None, 5)).unwrap();
        table.add(cidr("10.0.0.0/8"), via(1, None, 4)).unwrap();
        table.add(cidr("10.0.0.0/8"), via(0, None, 3)).unwrap();
        assert_eq!((table.len(), table.lookup(ip("10.1.1.1"))), (2, hop(0, "10.1.1.1")));
    }

    #[test]
    fn a_full_table_and_a_foreign_gateway_are_refused() {
        let mut table = Table::new();
        let net = |i: usize| Cidr::new(Ipv4Addr::from((i as u32) << 8).into(), 24).unwrap();
        for i in 0..MAX_ROUTES {
            table.add(net(i), via(0, None, 0)).unwrap();
        }
        assert_eq!(table.add(net(MAX_ROUTES), via(0, None, 0)), Err(RouteError::Full));
        assert_eq!(table.add(net(3), via(0, None, 9)), Ok(()), "replacing needs no room");
        assert_eq!(table.len(), MAX_ROUTES);
        let foreign = table.add(cidr("::/0"), via(0, Some("10.0.0.1"), 0));
        assert_eq!(foreign, Err(RouteError::Family(ip("10.0.0.1"))));
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_search_of_all_routes(
            routes in proptest::collection::vec((any::<u16>(), 0u8..=32, 0u16..3, 0u32..4), 0..30),
            dsts in proptest::collection::vec(any::<u16>(), 1..20),
        ) {
            let spread = |n: u16| -> IpAddr { Ipv4Addr::from(u32::from(n).rotate_right(8)).into() };
            let mut table = Table::new();
            for &(addr, prefix, iface, metric) in &routes {
                table.add(Cidr::new(spread(addr), prefix).unwrap(), via(iface, None, metric)).unwrap();
            }
            for dst in dsts.into_iter().map(spread) {
                let rank = |(to, route): &(Cidr, &Route)| (to.prefix(), !route.metric);
                let best: Option<_> =
                    table.iter().filter(|(to, _)| to.contains(dst)).map(|r| rank(&r)).max();
                let taken = table.lookup(dst);
                prop_assert_eq!(taken.is_some(), best.is_some());
                let Some(NextHop { iface, next_hop }) = taken else { continue };
                prop_assert_eq!(next_hop, dst);
                let is_best = |r: (Cidr, &Route)| {
                    r.0.contains(dst) && r.1.iface == iface && Some(rank(&r)) == best
                };
                prop_assert!(table.iter().any(is_best), "{} through {:?}", dst, iface);
            }
        }
    }
}
