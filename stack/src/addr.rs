//! Addresses with a prefix length, as people write them: `10.77.0.2/24`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Why a text is not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CidrError {
    /// There is no `/`.
    #[error("'{0}' has no prefix length: write it as 10.77.0.2/24")]
    NoPrefix(String),
    /// What precedes the `/` is not an IP address.
    #[error("'{0}' is not an IP address")]
    Address(String),
    /// What follows it is not a length that the address's family has.
    #[error("'/{0}' is not a prefix length: /0 to /32 for IPv4, /0 to /128 for IPv6")]
    Prefix(String),
}

/// An address and the length of its network's prefix (RFC 4632 §3.1). The bits behind the prefix
/// are kept: `10.77.0.2/24` is a host and tells its network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `addr` in a network of `prefix` bits; `None` if its family has no such prefix.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Cidr> {
        (prefix <= bits(addr)).then_some(Cidr { addr, prefix })
    }

    /// The network that is all addresses of the family of `addr`.
    pub fn everything(addr: IpAddr) -> Cidr {
        Cidr { addr, prefix: 0 }.network()
    }

    /// The address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The length of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The same network with the bits behind the prefix zero.
    pub fn network(&self) -> Cidr {
        Cidr { addr: mask(self.addr, self.prefix), prefix: self.prefix }
    }

    /// True if `addr` is of the network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && mask(self.addr, self.prefix) == mask(addr, self.prefix)
    }

    /// The address that reaches all hosts of the network. None in IPv6, and none in networks of one
    /// address or two (RFC 3021).
    pub fn broadcast(&self) -> Option<IpAddr> {
        match self.addr {
            IpAddr::V4(addr) if self.prefix <= 30 => {
                Some(Ipv4Addr::from_bits(addr.to_bits() | !mask4(self.prefix)).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// The first address of the network that a host can have, other than this one; `None` if the
    /// network has no second.
    pub fn first_other_host(&self) -> Option<IpAddr> {
        // Two addresses are both hosts (RFC 3021, RFC 6164); otherwise the first one names the
        // network or, in IPv6, any of its routers (RFC 4291 §2.6.1).
        let first = if self.prefix >= bits(self.addr) - 1 { 0 } else { 1 };
        let network = self.network().addr;
        (first..first + 2)
            .filter_map(|host| match network {
                IpAddr::V4(net) => {
                    net.to_bits().checked_add(host).map(|b| Ipv4Addr::from(b).into())
                }
                IpAddr::V6(net) => {
                    net.to_bits().checked_add(host.into()).map(|b| Ipv6Addr::from(b).into())
                }
            })
            .find(|&host| host != self.addr && self.contains(host))
    }
}

fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A mask of `prefix` ones; of all ones for longer prefixes.
fn mask4(prefix: u8) -> u32 {
    !u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

fn mask(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() & mask4(prefix)).into(),
        IpAddr::V6(addr) => {
            let mask = !u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let Some((addr, prefix)) = text.split_once('/') else {
            return Err(CidrError::NoPrefix(text.to_owned()));
        };
        let addr = addr.parse().map_err(|_| CidrError::Address(addr.to_owned()))?;
        // `u8::from_str` would take "+24" as well.
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        prefix
            .parse()
            .ok()
            .filter(|_| digits)
            .and_then(|prefix| Cidr::new(addr, prefix))
            .ok_or_else(|| CidrError::Prefix(prefix.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn text_that_is_no_prefix_says_what_is_wrong() {
        let error = |text: &str| text.parse::<Cidr>().unwrap_err();
        assert_eq!(error("10.0.0.1"), CidrError::NoPrefix("10.0.0.1".into()));
        assert_eq!(error("10.0.0/8"), CidrError::Address("10.0.0".into()));
        for prefix in ["33", "", "-1", "+24", "256", "2 4", "8/8"] {
            assert_eq!(error(&format!("10.0.0.1/{prefix}")), CidrError::Prefix(prefix.into()));
        }
        assert_eq!(error("fe80::1/129"), CidrError::Prefix("129".into()));
    }

    #[test]
    fn a_network_contains_its_own_and_no_other_family() {
        let net = cidr("10.77.0.2/24");
        assert!(net.contains(ip("10.77.0.255")) && !net.contains(ip("10.77.1.0")));
        assert!(!net.contains(ip("::10.77.0.1")));
        assert!(cidr("0.0.0.0/0").contains(ip("255.255.255.255")));
        assert!(!cidr("0.0.0.0/0").contains(ip("::")));
        assert!(cidr("fe80::1/10").contains(ip("febf::1")));
        assert_eq!(net.network().to_string(), "10.77.0.0/24");
        assert_eq!(Cidr::everything(ip("10.1.2.3")), cidr("0.0.0.0/0"));
    }

    #[test]
    fn broadcast_exists_where_there_are_more_than_two_addresses() {
        assert_eq!(cidr("10.77.0.2/24").broadcast(), Some(ip("10.77.0.255")));
        assert_eq!(cidr("10.0.0.1/30").broadcast(), Some(ip("10.0.0.3")));
        assert_eq!(cidr("10.0.0.1/0").broadcast(), Some(ip("255.255.255.255")));
        for none in ["10.0.0.1/31", "10.0.0.1/32", "fe80::1/64"] {
            assert_eq!(cidr(none).broadcast(), None, "{none}");
        }
    }

    #[test]
    fn the_other_host_is_the_first_that_is_not_this_one() {
        for (own, other) in [
            ("10.77.0.2/24", Some("10.77.0.1")),
            ("10.77.0.1/24", Some("10.77.0.2")),
            ("10.77.0.5/30", Some("10.77.0.6")),
            ("10.77.0.4/31", Some("10.77.0.5")),
            ("10.77.0.5/31", Some("10.77.0.4")),
            ("255.255.255.255/31", Some("255.255.255.254")),
            ("255.255.255.254/31", Some("255.255.255.255")),
            ("255.255.255.255/32", None),
            ("10.77.0.4/32", None),
            ("fd00::2/64", Some("fd00::1")),
        ] {
            assert_eq!(cidr(own).first_other_host(), other.map(ip), "{own}");
        }
    }

    proptest! {
        #[test]
        fn text_and_value_are_the_same(addr: IpAddr, prefix in 0u8..=140) {
            match Cidr::new(addr, prefix) {
                Some(cidr) => {
                    prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
                    prop_assert!(cidr.contains(addr) && cidr.contains(cidr.network().addr()));
                    prop_assert!(cidr.broadcast().is_none_or(|b| cidr.contains(b)));
                    let other = cidr.first_other_host();
                    prop_assert!(other.is_none_or(|o| cidr.contains(o) && o != addr));
                }
                None => prop_assert!(prefix > 32 && (addr.is_ipv4() || prefix > 128)),
            }
        }
    }
}
