//! Reading and writing each header of the hot path and of its neighbours.

use std::hint::black_box;
use std::net::Ipv4Addr;

use barewire_driver::MacAddr;
use barewire_stack::wire::arp::{ArpPacket, Operation};
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};
use barewire_stack::wire::icmpv4::Icmpv4Message;
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::protocol;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader, TcpOptions, Timestamps};
use barewire_stack::wire::udp::UdpHeader;
use criterion::{Criterion, criterion_group, criterion_main};

const SRC: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn ethernet(c: &mut Criterion) {
    let header = EthernetHeader {
        dst: MacAddr::local(1),
        src: MacAddr::local(2),
        ethertype: ethertype::IPV4,
    };
    let mut bytes = [0; 64];
    header.emit(&mut bytes);
    c.bench_function("ethernet/parse", |b| b.iter(|| EthernetHeader::parse(black_box(&bytes))));
    c.bench_function("ethernet/emit", |b| b.iter(|| black_box(&header).emit(&mut bytes)));
}

fn ipv4(c: &mut Criterion) {
    let header = Ipv4Header::new(SRC, DST, protocol::TCP, 44);
    let mut bytes = [0; 64];
    header.emit(&mut bytes);
    c.bench_function("ipv4/parse", |b| b.iter(|| Ipv4Header::parse(black_box(&bytes), 64)));
    c.bench_function("ipv4/emit", |b| b.iter(|| black_box(&header).emit(&mut bytes)));
}

fn tcp(c: &mut Criterion) {
    let data = TcpHeader {
        src_port: 40_000,
        dst_port: 80,
        seq: 1,
        ack: 2,
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 512,
        options: TcpOptions { timestamps: Some(Timestamps { val: 1, ecr: 2 }), ..<_>::default() },
        ..TcpHeader::default()
    };
    let options =
        TcpOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..data.options };
    let syn = TcpHeader { flags: TcpFlags::SYN, options, ..data };
    let sack = [(10, 20), (30, 40), (50, 60)].into_iter().collect();
    let sack = TcpHeader { options: TcpOptions { sack, ..data.options }, ..data };
    for (name, header) in [("timestamps", data), ("syn", syn), ("sack", sack)] {
        let mut bytes = [0; 64];
        let len = header.emit(&mut bytes);
        c.bench_function(&format!("tcp/parse/{name}"), |b| {
            b.iter(|| TcpHeader::parse(black_box(&bytes[..len]), len));
        });
        c.bench_function(&format!("tcp/emit/{name}"), |b| {
            b.iter(|| black_box(&header).emit(&mut bytes));
        });
    }
}

fn udp(c: &mut Criterion) {
    let header = UdpHeader { src_port: 40_000, dst_port: 53, len: 8, checksum: 1 };
    let mut bytes = [0; 8];
    header.emit(&mut bytes);
    c.bench_function("udp/parse", |b| b.iter(|| UdpHeader::parse(black_box(&bytes), 8)));
    c.bench_function("udp/emit", |b| b.iter(|| black_box(&header).emit(&mut bytes)));
}

fn others(c: &mut Criterion) {
    let arp = ArpPacket {
        operation: Operation::Request,
        sender_mac: MacAddr::local(1),
        sender_ip: SRC,
        target_mac: MacAddr::default(),
        target_ip: DST,
    };
    let mut bytes = [0; ArpPacket::LEN];
    arp.emit(&mut bytes);
    c.bench_function("arp/parse", |b| b.iter(|| ArpPacket::parse(black_box(&bytes))));
    let mut echo = [0; 64];
    Icmpv4Message::EchoRequest { id: 1, seq: 2 }.emit([&[0; 56][..]], &mut echo);
    c.bench_function("icmpv4/parse/echo", |b| b.iter(|| Icmpv4Message::parse(black_box(&echo))));
}

criterion_group!(benches, ethernet, ipv4, tcp, udp, others);
criterion_main!(benches);
