//! Arguments of `barewire bench`.

use std::path::PathBuf;
use std::str::FromStr;

use barewire_driver::MacAddr;
use clap::{Args, Subcommand, ValueEnum};

use super::{DeviceArgs, Seconds};

/// Most bytes of a request or an answer.
pub(crate) const SIZE_MAX: u32 = 1 << 20;

/// The port that server and client use unless told otherwise.
const PORT: u16 = 7777;

/// How the sides are chosen, in the usage lines.
macro_rules! usage {
    ($command:literal, $rest:literal) => {
        concat!(
            "barewire bench ",
            $command,
            " <--kernel | --device KIND:NAME --address ADDRESS/PREFIX> [OPTIONS]",
            $rest
        )
    };
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Answer the clients of `barewire bench client`, whatever mode they ask for.
    ///
    /// On a device its TIME-WAIT lasts a second, not a minute: the server of `conn` ends each
    /// connection first, and the next client process would find its ports taken. With --kernel it
    /// lasts as long as the kernel's, which cannot be set.
    #[command(override_usage = usage!("server", ""))]
    Server(ServerArgs),
    /// Load a server and measure.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Send frames as fast as the device takes them, without a stack.
    Pktgen(PktgenArgs),
    /// Receive frames and throw them away, without a stack.
    Rxdrop(PacketArgs),
    /// Pass frames from one device to another and back, without a stack.
    Forward(ForwardArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Bytes a second over connections that stay open.
    #[command(override_usage = usage!("client stream", " <SERVER>"))]
    Stream(StreamArgs),
    /// Requests a second, and how long each takes.
    #[command(override_usage = usage!("client rr", " <SERVER>"))]
    Rr(RrArgs),
    /// Connections a second: each is opened, carries one request and one answer, and is closed.
    #[command(override_usage = usage!("client conn", " <SERVER>"))]
    Conn(ConnArgs),
}

/// Whose sockets are measured.
#[derive(Args, Debug)]
pub(crate) struct SideArgs {
    /// Use the kernel's sockets in place of a device.
    #[arg(long, required_unless_present = "device", conflicts_with = "DeviceArgs")]
    pub(crate) kernel: bool,
    #[command(flatten)]
    pub(crate) device: Option<DeviceArgs>,
}

#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) side: SideArgs,
    /// TCP port to listen on.
    #[arg(long, default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Seconds to run; until Ctrl-C by default.
    #[arg(long)]
    pub(crate) seconds: Option<Seconds>,
}

/// What every mode of the client needs.
#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub(crate) side: SideArgs,
    /// The server: an address, or a name that this machine's resolver knows.
    pub(crate) server: String,
    /// Its TCP port.
    #[arg(long, default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Connections at a time.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = Seconds(10.0))]
    pub(crate) seconds: Seconds,
    /// Write the result to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// `--direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both ways at once.
    Both,
}

#[derive(Args, Debug)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Which way the bytes go.
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    pub(crate) direction: Direction,
    /// Hand packet memory over instead of copying, on both sides; a server or client on the kernel's
    /// sockets copies all the same.
    #[arg(long)]
    pub(crate) owned: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RrArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(flatten)]
    pub(crate) sizes: SizeArgs,
    /// Requests under way on each connection.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,
    /// Send this many requests a second over all connections together, whether answers come or not;
    /// times count from when each was due. Without it a request follows an answer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct ConnArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(flatten)]
    pub(crate) sizes: SizeArgs,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct SizeArgs {
    /// Bytes of a request.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(SIZE_MAX)))]
    pub(crate) size: u32,
    /// Bytes of an answer; as many as of a request by default.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=i64::from(SIZE_MAX)))]
    pub(crate) answer: Option<u32>,
}

/// What the modes without a stack need.
#[derive(Args, Debug)]
pub(crate) struct PacketArgs {
    /// The device: `tap:NAME` or `pci:ADDRESS`; with --kernel the name of an interface.
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) device: String,
    /// Use packet sockets of the kernel in place of a device. They get copies: the kernel's own stack
    /// handles what arrives all the same.
    #[arg(long)]
    pub(crate) kernel: bool,
    /// Seconds to measure.
    #[arg(long, default_value_t = Seconds(10.0))]
    pub(crate) seconds: Seconds,
    /// Write the result to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct PktgenArgs {
    #[command(flatten)]
    pub(crate) packets: PacketArgs,
    /// Ethernet address that the frames go to. They carry EtherType 88b5, for local experiments.
    #[arg(long, value_name = "MAC")]
    pub(crate) to: Mac,
    /// Bytes of a frame, without the checksum that the card appends.
    #[arg(long, value_name = "BYTES", default_value_t = 60, value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub(crate) size: u16,
}

#[derive(Args, Debug)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) packets: PacketArgs,
    /// The other device.
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) to: String,
}

/// An Ethernet address as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) MacAddr);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let wrong = || format!("`{text}` is no Ethernet address; write it as 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            // `from_str_radix` would take a sign.
            let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(MacAddr(octets))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<BenchCommand, String> {
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command) {
            Ok(Command::Bench(command)) => Ok(command),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn sockets_are_those_of_a_device_or_of_the_kernel() {
        let Ok(BenchCommand::Server(args)) = parse("barewire bench server --kernel") else {
            panic!("--kernel")
        };
        assert!(args.side.kernel && args.side.device.is_none());
        let line = "barewire bench client rr --device tap:bw0 --address 10.77.0.2/24 10.77.0.1";
        let Ok(BenchCommand::Client(ClientCommand::Rr(args))) = parse(line) else {
            panic!("{line}")
        };
        assert!(!args.client.side.kernel);
        assert_eq!(args.client.side.device.map(|device| device.cores), Some(1));
        for (line, says) in [
            ("server", "--kernel"),
            ("server --kernel --device tap:bw0", "cannot be used with"),
            ("server --kernel --cores 2", "cannot be used with"),
            ("server --device tap:bw0", "--address"),
            ("client rr --kernel", "<SERVER>"),
            ("client rr --kernel --pipeline 2 --rate 5 host", "cannot be used with"),
            ("client rr --kernel --rate 0 host", "0 is not in 1.."),
            ("client rr --kernel --size 0 host", "0 is not in 1.."),
            ("client stream --kernel --direction left host", "possible values: up, down, both"),
            ("client conn --kernel --connections 0 host", "0 is not in 1.."),
            ("client conn --kernel --seconds 0 host", "between 0.001 and 3600"),
            ("pktgen --device tap:bw0", "--to"),
            ("pktgen --device tap:bw0 --to 1:2", "no Ethernet address"),
            ("forward --device tap:bw0", "--to"),
            ("rxdrop --kernel", "--device"),
        ] {
            let error = parse(&format!("barewire bench {line}")).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn ethernet_addresses_are_six_pairs_of_digits() {
        let mac = Mac(MacAddr([2, 0, 0, 0xab, 0xcd, 1]));
        assert_eq!("02:00:00:ab:CD:01".parse(), Ok(mac));
        for text in ["", "02:00:00:ab:cd", "02:00:00:ab:cd:01:02", "+2:00:00:ab:cd:01", "x"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
