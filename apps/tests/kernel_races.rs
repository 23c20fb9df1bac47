//! Ends that cross those of the Linux kernel on the wire: both sides close at once, with and without
//! data under way or unread, one resets while the other writes, reads, or has ended its direction.

mod interop;

use std::io::{ErrorKind, Write};
use std::net::{self, Shutdown};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use barewire::{TcpConfig, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{CHUNK, Known, receive, send, send_some};
use interop::{Host, in_namespace, join, linux, ours, route, start, tell, wait_until, wire};

/// Connections of each kind.
const ROUNDS: usize = 20;

/// A wire so long that what both sides do at the same moment crosses on it.
const LONG_WIRE: &str = "delay=5ms";

/// A wire that loses, repeats and reorders, too.
const BAD_WIRE: &str = "seed=3,delay=2ms,loss=2%,reorder=5%,duplicate=5%";

/// A wire on which the order of a reset and of data before it is not kept. It loses nothing: a reader
/// whose peer's reset is lost has nothing to learn of it by.
const UNORDERLY_WIRE: &str = "seed=6,delay=1ms,reorder=10%,duplicate=10%";

/// What is under way in both directions when both close.
const UNDER_WAY: u64 = 256 * 1024;

fn host_behind(faults: &str) -> Host {
    let tcp = TcpConfig { rto_min: Duration::from_millis(20), ..TcpConfig::default() };
    let host = Host::with(|builder| builder.tcp(tcp).faults(wire(faults)));
    route("rto_min 20ms");
    host
}

/// Connections between a blocking listener of ours and the kernel.
struct Pairs {
    listener: TcpListener,
}

impl Pairs {
    fn new(host: &Host) -> Pairs {
        Pairs { listener: TcpListener::bind_on(host.bw(), ours(7001)).unwrap() }
    }

    fn next(&self) -> (TcpStream, net::TcpStream) {
        let theirs = net::TcpStream::connect(ours(7001)).unwrap().patiently();
        (self.listener.take(), theirs)
    }
}

/// Starts both with as little between them as threads allow.
fn at_once<A: Send + 'static, B: Send + 'static>(
    a: impl FnOnce() -> A + Send + 'static,
    b: impl FnOnce() -> B + Send + 'static,
) -> (A, B) {
    let both = Arc::new(Barrier::new(2));
    let other = both.clone();
    let thread = start(move || {
        other.wait();
        a()
    });
    both.wait();
    let b = b();
    (join(thread), b)
}

/// How many connections are in TIME-WAIT, on our side and on theirs.
fn in_time_wait(host: &Host) -> (usize, usize) {
    let ours = host.bw().stats().engines.iter().map(|engine| engine.time_wait).sum();
    (ours, linux::sockets_in("time-wait"))
}

/// Nothing is left of any connection but what is in TIME-WAIT: our listener is all.
fn assert_all_gone(host: &Host) {
    wait_until("no socket of ours is left", || host.bw().stats().sockets() == 1);
    wait_until("no socket of theirs is left", || {
        linux::sockets_in("connected") == linux::sockets_in("time-wait")
    });
}

#[test]
fn ends_that_cross_end_both_sides() {
    in_namespace("ends_that_cross_end_both_sides", || {
        fn end(mut conn: impl Conn) {
            conn.end(Shutdown::Write).unwrap();
            assert_eq!(conn.read(&mut [0]).unwrap(), 0);
        }
        let host = host_behind(LONG_WIRE);
        let pairs = Pairs::new(&host);
        for _ in 0..ROUNDS {
            let (mine, theirs) = pairs.next();
            at_once(move || end(mine), move || end(theirs));
        }
        assert_all_gone(&host);
        // An end that is first has one side in TIME-WAIT; ends that cross have both (RFC 9293
        // figure 13).
        let (mine, theirs) = in_time_wait(&host);
        tell(&format!("  of {ROUNDS}, {mine} in our TIME-WAIT and {theirs} in theirs"));
        assert!(mine + theirs > ROUNDS, "none crossed: {mine} and {theirs}");
        drop(pairs);
        host.stop();
    });
}

#[test]
fn data_before_ends_that_cross_arrives() {
    in_namespace("data_before_ends_that_cross_arrives", || {
        fn end(conn: impl Conn, out: u64, back: u64) {
            let reading = conn.another();
            let sender = start(move || send(conn, out, UNDER_WAY));
            assert_eq!(receive(reading, back).bytes, UNDER_WAY);
            join(sender);
        }
        let host = host_behind(BAD_WIRE);
        let pairs = Pairs::new(&host);
        for _ in 0..ROUNDS {
            let (mine, theirs) = pairs.next();
            at_once(move || end(mine, 1, 2), move || end(theirs, 2, 1));
        }
        assert_all_gone(&host);
        drop(pairs);
        host.stop();
    });
}

/// What a side does with data that it has and has not read when both end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Closes and leaves it unread, which resets.
    Unread,
    /// Reads it and closes.
    Read,
    /// Closes with no time to linger, which resets.
    Reset,
}

const UNREAD: &[u8] = b"unread";

/// Ends one side of a connection.
fn end(mut conn: impl Reset, how: End) {
    match how {
        End::Unread => drop(conn),
        End::Read => {
            // The other side's reset may be faster.
            if let Err(error) = conn.read_exact(&mut [0; UNREAD.len()]) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
        End::Reset => conn.reset(),
    }
}

/// A connection that can be closed by a reset.
trait Reset: Conn {
    fn reset(self);
}

impl Reset for TcpStream {
    fn reset(self) {
        self.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Reset for net::TcpStream {
    fn reset(self) {
        linux::reset(self);
    }
}

#[test]
fn resets_that_cross_resets_and_ends_leave_nothing() {
    in_namespace("resets_that_cross_resets_and_ends_leave_nothing", || {
        let host = host_behind(LONG_WIRE);
        let pairs = Pairs::new(&host);
        let ways = [
            (End::Unread, End::Unread),
            (End::Unread, End::Read),
            (End::Read, End::Unread),
            (End::Reset, End::Reset),
            (End::Reset, End::Read),
            (End::Read, End::Reset),
        ];
        for (mine_ends, theirs_ends) in ways {
            for _ in 0..ROUNDS / 4 {
                let (mut mine, mut theirs) = pairs.next();
                mine.write_all(UNREAD).unwrap();
                theirs.write_all(UNREAD).unwrap();
                assert!(mine.peek(&mut [0]).unwrap() > 0);
                assert!(theirs.peek(&mut [0]).unwrap() > 0);
                at_once(move || end(mine, mine_ends), move || end(theirs, theirs_ends));
            }
            assert_all_gone(&host);
            let waiting = in_time_wait(&host);
            assert_eq!(waiting, (0, 0), "a reset ends it: {mine_ends:?} and {theirs_ends:?}");
        }
        drop(pairs);
        host.stop();
    });
}

/// Writes until the other side has reset the connection.
fn write_until_reset(mut conn: impl Conn) {
    let block = vec![7; CHUNK];
    let error = loop {
        if let Err(error) = conn.write(&block) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert_eq!(conn.write(&block).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// Reads some and resets while more comes.
fn reset_after(mut conn: impl Reset, bytes: u64) {
    let mut left = bytes;
    let mut buf = vec![0; CHUNK];
    while left > 0 {
        let n = conn.read(&mut buf).unwrap();
        assert!(n > 0 && buf[..n].iter().all(|&byte| byte == 7), "after {left}");
        left = left.saturating_sub(n as u64);
    }
    conn.reset();
}

#[test]
fn a_reader_that_resets_stops_the_writer() {
    in_namespace("a_reader_that_resets_stops_the_writer", || {
        let host = host_behind(BAD_WIRE);
        let pairs = Pairs::new(&host);
        for round in 0..ROUNDS as u64 / 2 {
            let bytes = round * 100_000;
            let (mine, theirs) = pairs.next();
            at_once(move || write_until_reset(mine), move || reset_after(theirs, bytes));
            let (mine, theirs) = pairs.next();
            at_once(move || reset_after(mine, bytes), move || write_until_reset(theirs));
        }
        assert_all_gone(&host);
        drop(pairs);
        host.stop();
    });
}

/// Writes some and resets while it is on its way.
fn write_and_reset(mut conn: impl Reset, bytes: u64) {
    let mut known = Known::new(bytes);
    send_some(&mut conn, &mut known, bytes);
    conn.reset();
}

/// Reads what arrives before the reset: the front of the stream, and nothing but it.
fn read_until_reset(mut conn: impl Conn, bytes: u64) {
    let mut known = Known::new(bytes);
    let mut buf = vec![0; CHUNK];
    let error = loop {
        match conn.read(&mut buf) {
            Ok(0) => panic!("an end instead of a reset"),
            Ok(n) => known.check(&buf[..n]),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(known.sum().bytes <= bytes);
}

#[test]
fn a_writer_that_resets_is_told_to_the_reader() {
    in_namespace("a_writer_that_resets_is_told_to_the_reader", || {
        let host = host_behind(UNORDERLY_WIRE);
        let pairs = Pairs::new(&host);
        for round in 1..=ROUNDS as u64 / 2 {
            let bytes = round * 100_000;
            let (mine, theirs) = pairs.next();
            at_once(move || write_and_reset(mine, bytes), move || read_until_reset(theirs, bytes));
            let (mine, theirs) = pairs.next();
            at_once(move || read_until_reset(mine, bytes), move || write_and_reset(theirs, bytes));
        }
        assert_all_gone(&host);
        drop(pairs);
        host.stop();
    });
}

/// Ends its direction, and hears a reset instead of the other's end. Whichever call is the first
/// after the reset tells.
fn shut_down_and_hear_a_reset(mut conn: impl Conn) {
    let written = conn.write_all(UNREAD);
    let heard = written.and_then(|()| conn.end(Shutdown::Write)).and_then(|()| conn.read(&mut [0]));
    let error = heard.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// Hears the other's end, in CLOSE-WAIT, and resets.
fn hear_the_end_and_reset(mut conn: impl Reset) {
    let mut heard = Vec::new();
    conn.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, UNREAD);
    conn.reset();
}

#[test]
fn a_reset_after_an_end_ends_it_at_once() {
    in_namespace("a_reset_after_an_end_ends_it_at_once", || {
        let host = host_behind(UNORDERLY_WIRE);
        let pairs = Pairs::new(&host);
        for round in 0..ROUNDS {
            let (mine, theirs) = pairs.next();
            if round % 2 == 0 {
                let reset = move || hear_the_end_and_reset(theirs);
                at_once(move || shut_down_and_hear_a_reset(mine), reset);
            } else {
                let reset = move || hear_the_end_and_reset(mine);
                at_once(reset, move || shut_down_and_hear_a_reset(theirs));
            }
        }
        assert_all_gone(&host);
        assert_eq!(in_time_wait(&host), (0, 0), "a reset leaves none");
        // The reset is under way at the same moment as the end.
        for round in 0..ROUNDS {
            let (mine, theirs) = pairs.next();
            if round % 2 == 0 {
                at_once(move || shut_down_and_hear_a_reset(mine), move || theirs.reset());
            } else {
                at_once(move || mine.reset(), move || shut_down_and_hear_a_reset(theirs));
            }
        }
        assert_all_gone(&host);
        assert_eq!(in_time_wait(&host), (0, 0), "a reset leaves none");
        drop(pairs);
        host.stop();
    });
}
