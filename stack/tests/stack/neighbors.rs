//! ARP: asking, answering, and bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::MacAddr;
use barewire_stack::sim::Pair;
use barewire_stack::wire::arp::{ArpPacket, Operation};
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};

use super::udp;

fn absent(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 9))
}

fn request(from: u32, target: Ipv4Addr) -> [u8; 42] {
    let mac = MacAddr::local(u64::from(from) + 1000);
    let mut frame = [0; 42];
    let ether = EthernetHeader { dst: MacAddr::BROADCAST, src: mac, ethertype: ethertype::ARP };
    ether.emit(&mut frame);
    let arp = ArpPacket {
        operation: Operation::Request,
        sender_mac: mac,
        sender_ip: Ipv4Addr::from_bits(0x0a01_0000 + from),
        target_mac: MacAddr::default(),
        target_ip: target,
    };
    arp.emit(&mut frame[EthernetHeader::LEN..]);
    frame
}

#[test]
fn one_exchange_serves_both_directions() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    pair.connect(listener);
    let arps = |p: &Pair| p.frames().iter().filter(|f| f.bytes[12..14] == [0x08, 0x06]).count();
    assert_eq!(arps(&pair), 2, "a request and its answer");
    pair.connect(listener);
    assert_eq!(arps(&pair), 2);
}

#[test]
fn packets_wait_for_the_answer_and_leave_in_order() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    for i in 0..3 {
        pair.client().send_to(a, &[i], Some(Pair::server_addr(53))).unwrap();
    }
    pair.settle();
    let mut out = [9; 1];
    for i in 0..3 {
        pair.server().recv_from(b, &mut out).unwrap();
        assert_eq!(out[0], i);
    }
}

#[test]
fn packets_for_nobody_are_bounded_given_up_and_counted() {
    let mut pair = Pair::new();
    let a = udp(pair.client(), 1000);
    for host in 100..200 {
        for _ in 0..50 {
            pair.client().send_to(a, &[0; 100], Some(absent(host))).unwrap();
        }
        pair.settle();
    }
    let held = pair.host(0).pool.audit().held;
    assert!(held < 2_500, "{held} slots wait for 100 absent hosts");
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.host(0).pool.audit().held, 256, "what the card has posted");
    let counters = *pair.client().counters();
    let lost = counters.tx_no_neighbor + counters.tx_neighbor_queue_full;
    assert!(lost > 0 && counters.arp_requests_sent >= 300, "{counters:?}");
}

#[test]
fn a_flood_of_requests_costs_no_memory_and_keeps_nobody_out() {
    let mut pair = Pair::new();
    let (iface, own) = (pair.host(1).iface(), Ipv4Addr::new(10, 0, 0, 2));
    for from in 0..20_000 {
        let now = pair.now();
        pair.server().handle_bytes(now, iface, &request(from, own)).unwrap();
        if from % 1_000 == 0 {
            pair.settle();
        }
    }
    let dropped = pair.server().counters().tx_reply_overflow;
    assert!(dropped > 10_000, "{dropped} answers had no room");
    pair.settle();
    assert_eq!(pair.host(1).pool.audit().held, 256, "what the card has posted");
    let listener = pair.listen(80, 1);
    pair.connect(listener);
}

#[test]
fn requests_for_others_are_not_answered() {
    let mut pair = Pair::new();
    let (iface, now) = (pair.host(1).iface(), pair.now());
    let frame = request(1, Ipv4Addr::new(10, 0, 0, 7));
    pair.server().handle_bytes(now, iface, &frame).unwrap();
    pair.settle();
    assert_eq!(pair.frames().len(), 0);
}
