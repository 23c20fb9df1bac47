//! What a card is set to beyond what every device has, as a user writes it behind its address:
//! `pci:0000:01:00.0,vlan=5,flow-control=full`.
//!
//! [`SETTINGS`] lists all of them. What is refused here is what no card of ours can be set to; what one
//! card cannot do (a table that names a queue too many, filters of a virtual function) is refused
//! when it is opened.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::device::MacAddr;
use crate::intel::{FlowControl, MAX_INTERRUPT_INTERVAL_US, MAX_STATIONS};
use crate::rss::TABLE_LEN;

/// Every setting as it is written, and what it does.
pub const SETTINGS: &[(&str, &str)] = &[
    ("mac=02:00:00:00:00:05", "be this address instead of the card's own"),
    ("station=02:00:00:00:00:06", "take this address's frames, too; again for each, up to 14"),
    ("multicast=01:00:5e:01:02:03", "take this group's frames, too; again for each"),
    ("allmulti", "take the frames of every group"),
    ("promisc", "take everybody's frames"),
    ("vlan=5", "be on this VLAN: tag what is sent, take what has its tag and nothing else"),
    ("rss-key=6d:5a:…", "the 40 bytes that flows are dealt out by, as `ethtool -x` prints them"),
    ("rss-table=0/1/1", "queues in the order in which the 128 entries name them, repeated"),
    ("moderation-us=100", "least time between two interrupts of a queue, up to 8191; 0 is none"),
    ("flow-control=full", "pause frames: obeyed (rx), sent (tx), both (full) or off"),
];

/// Most multicast groups that can be listed: with more, `allmulti` costs less.
pub const MAX_GROUPS: usize = 256;

/// A VLAN by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// VLAN `id`, if it is one: 0 stands for none and 4,095 is reserved (IEEE 802.1Q table 9-2).
    pub const fn new(id: u16) -> Option<VlanId> {
        match id {
            1..=4094 => Some(VlanId(id)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a card is set to; by default all is as the driver has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NicSettings {
    /// Instead of the card's own address.
    pub mac: Option<MacAddr>,
    /// Addresses beside it, up to 14.
    pub stations: Vec<MacAddr>,
    /// Groups whose frames are taken.
    pub multicast: Vec<MacAddr>,
    /// Take the frames of every group.
    pub all_multicast: bool,
    /// Take everybody's frames.
    pub promiscuous: bool,
    /// Tag what is sent, and take what has this tag and nothing else.
    pub vlan: Option<VlanId>,
    /// Key of the hash that flows are dealt out by.
    pub rss_key: Option<[u8; 40]>,
    /// Queues in the order in which the table's entries name them, repeated to its end; none for
    /// all queues in turn.
    pub rss_table: Vec<u8>,
    /// Least microseconds between two interrupts of a queue.
    pub moderation_us: Option<u16>,
    /// Pause frames.
    pub flow_control: Option<FlowControl>,
}

/// Why a setting is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingError {
    /// There is none of this name.
    #[error("`{0}` is no setting of a card; there are {names}", names = names())]
    Unknown(String),
    /// The value cannot be one.
    #[error("`{given}`: {why}; write it as `{write}`")]
    Value {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to write.
        write: &'static str,
    },
    /// It can be given once.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// More than there is room for.
    #[error("`{name}` can be given {most} times at most")]
    TooMany {
        /// The setting.
        name: &'static str,
        /// How often.
        most: usize,
    },
}

/// A setting's name, of how it is written.
fn name_of(write: &'static str) -> &'static str {
    write.split_once('=').map_or(write, |(name, _)| name)
}

fn names() -> String {
    let names: Vec<&str> = SETTINGS.iter().map(|(write, _)| *write).collect();
    names.join(", ")
}

impl NicSettings {
    /// The redirection table that is asked for, if one is.
    pub fn rss_table(&self) -> Option<[u8; TABLE_LEN]> {
        let pattern = &self.rss_table;
        (!pattern.is_empty()).then(|| std::array::from_fn(|at| pattern[at % pattern.len()]))
    }

    /// Takes in one setting; `write` is the line of [`SETTINGS`] that it fits.
    fn take(
        &mut self,
        write: &'static str,
        given: &str,
        value: Option<&str>,
    ) -> Result<(), SettingError> {
        let name = name_of(write);
        let wrong = |why| SettingError::Value { given: given.to_owned(), why, write };
        let flag = |on: &mut bool| match value {
            None => set(on, true, name),
            Some(_) => Err(wrong("it takes no value")),
        };
        match name {
            "promisc" => return flag(&mut self.promiscuous),
            "allmulti" => return flag(&mut self.all_multicast),
            _ => {}
        }
        let value = value.ok_or_else(|| wrong("it needs a value"))?;
        match name {
            "mac" => once(&mut self.mac, unicast(value).map_err(wrong)?, name),
            "station" => {
                let station = unicast(value).map_err(wrong)?;
                more(&mut self.stations, station, MAX_STATIONS, name)
            }
            "multicast" => {
                more(&mut self.multicast, group(value).map_err(wrong)?, MAX_GROUPS, name)
            }
            "vlan" => once(&mut self.vlan, vlan(value).map_err(wrong)?, name),
            "rss-key" => once(&mut self.rss_key, key(value).map_err(wrong)?, name),
            "rss-table" => set(&mut self.rss_table, table(value).map_err(wrong)?, name),
            "moderation-us" => once(&mut self.moderation_us, interval(value).map_err(wrong)?, name),
            "flow-control" => once(&mut self.flow_control, flow(value).map_err(wrong)?, name),
            _ => Err(SettingError::Unknown(given.to_owned())),
        }
    }
}

/// Sets what has its default yet.
fn set<T: Default + PartialEq>(
    to: &mut T,
    value: T,
    name: &'static str,
) -> Result<(), SettingError> {
    if *to != T::default() {
        return Err(SettingError::Twice(name));
    }
    *to = value;
    Ok(())
}

fn once<T: PartialEq>(
    to: &mut Option<T>,
    value: T,
    name: &'static str,
) -> Result<(), SettingError> {
    set(to, Some(value), name)
}

fn more<T>(to: &mut Vec<T>, value: T, most: usize, name: &'static str) -> Result<(), SettingError> {
    if to.len() >= most {
        return Err(SettingError::TooMany { name, most });
    }
    to.push(value);
    Ok(())
}

const NO_MAC: &str = "an address is six pairs of hexadecimal digits";

fn unicast(text: &str) -> Result<MacAddr, &'static str> {
    let mac: MacAddr = text.parse().map_err(|_| NO_MAC)?;
    if mac.is_group() {
        return Err("it is the address of a group");
    }
    if mac == MacAddr::default() { Err("it is nobody's address") } else { Ok(mac) }
}

fn group(text: &str) -> Result<MacAddr, &'static str> {
    let mac: MacAddr = text.parse().map_err(|_| NO_MAC)?;
    if !mac.is_group() {
        return Err("it is the address of one station, not of a group");
    }
    if mac == MacAddr::BROADCAST { Err("broadcasts are taken in any case") } else { Ok(mac) }
}

/// A plain decimal number (`from_str` takes a sign).
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn vlan(text: &str) -> Result<VlanId, &'static str> {
    number(text).and_then(VlanId::new).ok_or("a VLAN has a number from 1 to 4094")
}

fn interval(text: &str) -> Result<u16, &'static str> {
    let interval = number(text).filter(|interval| *interval <= MAX_INTERRUPT_INTERVAL_US);
    interval.ok_or("an interval is 0 to 8191 microseconds")
}

fn flow(text: &str) -> Result<FlowControl, &'static str> {
    FlowControl::ALL
        .into_iter()
        .find(|flow| flow.name() == text)
        .ok_or("flow control is off, rx, tx or full")
}

fn table(text: &str) -> Result<Vec<u8>, &'static str> {
    const WHY: &str = "a table is 1 to 128 numbers of queues with / between them";
    let queue = |text: &str| number(text).and_then(|queue| u8::try_from(queue).ok());
    // One more than fit is enough to see that they are too many.
    let queues: Option<Vec<u8>> = text.split('/').take(TABLE_LEN + 1).map(queue).collect();
    queues.filter(|queues| queues.len() <= TABLE_LEN).ok_or(WHY)
}

fn key(text: &str) -> Result<[u8; 40], &'static str> {
    const WHY: &str =
        "a key is 40 bytes as pairs of hexadecimal digits, with : between them or without";
    let digits = text.as_bytes();
    let step = if digits.get(2) == Some(&b':') { 3 } else { 2 };
    let mut key = [0; 40];
    if digits.len() != step * key.len() - (step - 2) {
        return Err(WHY);
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(step)) {
        *byte = hex_pair(pair).ok_or(WHY)?;
    }
    Ok(key)
}

/// A byte of two digits, with or without a colon behind them.
fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    match text {
        [high, low] | [high, low, b':'] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

impl FromStr for NicSettings {
    type Err = SettingError;

    /// Reads settings between commas, at least one.
    fn from_str(text: &str) -> Result<NicSettings, SettingError> {
        let mut settings = NicSettings::default();
        for given in text.split(',') {
            let (name, value) = match given.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (given, None),
            };
            let (write, _) = SETTINGS
                .iter()
                .find(|(write, _)| name_of(write) == name)
                .ok_or_else(|| SettingError::Unknown(given.to_owned()))?;
            settings.take(write, given, value)?;
        }
        Ok(settings)
    }
}

impl fmt::Display for NicSettings {
    /// As they are read, each with a comma before it, so that they follow an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NicSettings {
            mac,
            stations,
            multicast,
            all_multicast,
            promiscuous,
            vlan,
            rss_key,
            rss_table,
            moderation_us,
            flow_control,
        } = self;
        mac.iter().try_for_each(|mac| write!(f, ",mac={mac}"))?;
        stations.iter().try_for_each(|station| write!(f, ",station={station}"))?;
        multicast.iter().try_for_each(|group| write!(f, ",multicast={group}"))?;
        if *all_multicast {
            f.write_str(",allmulti")?;
        }
        if *promiscuous {
            f.write_str(",promisc")?;
        }
        vlan.iter().try_for_each(|vlan| write!(f, ",vlan={}", vlan.get()))?;
        if let Some(key) = rss_key {
            f.write_str(",rss-key=")?;
            key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        for (i, queue) in rss_table.iter().enumerate() {
            write!(f, "{}{queue}", if i == 0 { ",rss-table=" } else { "/" })?;
        }
        moderation_us.iter().try_for_each(|interval| write!(f, ",moderation-us={interval}"))?;
        flow_control.iter().try_for_each(|flow| write!(f, ",flow-control={}", flow.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rss::{DEFAULT_KEY, SYMMETRIC_KEY};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_read_is_printed_so_that_it_is_read_again(
            names in proptest::collection::vec("[a-z-]{0,3}|mac|vlan|rss-(key|table)|promisc", 1..4),
            values in proptest::collection::vec(
                "[0-9a-f]{80}|(0[0-9a-f]:){5}[0-9a-f]{2}|[0-9]{1,5}|[0-9/]{1,9}|\\PC{0,9}", 1..4),
        ) {
            let parts = names.iter().zip(&values).map(|(name, value)| match name.as_str() {
                "promisc" => name.clone(),
                _ => format!("{name}={value}"),
            });
            let text = parts.collect::<Vec<_>>().join(",");
            if let Ok(settings) = text.parse::<NicSettings>() {
                prop_assert_eq!(settings.to_string()[1..].parse(), Ok(settings));
            }
        }
    }

    fn refused(text: &str) -> String {
        text.parse::<NicSettings>().unwrap_err().to_string()
    }

    #[test]
    fn settings_are_read_and_printed_alike() {
        let text = "mac=02:00:00:00:00:05,station=02:00:00:00:00:06,station=02:00:00:00:00:07,\
                    multicast=01:00:5e:01:02:03,allmulti,promisc,vlan=4094,rss-table=0/1/1,\
                    moderation-us=0,flow-control=tx";
        let settings: NicSettings = text.parse().unwrap();
        assert_eq!(settings.to_string(), format!(",{text}"));
        assert_eq!(settings.vlan.map(VlanId::get), Some(4094));
        assert_eq!((settings.stations.len(), settings.moderation_us), (2, Some(0)));
        assert_eq!(settings.rss_table().unwrap()[..7], [0, 1, 1, 0, 1, 1, 0]);
        assert_eq!(NicSettings::default().to_string(), "");
        assert_eq!(NicSettings::default().rss_table(), None);
    }

    #[test]
    fn a_key_is_read_with_colons_and_without() {
        let plain: String = DEFAULT_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        let colons = DEFAULT_KEY.map(|byte| format!("{byte:02X}")).join(":");
        for text in [&plain, &colons] {
            let settings: NicSettings = format!("rss-key={text}").parse().unwrap();
            assert_eq!(settings.rss_key, Some(DEFAULT_KEY));
            assert_eq!(settings.to_string(), format!(",rss-key={plain}"));
        }
        let other = NicSettings { rss_key: Some(SYMMETRIC_KEY), ..NicSettings::default() };
        assert_eq!(other.to_string()[1..].parse(), Ok(other));
        for bad in [
            &plain[1..],
            &plain[2..],
            &colons[3..],
            &format!("{plain}00"),
            &format!("{colons}:"),
            &format!("{colons}:00"),
            &plain.replace('5', "g"),
            &plain.replace("5a", "é"),
            &colons.replace(':', "-"),
            &format!("+{}", &plain[1..]),
            "",
        ] {
            assert!(refused(&format!("rss-key={bad}")).contains("40 bytes"), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_write() {
        for (text, said) in [
            ("", "`` is no setting of a card; there are mac="),
            ("vlan=5,", "`` is no setting"),
            ("vlan", "it needs a value; write it as `vlan=5`"),
            ("vlan=", "1 to 4094"),
            ("vlan=0", "1 to 4094"),
            ("vlan=4095", "1 to 4094"),
            ("vlan=+5", "1 to 4094"),
            ("vlan=65537", "1 to 4094"),
            ("vlan=5=5", "1 to 4094"),
            ("vlan=5,vlan=6", "`vlan` is given twice"),
            ("VLAN=5", "is no setting"),
            ("promisc=yes", "it takes no value; write it as `promisc`"),
            ("promisc,promisc", "`promisc` is given twice"),
            ("mac=01:00:5e:00:00:01", "group"),
            ("mac=00:00:00:00:00:00", "nobody's"),
            ("mac=02:00:00:00:00", "six pairs"),
            ("mac=02:00:00:00:00:05:06", "six pairs"),
            ("mac=02:00:00:00:00:+5", "six pairs"),
            ("station=ff:ff:ff:ff:ff:ff", "group"),
            ("multicast=02:00:00:00:00:05", "one station"),
            ("multicast=ff:ff:ff:ff:ff:ff", "in any case"),
            ("moderation-us=8192", "0 to 8191"),
            ("moderation-us=-1", "0 to 8191"),
            ("moderation-us=99999999999999999999", "0 to 8191"),
            ("flow-control=on", "off, rx, tx or full"),
            ("flow-control=", "off, rx, tx or full"),
            ("rss-table=", "1 to 128"),
            ("rss-table=0//1", "1 to 128"),
            ("rss-table=0,1", "`1` is no setting"),
            ("rss-table=256", "1 to 128"),
            ("jumbo=9000", "`jumbo=9000` is no setting of a card"),
        ] {
            let error = refused(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn lists_have_an_end() {
        let table = |len: usize| format!("rss-table={}", vec!["1"; len].join("/"));
        assert_eq!(table(128).parse::<NicSettings>().unwrap().rss_table.len(), 128);
        assert!(refused(&table(129)).contains("1 to 128"));
        assert!(refused(&table(1_000_000)).contains("1 to 128"));
        let groups = |len: usize| vec!["multicast=01:00:5e:01:02:03"; len].join(",");
        assert!(groups(MAX_GROUPS).parse::<NicSettings>().is_ok());
        assert!(refused(&groups(MAX_GROUPS + 1)).contains("256 times at most"));
        let stations = |len: usize| vec!["station=02:00:00:00:00:06"; len].join(",");
        assert!(stations(14).parse::<NicSettings>().is_ok());
        assert!(refused(&stations(15)).contains("14 times at most"));
    }

    #[test]
    fn every_setting_is_listed_as_it_may_be_written() {
        for (write, _) in SETTINGS {
            // The key alone is too long to be written out.
            if !write.contains('…') {
                assert!(write.parse::<NicSettings>().is_ok(), "{write}");
            }
        }
    }
}
