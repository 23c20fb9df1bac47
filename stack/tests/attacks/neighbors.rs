//! ARP: floods of requests, and answers that nobody asked for.

use std::net::Ipv4Addr;
use std::time::Duration;

use barewire_driver::MacAddr;
use barewire_stack::sim::Pair;
use barewire_stack::wire::arp::{ArpPacket, Operation};
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};

fn arp(operation: Operation, mac: MacAddr, ip: Ipv4Addr, target: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    let dst = MacAddr::local(2);
    EthernetHeader { dst, src: mac, ethertype: ethertype::ARP }.emit(&mut frame);
    let (target_mac, target_ip) = (dst, target);
    let packet = ArpPacket { operation, sender_mac: mac, sender_ip: ip, target_mac, target_ip };
    packet.emit(&mut frame[EthernetHeader::LEN..]);
    frame
}

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

#[test]
fn a_flood_of_strangers_leaves_the_neighbours_in_use_alone() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let (client, server) = pair.connect(listener);
    let requests_before = pair.server().counters().arp_requests_sent;
    let iface = pair.host(1).iface();
    for i in 0..50_000u32 {
        let (mac, ip) = (MacAddr::local(u64::from(i) + 1000), Ipv4Addr::from_bits(0x0a01_0000 + i));
        let now = pair.now();
        let request = arp(Operation::Request, mac, ip, OWN);
        pair.server().handle_bytes(now, iface, &request).unwrap();
        if i % 500 == 0 {
            pair.client().write(client, b"ping").unwrap();
            pair.run_for(Duration::from_millis(1));
            let mut out = [0; 16];
            assert_eq!(pair.server().read(server, &mut out), Ok(4), "after {i} requests");
            pair.server().write(server, b"pong").unwrap();
            pair.run_for(Duration::from_millis(1));
            assert_eq!(pair.client().read(client, &mut out), Ok(4));
        }
    }
    let asked = pair.server().counters().arp_requests_sent - requests_before;
    assert_eq!(asked, 0, "the client's address was never forgotten");
}

#[test]
fn answers_that_nobody_asked_for_make_no_neighbour() {
    let mut pair = Pair::new();
    let iface = pair.host(1).iface();
    let (mac, ip) = (MacAddr::local(666), Ipv4Addr::new(10, 0, 0, 77));
    let now = pair.now();
    // Not addressed to this host's IP, as a gratuitous answer is.
    pair.server().handle_bytes(now, iface, &arp(Operation::Reply, mac, ip, ip)).unwrap();
    let socket = udp(&mut pair);
    pair.server().send_to(socket, b"x", Some((ip, 9).into())).unwrap();
    pair.run_for(Duration::from_millis(10));
    let to_stranger = pair.frames().iter().filter(|f| f.host == 1 && f.bytes[..6] == mac.0).count();
    assert_eq!(to_stranger, 0, "it is asked for, not believed");
    assert_eq!(pair.server().counters().arp_requests_sent, 1);
}

#[test]
fn nobody_takes_this_hosts_own_address_or_a_groups() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let (client, server) = pair.connect(listener);
    let iface = pair.host(1).iface();
    let before = pair.server().counters().arp_invalid;
    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 1]);
    let now = pair.now();
    for (mac, ip) in [(MacAddr::local(666), OWN), (group, Ipv4Addr::new(10, 0, 0, 1))] {
        pair.server().handle_bytes(now, iface, &arp(Operation::Reply, mac, ip, OWN)).unwrap();
    }
    assert_eq!(pair.server().counters().arp_invalid - before, 2);
    pair.server().write(server, b"to the client").unwrap();
    pair.settle();
    let mut out = [0; 32];
    assert_eq!(pair.client().read(client, &mut out), Ok(13));
}

fn udp(pair: &mut Pair) -> barewire_stack::SocketId {
    let stack = pair.server();
    let socket = stack.socket(barewire_stack::SocketKind::Udp, barewire_stack::Family::V4).unwrap();
    stack.bind(socket, (Ipv4Addr::UNSPECIFIED, 5000).into()).unwrap();
    socket
}
