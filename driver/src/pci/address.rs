//! Where a PCI function is: domain, bus, device, function.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Highest device number on a bus (PCI Express Base §2.2.4.2: five bits).
const MAX_DEVICE: u8 = 31;

/// Highest function number of a device (three bits).
const MAX_FUNCTION: u8 = 7;

/// A function's address, printed as `0000:01:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciAddress {
    /// The domain (segment). More than 16 bits: some bridges make domains of their own.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device on its bus, up to 31.
    pub device: u8,
    /// The function of its device, up to 7.
    pub function: u8,
}

/// Why a string is no PCI address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a PCI address; write DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, such as \
     `0000:01:00.0` (`barewire devices` lists them)"
)]
pub struct BadAddress(pub String);

impl FromStr for PciAddress {
    type Err = BadAddress;

    /// Reads `0000:01:00.0`, or `01:00.0` for domain 0, as `lspci` prints them.
    fn from_str(text: &str) -> Result<PciAddress, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (buses, last) = text.rsplit_once(':')?;
    let (domain, bus) = buses.split_once(':').unwrap_or(("0000", buses));
    let (device, function) = last.split_once('.')?;
    let address = PciAddress {
        domain: digits(domain, 4..=8)?,
        bus: u8::try_from(digits(bus, 2..=2)?).ok()?,
        device: u8::try_from(digits(device, 2..=2)?).ok()?,
        function: u8::try_from(digits(function, 1..=1)?).ok()?,
    };
    (address.device <= MAX_DEVICE && address.function <= MAX_FUNCTION).then_some(address)
}

/// A hexadecimal number of so many digits and nothing else (`from_str_radix` takes a sign).
fn digits(text: &str, count: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let plain = count.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PciAddress { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_they_are_printed_elsewhere() {
        for (text, printed) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.1", "0000:01:00.1"),
            ("10000:E1:1f.7", "10000:e1:1f.7"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in [
            "",
            "eth0",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "1:0.0",
            "0000:+1:00.0",
            "0000:01:00.0/..",
            "0:0000:01:00.0",
            "00000:0001:00.0",
            ":01:00.0",
            "01:00.0 ",
            "123456789:01:00.0",
        ] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains("0000:01:00.0"), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives_printing(
            domain: u32, bus: u8, device in 0..=MAX_DEVICE, function in 0..=MAX_FUNCTION,
        ) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,24}") {
            let _ = text.parse::<PciAddress>();
        }
    }
}
