//! The short way in does what the long way does: the same conversation, once with bursts, which
//! take it, and once frame by frame, which do not.

mod frames;
mod random;
mod talk;

use std::net::SocketAddr;

use barewire_driver::MacAddr;
use barewire_stack::wire::ethernet::ethertype;
use barewire_stack::{
    Family, Share, SocketError, SocketId, SocketKind, SocketOption, StackCounters,
};

use frames::{moved, nobodys, segment_of, syn};
use talk::{Talk, Way, addr, assert_same};

impl Talk {
    fn streams(&mut self) {
        let (client, server) = self.connected();
        for len in [1, 64, 128, 129, 1448, 5000, 20_000] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            self.send((0, client), server, &bytes);
            self.send((1, server), client, &bytes);
            self.wait(50);
        }
        self.damaged();
        self.send((0, client), server, b"after the damage");
        self.stack(0).close(client).unwrap();
        self.settle();
        assert_eq!(self.stack(1).read(server, &mut [0; 1]), Ok(0));
        self.stack(1).close(server).unwrap();
        self.settle();
        let refused = self.stack(0).socket(SocketKind::Tcp, Family::V4).unwrap();
        assert!(self.stack(0).connect(refused, addr(1, 81)).is_err());
        self.settle();
    }

    fn datagrams(&mut self) {
        let sockets = self.udp_sockets(7);
        for len in [0, 1, 64, 128, 129, 1472, 4000] {
            let (bytes, mut read) = (vec![len as u8; len], vec![0; len + 1]);
            for from in [0, 1] {
                let to = Some(addr(1 - from, 7));
                assert_eq!(self.stack(from).send_to(sockets[from], &bytes, to), Ok(len));
                self.settle();
                let got = self.stack(1 - from).recv_from(sockets[1 - from], &mut read).unwrap();
                assert_eq!((got.len, got.from), (len, addr(from, 7)));
                assert_eq!(read[..len], bytes);
            }
        }
        assert_eq!(self.stack(0).send_to(sockets[0], b"x", Some(addr(1, 8))), Ok(1));
        self.settle();
        for _ in 0..4 {
            assert_eq!(self.stack(0).send_to(sockets[0], b"again", Some(addr(1, 7))), Ok(5));
            self.settle();
        }
        self.damaged();
        while self.stack(1).recv_from(sockets[1], &mut [0; 9]).is_ok() {}
    }

    /// The last frame that host 0 has sent comes again, damaged in each of its bytes.
    fn damaged(&mut self) {
        let last = self.sent.iter().rev().find(|(host, _)| *host == 0);
        let (_, frame) = last.unwrap().clone();
        for at in 0..frame.len() {
            for bits in [0x01, 0x80] {
                let mut damaged = frame.clone();
                damaged[at] ^= bits;
                self.deliver(1, &damaged);
                self.settle();
            }
        }
    }

    /// One sender's datagrams, while the sockets on the port that they go to change.
    fn moving(&mut self) {
        let from = self.stack(0).socket(SocketKind::Udp, Family::V4).unwrap();
        self.stack(0).bind(from, addr(0, 1000)).unwrap();
        let open = |talk: &mut Talk, to: SocketAddr| {
            let socket = talk.stack(1).socket(SocketKind::Udp, Family::V4).unwrap();
            talk.stack(1).set_option(socket, SocketOption::ReuseAddr(true)).unwrap();
            talk.stack(1).bind(socket, to).unwrap();
            socket
        };
        // Several each time: the first of them makes the sender known.
        let reaches = |talk: &mut Talk, socket: SocketId| {
            for _ in 0..4 {
                assert_eq!(talk.stack(0).send_to(from, b"x", Some(addr(1, 53))), Ok(1));
                talk.settle();
                assert_eq!(talk.stack(1).recv_from(socket, &mut [0; 9]).unwrap().len, 1);
            }
        };
        let wide = open(self, SocketAddr::from(([0, 0, 0, 0], 53)));
        reaches(self, wide);
        let exact = open(self, addr(1, 53));
        reaches(self, exact);
        self.stack(1).connect(exact, addr(0, 9)).unwrap();
        reaches(self, wide);
        self.stack(1).connect(exact, addr(0, 1000)).unwrap();
        reaches(self, exact);
        self.stack(1).close(exact).unwrap();
        reaches(self, wide);
        self.stack(1).connect(wide, addr(0, 9)).unwrap();
        assert_eq!(self.stack(0).send_to(from, b"x", Some(addr(1, 53))), Ok(1));
        self.settle();
        assert!(self.stack(1).recv_from(wide, &mut [0; 9]).is_err());
        assert_eq!(self.stack(1).counters().udp_no_socket, 2, "one of them long ago");
    }
}

/// The whole conversation: what was sent, and what both hosts have counted.
fn conversation(way: Way) -> (Vec<(usize, Vec<u8>)>, [StackCounters; 2]) {
    let mut talk = Talk::new(way);
    talk.streams();
    talk.datagrams();
    talk.moving();
    for (stack, _) in &talk.hosts {
        let held = stack.pool().audit().held;
        assert_eq!(held, 0, "packet memory is held after the conversation");
    }
    let counters = talk.counters();
    (talk.sent, counters)
}

#[test]
fn both_ways_in_lead_to_the_same_conversation() {
    let (short, short_counters) = conversation(Way::Short);
    let (long, long_counters) = conversation(Way::Long);
    assert!(short.len() > 50);
    assert_same("frame", &short, &long);
    assert_eq!(short_counters, long_counters);
}

#[test]
fn headers_that_are_kept_follow_what_they_are_made_of() {
    let mut talk = Talk::new(Way::Short);
    let (client, server) = talk.connected();
    let socket = talk.stack(0).socket(SocketKind::Udp, Family::V4).unwrap();
    talk.stack(0).bind(socket, addr(0, 7)).unwrap();
    let say = |talk: &mut Talk, tos: u8, ttl: u8, to: MacAddr| {
        for id in [client, socket] {
            talk.stack(0).set_option(id, SocketOption::Tos(tos)).unwrap();
            talk.stack(0).set_option(id, SocketOption::Ttl(ttl)).unwrap();
        }
        // The first makes the headers, the second takes those that are kept.
        for _ in 0..2 {
            let before = talk.sent.len();
            assert_eq!(talk.stack(0).write(client, b"a message"), Ok(9));
            assert_eq!(talk.stack(0).send_to(socket, b"a datagram", Some(addr(1, 9))), Ok(10));
            talk.settle();
            let sent = talk.sent[before..].iter().filter(|(host, _)| *host == 0);
            let is_ip = |frame: &&Vec<u8>| frame[12..14] == ethertype::IPV4.to_be_bytes();
            let frames: Vec<_> = sent.map(|(_, frame)| frame).filter(is_ip).collect();
            assert!(frames.len() >= 2);
            for frame in frames {
                assert_eq!((&frame[..6], frame[15], frame[22]), (&to.0[..], tos, ttl));
            }
        }
    };
    say(&mut talk, 0, 64, MacAddr::local(2));
    say(&mut talk, 0x48, 64, MacAddr::local(2));
    say(&mut talk, 0x48, 9, MacAddr::local(2));
    let mut read = [0; 100];
    assert_eq!(talk.stack(1).read(server, &mut read), Ok(6 * 9));
    talk.deliver(0, &moved(MacAddr::local(77)));
    say(&mut talk, 0, 64, MacAddr::local(77));
}

#[test]
fn a_frame_of_zeros_is_nobodys() {
    for way in [Way::Short, Way::Long] {
        let mut talk = Talk::new(way);
        let (client, server) = talk.connected();
        talk.send((1, server), client, b"hello");
        talk.send((0, client), server, b"world");
        let (_, last) = talk.sent.iter().rev().find(|(host, _)| *host == 1).unwrap();
        let (mut next, text) = segment_of(last);
        next.seq = next.seq.wrapping_add(text.len() as u32);
        let forged = nobodys(&next, b"forged");
        let before = talk.counters()[0];
        talk.deliver(0, &forged);
        let after = talk.counters()[0];
        let read = talk.stack(0).read(client, &mut [0; 16]);
        assert_eq!(read, Err(SocketError::WouldBlock), "{way:?}");
        assert_eq!(after.tcp_segments_received, before.tcp_segments_received, "{way:?}");
        assert_eq!(after.rx_other_host, before.rx_other_host + 1, "{way:?}");
    }
}

/// SYNs of a turn, and turns.
const SYNS: u16 = 20;
const TURNS: u16 = 4;

/// What host 1 has made of all SYNs.
#[derive(Debug, PartialEq)]
struct Opened {
    half_open: usize,
    counters: StackCounters,
}

/// Sends SYNs to a host that is behind by as much as sheds a half of them. It has so many engines, of
/// which the first gets all frames, and so many slots of its memory are taken.
fn behind(way: Way, engines: u16, taken: usize) -> Opened {
    let mut talk = Talk::with(way, |config| config.share = Share::group(1, engines).remove(0));
    talk.listen(80, 128);
    let pool = talk.stack(1).pool().clone();
    let _taken: Vec<_> = (0..taken).map(|_| pool.alloc().unwrap()).collect();
    for turn in 0..TURNS {
        talk.stack(1).note_turn(112, 256);
        for src_port in (2000 + turn * SYNS..).take(SYNS.into()) {
            talk.deliver(1, &syn(src_port, 80));
        }
    }
    Opened { half_open: talk.stack(1).half_open(), counters: talk.counters()[1] }
}

#[test]
fn a_syn_is_drawn_once() {
    // With 200 of 256 slots taken, the short way leaves everything to the long one, as it leaves to
    // it what is another engine's.
    for (engines, taken) in [(1, 0), (1, 200), (2, 0), (2, 200)] {
        let [short, long] = [Way::Short, Way::Long].map(|way| behind(way, engines, taken));
        for Opened { half_open, counters } in [&short, &long] {
            // Two turns have to be behind, and in the second SYNs are counted: the last two shed.
            assert_eq!(counters.listen_shed, 20, "{engines} engines, {taken} slots are taken");
            assert_eq!(*half_open as u64 + counters.forwarded, 60);
            assert_eq!(counters.forwarded > 0, engines > 1);
        }
        assert_eq!(short, long, "{engines} engines, {taken} slots are taken");
    }
}
