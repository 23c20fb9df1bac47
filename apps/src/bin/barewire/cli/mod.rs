//! Arguments of the command, and what is refused before anything starts.

mod bench;

pub(crate) use bench::{
    BenchCommand, ClientArgs, ClientCommand, Direction, ForwardArgs, PacketArgs, PktgenArgs,
    SIZE_MAX, ServerArgs,
};

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use barewire_driver::PciSpec;
use barewire_driver::pci::PciAddress;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// A network card driven from user space, with a TCP/IP stack and sockets on top.
#[derive(Debug, Parser)]
#[command(name = "barewire", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What is logged: a level, or targets with levels [default: RUST_LOG, or else warn].
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the files of a directory over HTTP/1.1.
    Serve(ServeArgs),
    /// Send back whatever arrives, over TCP and UDP.
    Echo(EchoArgs),
    /// Fetch a file over HTTP.
    Fetch(FetchArgs),
    /// Send ICMP echo requests and time the answers.
    Ping(PingArgs),
    /// Measure what a device, a stack and a network carry; with `--kernel` the same over the kernel's
    /// sockets, to compare.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// List what `--device` can name on this machine.
    Devices,
    /// Check what this machine has and lacks for driving a network card, and how to mend it.
    Doctor,
    /// Take a network card from the kernel, give it back, or describe it.
    #[command(subcommand)]
    Nic(NicCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum NicCommand {
    /// Take a card from its kernel driver, so that `--device pci:ADDRESS` can drive it.
    Bind {
        /// Where it is, such as 0000:01:00.0.
        #[arg(value_parser = named::<PciAddress>)]
        address: PciAddress,
        /// Take it even if this machine's own addresses or default route are on it.
        #[arg(long)]
        take_in_use: bool,
    },
    /// Give a card back to the kernel driver that it came from.
    Unbind {
        /// Where it is, such as 0000:01:00.0.
        #[arg(value_parser = named::<PciAddress>)]
        address: PciAddress,
    },
    /// Tell everything that is known of a card. One that is bound and idle is opened for a moment
    /// to read its address, its link, and what the settings given have made of it.
    Info {
        /// Where it is, such as 0000:01:00.0, with settings behind it if need be.
        #[arg(value_parser = named::<PciSpec>)]
        card: PciSpec,
    },
    /// List what can be set behind a card's address, as in `--device pci:0000:01:00.0,vlan=5`.
    Settings,
    /// Print the hardware's counters: the kernel's while the kernel has the card, else those of the
    /// card itself and of a queue over a short time in which it receives.
    Stats {
        /// Where it is, such as 0000:01:00.0, with settings behind it if need be.
        #[arg(value_parser = named::<PciSpec>)]
        card: PciSpec,
        /// For how long it receives.
        #[arg(long, default_value_t = Seconds(1.0))]
        seconds: Seconds,
    },
    /// Test a card that is bound and idle: fires every interrupt vector and waits for it.
    Test {
        /// Where it is, such as 0000:01:00.0.
        #[arg(value_parser = named::<PciAddress>)]
        address: PciAddress,
        /// Instead of that, make the card read one frame from where nothing is mapped: the IOMMU
        /// has to stop it, and the kernel to log it.
        #[arg(long)]
        unmapped_dma: bool,
    },
}

/// A card as `barewire devices` and `--device` name it, or without the `pci:`.
fn named<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.strip_prefix("pci:").unwrap_or(text).parse()
}

/// Which device to take, and who to be on its network.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// The device: `tap:NAME` makes a tap interface, or takes an existing one; `pci:ADDRESS` drives a
    /// card that `barewire nic bind` has taken from the kernel. Settings follow the address, as in
    /// `pci:0000:01:00.0,vlan=5`; `barewire nic settings` lists them.
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) device: String,
    /// Our address and the length of the network's prefix.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub(crate) address: NetAddress,
    /// Router for addresses outside of the prefix.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<IpAddr>,
    /// Cores to run on, each with a queue of the device.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) cores: u16,
    /// What a core does when nothing arrives.
    #[arg(long, value_enum, default_value_t = Idle::Adaptive)]
    pub(crate) idle: Idle,
    /// Write every frame to this file, for Wireshark or tcpdump.
    #[arg(long, value_name = "FILE.pcapng")]
    pub(crate) capture: Option<PathBuf>,
    /// Largest IP packet in bytes; the device's own by default. The network has to take it, too.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..=9216))]
    pub(crate) mtu: Option<u16>,
    /// Lose, repeat, reorder or damage frames on purpose, such as `seed=1,loss=2%,reorder=1%`.
    #[arg(long, value_name = "SPEC")]
    pub(crate) faults: Option<String>,
}

/// `--idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Idle {
    /// Poll without end: the lowest latency, a whole core.
    Busy,
    /// Poll for a while, then sleep until the device wakes it.
    Adaptive,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// TCP port to listen on.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// At the end, print what queues, engines and the hardware have counted: `stat NAME VALUE`.
    #[arg(long)]
    pub(crate) stats: bool,
    /// Directory whose files are served; `index.html` stands for a directory.
    pub(crate) dir: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// TCP and UDP port to listen on.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// At the end, print what queues, engines and the hardware have counted: `stat NAME VALUE`.
    #[arg(long)]
    pub(crate) stats: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Address, or a name that this machine's resolver knows.
    pub(crate) host: String,
    /// Requests to send; 0 goes on until Ctrl-C.
    #[arg(long, short, default_value_t = 4)]
    pub(crate) count: u64,
    /// Bytes of data in each request.
    #[arg(long, short, default_value_t = 56, value_parser = clap::value_parser!(u16).range(0..=65_507))]
    pub(crate) size: u16,
    /// Seconds between requests.
    #[arg(long, short, default_value_t = Seconds(1.0))]
    pub(crate) interval: Seconds,
    /// Seconds to wait for each answer.
    #[arg(long, short = 'W', default_value_t = Seconds(1.0))]
    pub(crate) timeout: Seconds,
}

#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// What to fetch, such as http://10.77.0.1/file.
    pub(crate) url: Url,
    /// The file to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Seconds without a byte after which it is given up.
    #[arg(long, short = 'W', default_value_t = Seconds(30.0))]
    pub(crate) timeout: Seconds,
}

/// An `http:` URL (RFC 9110 §4.2.1), as far as fetching needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// An address, or a name that this machine's resolver knows.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, as they go into the request.
    pub(crate) target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let example = "write it as http://10.77.0.1/file";
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| format!("only http:// can be fetched; {example}"))?;
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        if authority.contains(['@', '[']) {
            return Err(format!("`{authority}` is no host with a port; {example}"));
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => {
                let port = port.parse().ok().filter(|&port| port != 0);
                (host, port.ok_or_else(|| format!("`{authority}` has no valid port"))?)
            }
            None => (authority, 80),
        };
        if host.is_empty() {
            return Err(format!("the host is missing; {example}"));
        }
        // What is no visible ASCII would end the request line, or begin another header.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL has no blanks; write them as %20".into());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { host: host.to_owned(), port, target: format!("{slash}{target}") })
    }
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetAddress {
    pub(crate) addr: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl FromStr for NetAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<NetAddress, String> {
        let example = "write it as 10.77.0.2/24";
        let (addr, prefix) =
            text.split_once('/').ok_or_else(|| format!("the prefix is missing; {example}"))?;
        let addr: IpAddr =
            addr.parse().map_err(|_| format!("`{addr}` is no address; {example}"))?;
        let IpAddr::V4(addr) = addr else {
            return Err("IPv6 is not there yet; give an IPv4 address".into());
        };
        let prefix: u8 =
            prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix)).ok_or_else(|| {
                format!("`{prefix}` is no length of an IPv4 prefix (1 to 32); {example}")
            })?;
        let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let ours = addr.to_bits() & host;
        // RFC 3021: prefixes of 31 bits have neither a network nor a broadcast address.
        if prefix < 31 && (ours == 0 || ours == host) {
            let which = if ours == 0 { "network's own" } else { "broadcast" };
            return Err(format!("{addr} is the {which} address of /{prefix}; take another"));
        }
        if addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast() {
            return Err(format!("{addr} is no host's address; {example}"));
        }
        Ok(NetAddress { addr, prefix })
    }
}

impl std::fmt::Display for NetAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// A time in seconds, fractions allowed, between a millisecond and an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seconds(pub(crate) f64);

impl Seconds {
    pub(crate) fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.0)
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let seconds: f64 = text.parse().map_err(|_| "give seconds, such as 0.2".to_owned())?;
        match seconds {
            0.001..=3600.0 => Ok(Seconds(seconds)),
            _ => Err("give between 0.001 and 3600 seconds".into()),
        }
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, String> {
        let words = line.split_whitespace();
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_of_the_arguments_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_card_is_named_with_its_kind_or_without() {
        for name in ["pci:01:00.0", "01:00.0"] {
            let line = format!("barewire nic bind {name}");
            let Ok(Command::Nic(NicCommand::Bind { address, .. })) = parse(&line) else {
                panic!("{line}")
            };
            assert_eq!(address.to_string(), "0000:01:00.0");
            let line = format!("barewire nic info {name},vlan=5");
            let Ok(Command::Nic(NicCommand::Info { card })) = parse(&line) else {
                panic!("{line}")
            };
            assert_eq!(card.to_string(), "0000:01:00.0,vlan=5");
        }
        for other in ["pci:pci:01:00.0", "pci:", "tap:bw0"] {
            assert!(parse(&format!("barewire nic bind {other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn serve_needs_a_device_an_address_and_a_directory() {
        let line = "barewire serve --device tap:bw0 --address 10.77.0.2/24 site";
        let Ok(Command::Serve(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.port, args.device.cores, args.device.idle), (80, 1, Idle::Adaptive));
        assert_eq!(args.device.address.to_string(), "10.77.0.2/24");
        for missing in ["--device tap:bw0", "--address 10.77.0.2/24", "site"] {
            assert!(parse(&line.replace(missing, "")).is_err(), "without {missing}");
        }
        for (value, says) in [
            ("--cores 0", "0 is not in 1..=256"),
            ("--port 0", "0 is not in 1..=65535"),
            ("--idle lazy", "possible values: busy, adaptive"),
        ] {
            let error = parse(&format!("{line} {value}")).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_ours_is_refused_with_a_reason() {
        for (text, says) in [
            ("10.77.0.2", "the prefix is missing"),
            ("10.77.0/24", "no address"),
            ("fe80::1/64", "IPv6"),
            ("10.77.0.2/33", "no length"),
            ("10.77.0.2/0", "no length"),
            ("10.77.0.0/24", "network's own"),
            ("10.77.0.255/24", "broadcast"),
            ("224.0.0.1/24", "no host's address"),
        ] {
            let error = text.parse::<NetAddress>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for text in ["10.77.0.2/24", "10.0.0.0/31", "10.0.0.1/31", "10.0.0.1/32"] {
            assert_eq!(text.parse::<NetAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_card_is_named_by_its_address() {
        let Ok(Command::Nic(NicCommand::Bind { address, take_in_use })) =
            parse("barewire nic bind 01:00.0")
        else {
            panic!("nic bind")
        };
        assert_eq!((address.to_string().as_str(), take_in_use), ("0000:01:00.0", false));
        let error = parse("barewire nic unbind eth0").unwrap_err();
        assert!(error.contains("`eth0` is not a PCI address"), "{error}");
        let Ok(Command::Nic(NicCommand::Info { card })) =
            parse("barewire nic info 01:00.0,vlan=5,promisc")
        else {
            panic!("nic info")
        };
        assert_eq!(card.to_string(), "0000:01:00.0,promisc,vlan=5");
        let error = parse("barewire nic stats 01:00.0,vlan=0").unwrap_err();
        assert!(error.contains("write it as `vlan=5`"), "{error}");
        assert!(matches!(parse("barewire doctor"), Ok(Command::Doctor)));
    }

    #[test]
    fn a_url_is_a_host_a_port_and_what_to_ask_for() {
        for (text, host, port, target) in [
            ("http://10.77.0.1/file", "10.77.0.1", 80, "/file"),
            ("http://host:8080", "host", 8080, "/"),
            ("http://host?q=1#part", "host", 80, "/?q=1"),
        ] {
            let url = Url { host: host.into(), port, target: target.into() };
            assert_eq!(text.parse(), Ok(url));
        }
        for (text, says) in [
            ("https://host/", "only http://"),
            ("http:///file", "host is missing"),
            ("http://host:0/", "no valid port"),
            ("http://me@host/", "no host with a port"),
            ("http://host/a b", "%20"),
            ("http://host/a\r\nX: y", "%20"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn an_mtu_is_bounded() {
        let line = "barewire echo --device tap:bw0 --address 10.77.0.2/24 --mtu";
        let Ok(Command::Echo(args)) = parse(&format!("{line} 9000")) else { panic!("{line}") };
        assert_eq!(args.device.mtu, Some(9000));
        assert!(parse(&format!("{line} 67")).is_err());
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!("0.2".parse::<Seconds>().unwrap().duration().as_millis(), 200);
        for text in ["0", "-1", "nan", "inf", "4000", "x"] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }
}
