//! Explicit congestion notification with the Linux kernel (RFC 3168): marks that its packet filter
//! sets, as a router does, are echoed by whoever receives them and heard by whoever sent the data.
//!
//! ```text
//!   us ── data, ECT(0) ──▶ filter ── CE ──▶ kernel         and the same the other way
//!   us ◀──────────── ECE, until CWR ─────── kernel
//! ```

mod interop;

use std::net;
use std::process::Command;

use barewire::{TcpConfig, TcpListener, TcpStream};
use barewire_stack::tcp::EcnMode;
use interop::conn::{Conn, Listen};
use interop::linux;
use interop::stream::{MIB, both_ways};
use interop::{Host, KERNEL, in_namespace, join, kernel, ours, start, tell, wire};

/// What each direction carries.
const BYTES: u64 = 16 * MIB;

/// Seeds of the two directions.
const FROM_KERNEL: u64 = 31;
const TO_KERNEL: u64 = 32;

/// Reordering and repetition: marks and their echoes get out of order.
const BAD_WIRE: &str = "seed=8,reorder=2%,duplicate=1%";

/// One packet in twenty gets a mark where it may have one, and what each side says is counted: ECE
/// and CWR after the handshake, in which they mean something else.
const FILTER: &str = "
    table ip marks {
        counter marked_to_kernel {}
        counter marked_to_us {}
        counter ece_from_us {}
        counter ece_from_kernel {}
        counter cwr_from_us {}
        counter cwr_from_kernel {}
        chain arriving {
            type filter hook prerouting priority -150;
            tcp flags & (syn | ecn) == ecn counter name ece_from_us
            tcp flags & (syn | cwr) == cwr counter name cwr_from_us
            ip ecn ect0 numgen random mod 20 0 ip ecn set ce counter name marked_to_kernel
        }
        chain leaving {
            type filter hook output priority -150;
            tcp flags & (syn | ecn) == ecn counter name ece_from_kernel
            tcp flags & (syn | cwr) == cwr counter name cwr_from_kernel
            ip ecn ect0 numgen random mod 20 0 ip ecn set ce counter name marked_to_us
        }
    }";

/// Runs `nft`, or says why that is not possible.
fn nft(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("nft").args(arguments).output();
    let output = output.map_err(|error| format!("nft: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A counter of the filter, which begins again from 0.
fn counted(name: &str) -> u64 {
    let text = nft(&["reset", "counter", "ip", "marks", name]).unwrap();
    let number = text.split_whitespace().skip_while(|&word| word != "packets").nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Both sides have been told of marks on what they sent, and have said that they slowed down.
fn assert_marks_were_answered(name: &str) {
    let (marked_to_kernel, marked_to_us) = (counted("marked_to_kernel"), counted("marked_to_us"));
    let (ece_from_us, ece_from_kernel) = (counted("ece_from_us"), counted("ece_from_kernel"));
    let (cwr_from_us, cwr_from_kernel) = (counted("cwr_from_us"), counted("cwr_from_kernel"));
    tell(&format!(
        "  {name}: to the kernel {marked_to_kernel} marks, {ece_from_kernel} echoes, {cwr_from_us} \
         reductions; to us {marked_to_us}, {ece_from_us}, {cwr_from_kernel}"
    ));
    assert!(marked_to_kernel > 0 && marked_to_us > 0, "nothing was marked");
    assert!(ece_from_kernel > 0 && ece_from_us > 0, "nothing was echoed");
    assert!(cwr_from_us > 0, "we did not slow down");
    assert!(cwr_from_kernel > 0, "the kernel did not slow down: it has not heard our echo");
}

fn transfers(host: &Host) {
    let both = |conn: TcpStream| both_ways(conn, TO_KERNEL, FROM_KERNEL, BYTES);
    let kernels = |conn: net::TcpStream| both_ways(conn.patiently(), FROM_KERNEL, TO_KERNEL, BYTES);

    let listener = TcpListener::bind_on(host.bw(), ours(7001)).unwrap();
    let server = start(move || both(listener.take()));
    let theirs = kernels(net::TcpStream::connect(ours(7001)).unwrap());
    let mine = join(server);
    assert_eq!((theirs.0, mine.0), (mine.1, theirs.1));
    assert_marks_were_answered("we serve");

    let listener = net::TcpListener::bind((KERNEL, 7002)).unwrap();
    let server = start(move || kernels(listener.take()));
    let mine = both(TcpStream::connect_on(host.bw(), kernel(7002)).unwrap().patiently());
    let theirs = join(server);
    assert_eq!((theirs.0, mine.0), (mine.1, theirs.1));
    assert_marks_were_answered("the kernel serves");
}

/// Both kinds of wire share a test: it begins with the filter.
#[test]
fn marks_of_congestion_are_echoed_and_heard() {
    let name = "marks_of_congestion_are_echoed_and_heard";
    in_namespace(name, move || {
        if let Err(reason) = nft(&[FILTER]) {
            return tell(&format!("SKIPPED {name}: the kernel cannot set marks: {reason}"));
        }
        linux::set_ipv4(&[("tcp_ecn", "1")]);
        let tcp = TcpConfig { ecn: EcnMode::Request, ..TcpConfig::default() };
        // With super-segments, whose marks and flags stand for all of their parts.
        let host = Host::with(|builder| builder.tcp(tcp.clone()));
        transfers(&host);
        host.stop();
        let host = Host::with(|builder| builder.tcp(tcp).faults(wire(BAD_WIRE)));
        transfers(&host);
        host.stop();
    });
}
