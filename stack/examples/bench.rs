//! A stack as a test bench: a whole connection with hand-made packets, in virtual time.
//!
//! ```text
//!   cargo run -p barewire-stack --example bench               the connection, packet by packet
//!   cargo run -p barewire-stack --example bench -- settings   all settings with their defaults
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{CHECKSUM_OFFSET, TcpFlags, TcpHeader, TcpOptions};
use barewire_stack::wire::{protocol, pseudo_header};
use barewire_stack::{
    Family, Instant, PollFlags, SentPacket, Settings, SocketError, SocketKind, Stack,
};

const STACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// A packet of the peer's. Any IPv4 packet will do, however it was made.
fn packet(flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let syn = flags.contains(TcpFlags::SYN);
    let header = TcpHeader {
        src_port: 4000,
        dst_port: 80,
        seq,
        ack,
        flags,
        window: 65_535,
        options: TcpOptions { mss: syn.then_some(1460), ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    let mut tcp = vec![0; header.header_len()];
    header.emit(&mut tcp);
    tcp.extend_from_slice(payload);
    let (from, to) = (IpAddr::V4(PEER), IpAddr::V4(STACK));
    let mut sum = pseudo_header(from, to, protocol::TCP, tcp.len() as u32);
    sum.add(&tcp);
    tcp[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.finish().to_be_bytes());
    let mut bytes = vec![0; Ipv4Header::LEN];
    Ipv4Header::new(PEER, STACK, protocol::TCP, tcp.len()).emit(&mut bytes);
    bytes.extend(tcp);
    bytes
}

/// The header of what the stack sent, which is printed, too.
fn told(sent: Option<SentPacket>) -> Result<TcpHeader, Box<dyn Error>> {
    let SentPacket { at, bytes, .. } = sent.ok_or("the stack sent nothing")?;
    let ip = Ipv4Header::parse(&bytes, bytes.len())?;
    let tcp = &bytes[usize::from(ip.header_len)..];
    let (header, len) = TcpHeader::parse(tcp, tcp.len())?;
    let payload = tcp.len() - len;
    println!("{at} sent {:?} seq {} ack {} len {payload}", header.flags, header.seq, header.ack);
    Ok(header)
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("settings") {
        for setting in Settings::all() {
            println!("{} = {}\n    {}", setting.name, setting.default_value(), setting.about);
            println!("    Takes {}.", setting.kind);
        }
        return Ok(());
    }
    // Everything that the stack does follows from its settings, packets, calls and times.
    let settings = Settings::new()
        .with("address", STACK)?
        .with("delayed_ack", Duration::from_millis(40))?
        .with("time_wait", "10s")?
        .with("seed", 7)?;
    let mut stack = Stack::raw(&settings)?;
    let mut now = Instant::ZERO;

    let listener = stack.socket(SocketKind::Tcp, Family::V4)?;
    stack.bind(listener, SocketAddr::from((STACK, 80)))?;
    stack.listen(listener, 8)?;
    assert_eq!(stack.accept(listener), Err(SocketError::WouldBlock));

    // The handshake.
    stack.handle_packet(now, &packet(TcpFlags::SYN, 100, 0, b""))?;
    let iss = told(stack.poll_packet())?.seq;
    now += Duration::from_millis(10);
    stack.handle_packet(now, &packet(TcpFlags::ACK, 101, iss + 1, b""))?;
    let (socket, _peer) = stack.accept(listener)?;

    // Data both ways, and the peer's FIN with it.
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    stack.handle_packet(now, &packet(fin, 101, iss + 1, b"ping"))?;
    told(stack.poll_packet())?;
    let mut data = [0; 16];
    assert_eq!(stack.read(socket, &mut data)?, 4);
    assert_eq!(stack.read(socket, &mut data)?, 0, "the end of the stream");
    assert!(stack.poll_flags(socket).contains(PollFlags::IN | PollFlags::RDHUP));
    stack.write(socket, b"pong")?;
    let reply = told(stack.poll_packet())?;

    // Its ACK is lost: time goes from deadline to deadline, until the data goes out again.
    let again = loop {
        now = stack.poll(now).ok_or("a retransmission is due")?;
        stack.poll(now);
        if let Some(packet) = stack.poll_packet() {
            break told(Some(packet))?;
        }
    };
    assert_eq!(again.seq, reply.seq);
    assert!(now >= Instant::from_millis(210), "not before the smallest timeout");

    // The end.
    stack.shutdown(socket, Shutdown::Write)?;
    told(stack.poll_packet())?;
    stack.handle_packet(now, &packet(TcpFlags::ACK, 106, iss + 6, b""))?;
    stack.close(socket)?;
    assert!(stack.poll_packet().is_none());
    assert_eq!(stack.sockets(), 1, "only the listener is left");
    Ok(())
}
