//! Fast open, the client's side (RFC 7413 §4.2.1), and data of the server's that is lost.

use std::cell::RefCell;
use std::net::IpAddr;

use super::*;
use crate::tcp::fast_open::{Cache, FastConnect, FastOpenQueue};
use crate::tcp::tcb::Status;
use crate::wire::tcp::{self, FastOpenCookie};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// A cache that has had a cookie, and an MSS of 1460, from `SERVER`.
fn cache() -> Rc<RefCell<Cache>> {
    let cache = Rc::new(RefCell::new(Cache::new(4)));
    let mut t = Trace::connecting(plain());
    assert!(!t.tcb.open_fast(&cache, SERVER, FastConnect::AtOnce, t.now), "none is known yet");
    let options = TcpOptions {
        mss: Some(1460),
        fast_open: FastOpenCookie::new(&[7; 8]),
        ..TcpOptions::default()
    };
    t.tcb.learn_cookie(&TcpHeader { options, ..TcpHeader::default() });
    cache
}

/// An active open with that cookie.
fn connecting(cache: &Rc<RefCell<Cache>>, how: FastConnect) -> Trace {
    let mut t = Trace::connecting(plain());
    assert!(t.tcb.open_fast(cache, SERVER, how, t.now));
    t
}

#[test]
fn a_syn_waits_for_data_if_it_is_told_to() {
    let mut t = connecting(&cache(), FastConnect::AtOnce);
    t.tx("S 0");
    assert!(!t.tcb.status.contains(Status::PROBED), "nothing went with it");
    let mut t = connecting(&cache(), FastConnect::WithData);
    t.quiet();
    t.write(100);
    let (syn, data) = t.poll().expect("a SYN");
    assert_eq!((syn.header.flags, data), (TcpFlags::SYN, bytes(1, 101)));
    assert_eq!(syn.header.options.fast_open, FastOpenCookie::new(&[7; 8]));
    assert_eq!(t.tcb.write(&t.pool, b"more"), Err(SocketError::WouldBlock), "the SYN is out");
    t.rx("SA 0 ack 101 win 65535 mss 1460");
    t.tx("A 101 ack 1");
    assert_eq!(t.tcb.bytes_unacked() + t.tcb.bytes_unsent(), 0);
    t.state("ESTABLISHED");
}

#[test]
fn a_syn_with_data_that_is_lost_is_repeated_without_and_the_server_gets_none_for_a_while() {
    // RFC 7413 §4.1.3 and §4.1.3.1.
    let cache = cache();
    let mut t = connecting(&cache, FastConnect::WithData);
    t.write(100);
    assert!(t.poll().is_some());
    t.wait_for_timer();
    let (syn, data) = t.poll().expect("the SYN again");
    assert_eq!((syn.header.flags, data.len()), (TcpFlags::SYN, 0));
    assert_eq!(syn.header.options.fast_open, None);
    assert_eq!(cache.borrow().get(SERVER, t.now), None);
    t.rx("SA 0 ack 1 win 65535 mss 1460");
    t.tx("PA 1:101 ack 1");
}

#[test]
fn a_syn_without_data_that_is_lost_blocks_nothing() {
    let cache = cache();
    let mut t = connecting(&cache, FastConnect::AtOnce);
    t.tx("S 0");
    t.wait_for_timer();
    t.tx("S 0");
    assert!(cache.borrow().get(SERVER, t.now).is_some());
}

#[test]
fn what_does_not_fit_the_syn_waits_for_the_end_of_a_simultaneous_open() {
    let mut t = connecting(&cache(), FastConnect::WithData);
    t.write(3000);
    let (syn, data) = t.poll().expect("a SYN");
    assert_eq!(syn.header.header_len() - tcp::LEN + data.len(), 1460, "what both links take");
    t.rx("S 0 win 65535 mss 1460");
    t.tx("SA 0 ack 1");
    t.quiet();
    t.state("SYN-RECEIVED");
}

#[test]
fn whom_a_cookie_has_let_in_waits_for_no_handshake() {
    // RFC 7413 §4.2.2.
    let (config, now) = (Rc::new(plain()), Instant::from_millis(100_000));
    let options = TcpOptions { mss: Some(1460), ..TcpOptions::default() };
    let syn = TcpHeader { seq: IRS, flags: TcpFlags::SYN, options, ..TcpHeader::default() };
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    let half = HalfOpen::new(now, &syn, &config, open);
    let place = Rc::new(FastOpenQueue::default()).take_place(1, now).unwrap();
    let segment = Segment {
        header: &syn,
        payload: &mut Vec::new(),
        payload_len: 0,
        wire_segments: 1,
        ecn: Ecn::NotEct,
        memory: Memory::Plenty,
    };
    let (tcb, syn_ack) = half.into_fast_open(now, Rc::clone(&config), segment, place);
    assert_eq!((tcb.state(), syn_ack.ack), (State::SynReceived, IRS + 1));
    assert!(!tcb.is_connecting());
    assert_eq!(tcb.rcv.quick_acks, config.quick_acks, "no text has come");
    assert!(Trace::connecting(plain()).tcb.is_connecting(), "without a cookie");
    assert!(!Trace::established(plain()).tcb.is_connecting());
}
