//! What the machine itself needs a card for: taking that one away may end the session that asked.

use std::fmt;
use std::net::Ipv4Addr;

use super::{PciFunction, System, names, text};

/// Most interfaces that are looked at above a card's own: a bond, its bridge, their VLANs.
const MAX_UPPER: usize = 256;

/// `RTF_UP` and `RTF_REJECT` of `linux/route.h`.
const RTF_UP: u32 = 0x0001;
const RTF_REJECT: u32 = 0x0200;

/// `IPV6_ADDR_LINKLOCAL` in the scope column of `/proc/net/if_inet6`.
const SCOPE_LINK: u32 = 0x20;

/// A reason not to take a card away from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The default route leaves through the interface.
    DefaultRoute(String),
    /// The interface carries an IPv4 address.
    Address(String, Ipv4Addr),
    /// The interface carries an IPv6 address that is more than link-local.
    Address6(String),
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Usage::DefaultRoute(interface) => {
                write!(f, "this machine's default route leaves through {interface}")
            }
            Usage::Address(interface, address) => {
                write!(f, "{interface} carries this machine's address {address}")
            }
            Usage::Address6(interface) => {
                write!(f, "{interface} carries an IPv6 address of this machine")
            }
        }
    }
}

/// What the machine uses a card for, in this network namespace, or `None`. The interfaces that are
/// built on the card's own (a bond, a bridge, a VLAN) count as the card's.
pub fn usage(system: &System, function: &PciFunction) -> Option<Usage> {
    let own = function.interfaces.iter().map(|interface| interface.name.clone());
    let interfaces = with_uppers(system, own.collect());
    let routed = default_routes(system);
    if let Some(name) = interfaces.iter().find(|name| routed.contains(name)) {
        return Some(Usage::DefaultRoute(name.clone()));
    }
    let addressed6 = ipv6_interfaces(system);
    interfaces.iter().find_map(|name| match (system.addresses)(name).first() {
        Some(&address) => Some(Usage::Address(name.clone(), address)),
        None => addressed6.contains(name).then(|| Usage::Address6(name.clone())),
    })
}

/// `interfaces` and all that are stacked on them.
fn with_uppers(system: &System, mut interfaces: Vec<String>) -> Vec<String> {
    let mut next = 0;
    while next < interfaces.len() && interfaces.len() < MAX_UPPER {
        let dir = system.sys.join("class/net").join(&interfaces[next]);
        for name in names(&dir) {
            if let Some(upper) = name.strip_prefix("upper_")
                && !interfaces.iter().any(|known| known == upper)
            {
                interfaces.push(upper.to_owned());
            }
        }
        next += 1;
    }
    interfaces
}

/// The interfaces that a default route leaves through.
fn default_routes(system: &System) -> Vec<String> {
    // `self/net` is the namespace of this process; `/proc/net` is a link to it.
    let table = |name: &str| text(&system.proc.join("self/net").join(name)).unwrap_or_default();
    let number = |field: &str| u32::from_str_radix(field, 16).ok();
    let mut found = Vec::new();
    for line in table("route").lines() {
        // Interface, destination, gateway, flags, three counters, mask.
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", _, flags, _, _, _, "00000000", ..] = fields[..]
            && number(flags).is_some_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP)
        {
            found.push(name.to_owned());
        }
    }
    for line in table("ipv6_route").lines() {
        // Destination, its length, source, its length, gateway, three numbers, flags, interface.
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, "00", _, _, _, _, _, _, flags, name] = fields[..]
            && number(flags).is_some_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP)
        {
            found.push(name.to_owned());
        }
    }
    found
}

/// The interfaces with an IPv6 address that reaches further than the link.
fn ipv6_interfaces(system: &System) -> Vec<String> {
    let table = text(&system.proc.join("self/net/if_inet6")).unwrap_or_default();
    let name = |line: &str| {
        // Address, index, prefix length, scope, flags, interface.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, _, _, scope, _, name] = &fields[..] else { return None };
        let scope = u32::from_str_radix(scope, 16).ok()?;
        (scope & SCOPE_LINK == 0).then(|| name.to_owned())
    };
    table.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake_tree::Tree;
    use super::super::find;
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
        eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth2\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    fn used(tree: &Tree) -> Option<Usage> {
        usage(&tree.system, &find(&tree.system, "01:00.0".parse().unwrap()).unwrap())
    }

    #[test]
    fn the_default_route_and_addresses_are_reasons() {
        let tree = Tree::new("in-use");
        tree.card("0000:01:00.0", 0x8086, 0x10c9).interface("eth1");
        assert_eq!(used(&tree), None);
        tree.file("proc/self/net/route", ROUTES);
        assert_eq!(used(&tree), Some(Usage::DefaultRoute("eth1".into())));
        tree.file("proc/self/net/route", &ROUTES.replace("eth1\t", "eth9\t"));
        assert_eq!(used(&tree), None, "another card's default route");
        tree.file(
            "proc/self/net/ipv6_route",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
             fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth1\n\
             00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
             00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n",
        );
        assert_eq!(used(&tree), Some(Usage::DefaultRoute("eth1".into())));
    }

    #[test]
    fn a_link_local_address_is_no_reason_and_a_global_one_is() {
        let tree = Tree::new("in-use-6");
        tree.card("0000:01:00.0", 0x8086, 0x10c9).interface("eth1");
        tree.file(
            "proc/self/net/if_inet6",
            "fe80000000000000505400fffe123456 02 40 20 80     eth1\n",
        );
        assert_eq!(used(&tree), None);
        tree.file(
            "proc/self/net/if_inet6",
            "20010db8000000000000000000000001 02 40 00 80     eth1\n",
        );
        assert_eq!(used(&tree), Some(Usage::Address6("eth1".into())));
    }

    #[test]
    fn what_a_bond_over_the_card_carries_counts() {
        let mut tree = Tree::new("in-use-bond");
        tree.system.addresses = |name| {
            if name == "vlan5" { vec![Ipv4Addr::new(10, 0, 0, 1)] } else { Vec::new() }
        };
        tree.card("0000:01:00.0", 0x8086, 0x10c9).interface("eth1");
        tree.file("sys/class/net/eth1/upper_bond0", "");
        tree.file("sys/class/net/bond0/upper_vlan5", "");
        tree.file("sys/class/net/bond0/lower_eth1", "");
        let usage = used(&tree).unwrap();
        assert_eq!(usage.to_string(), "vlan5 carries this machine's address 10.0.0.1");
    }
}
