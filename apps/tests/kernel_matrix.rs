//! What we and the Linux kernel agree on: each congestion controller of ours against each of the
//! kernel's, and SACK, timestamps, window scaling and ECN switched off one by one on either side.
//! Every combination moves known streams both ways over a bad wire, with either side as the client,
//! and `ss` on the kernel's side tells what was really negotiated.
//!
//! The kernel's controllers are set for each socket: a namespace may not choose any as its default
//! that the first namespace does not allow to all, but whoever administers it may for a socket.

mod interop;

use std::net::{self, Shutdown};
use std::sync::mpsc::channel;
use std::time::Duration;

use barewire::{AsyncTcpStream, TcpConfig};
use barewire_stack::tcp::{
    Algorithm, EcnMode, TCPI_OPT_SACK, TCPI_OPT_TIMESTAMPS, TCPI_OPT_WSCALE, TcpInfo,
};
use interop::conn::Conn;
use interop::linux::{self, Agreed, Told};
use interop::stream::{Known, MIB, Sum, both_ways_async, receive, send_some};
use interop::{Host, in_namespace, join, kernel, ours, route, start, tell, wire};

/// What each direction of each combination carries.
const BYTES: u64 = 4 * MIB;

/// Seeds of the two directions.
const FROM_KERNEL: u64 = 21;
const TO_KERNEL: u64 = 22;

/// A wire that loses, repeats and reorders.
const BAD_WIRE: &str = "seed=9,loss=1%,reorder=2%,duplicate=1%";

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// How one connection went.
#[derive(Debug)]
struct Outcome {
    /// What the kernel says about it when all has arrived.
    told: Told,
    /// What we say about it when it is open.
    info: TcpInfo,
    /// A SYN or SYN-ACK was lost on the way.
    repeated: bool,
}

/// The kernel's end: tells about the connection while it is still open in one direction.
fn kernels_end(conn: net::TcpStream) -> (Sum, Sum, Told) {
    let conn = conn.patiently();
    let (mut writing, reading) = (conn.another(), conn.another());
    let sender = start(move || send_some(&mut writing, &mut Known::new(FROM_KERNEL), BYTES));
    let received = receive(reading, TO_KERNEL);
    let sent = join(sender);
    let told = linux::told(&conn);
    conn.end(Shutdown::Write).unwrap();
    (sent, received, told)
}

/// Our end.
async fn our_end(stream: AsyncTcpStream) -> (Sum, Sum, TcpInfo) {
    let info = stream.tcp_info().unwrap();
    let (sent, received) = both_ways_async(stream, TO_KERNEL, FROM_KERNEL, BYTES).await;
    (sent, received, info)
}

/// One connection: all that each side sends arrives at the other.
fn transfer(host: &Host, role: Role, congestion: &str) -> Outcome {
    let repeated = || linux::counter("TcpExtTCPSynRetrans");
    let before = repeated();
    let (theirs, mine) = match role {
        Role::Server => {
            let (ready, is_ready) = channel();
            let server = host.spawn(|core| async move {
                let listener = core.tcp_listen(ours(7001), 8).unwrap();
                ready.send(()).unwrap();
                our_end(listener.accept().await.unwrap().0).await
            });
            is_ready.recv().unwrap();
            let theirs = kernels_end(linux::connect(ours(7001), congestion));
            (theirs, server.join())
        }
        Role::Client => {
            let listener = linux::listen(7002, congestion);
            let server = start(move || kernels_end(listener.accept().unwrap().0));
            let client = host.spawn(|core| async move {
                our_end(core.tcp_connect(kernel(7002)).await.unwrap()).await
            });
            (join(server), client.join())
        }
    };
    let (theirs, told) = ((theirs.0, theirs.1), theirs.2);
    let (mine, info) = ((mine.0, mine.1), mine.2);
    assert_eq!(theirs.0, mine.1, "from the kernel to us");
    assert_eq!(mine.0, theirs.1, "from us to the kernel");
    assert_eq!((theirs.0.bytes, mine.0.bytes), (BYTES, BYTES));
    let repeated = repeated() > before || info.tcpi_total_retrans > 0;
    Outcome { told, info, repeated }
}

/// Our host behind the bad wire, both sides with timers for a link of this length.
fn host_with(tcp: TcpConfig) -> Host {
    let tcp = TcpConfig { rto_min: Duration::from_millis(10), ..tcp };
    let host = Host::with(|builder| builder.tcp(tcp).faults(wire(BAD_WIRE)));
    // Without a controller: that of a route goes before a socket's.
    route("rto_min 10ms");
    host
}

#[test]
fn each_controller_of_ours_gets_on_with_each_of_the_kernels() {
    in_namespace("each_controller_of_ours_gets_on_with_each_of_the_kernels", || {
        let mut tried = 0;
        for congestion in [Algorithm::Cubic, Algorithm::Bbr, Algorithm::NewReno] {
            let host = host_with(TcpConfig { congestion, ..TcpConfig::default() });
            for theirs in ["cubic", "bbr", "reno"] {
                if let Err(error) = linux::has_congestion(theirs) {
                    tell(&format!("  SKIPPED {theirs}: the kernel refuses it: {error}"));
                    continue;
                }
                for role in ROLES {
                    let begin = std::time::Instant::now();
                    let told = transfer(&host, role, theirs).told;
                    assert_eq!(told.congestion, theirs, "{}", told.text);
                    let ms = begin.elapsed().as_millis();
                    tell(&format!("  {role:?} with {congestion:?}, kernel {theirs}: {ms} ms"));
                    tried += 1;
                }
            }
            host.stop();
        }
        assert!(tried > 0, "the kernel has none of the controllers");
    });
}

/// One way to set up both sides.
struct Case {
    name: &'static str,
    ours: fn(&mut TcpConfig),
    kernels: &'static [(&'static str, &'static str)],
    /// What is agreed on where we are the server, and where we are the client.
    agreed: [Agreed; 2],
}

/// A case whose outcome does not depend on who is the client.
const fn case(
    name: &'static str,
    ours: fn(&mut TcpConfig),
    kernels: &'static [(&'static str, &'static str)],
    agreed: Agreed,
) -> Case {
    Case { name, ours, kernels, agreed: [agreed, agreed] }
}

/// What the kernel does in a case that does not say otherwise.
const KERNELS_SETTINGS: [(&str, &str); 6] = [
    ("tcp_sack", "1"),
    ("tcp_dsack", "1"),
    ("tcp_timestamps", "1"),
    ("tcp_window_scaling", "1"),
    ("tcp_ecn", "1"),
    ("tcp_recovery", "1"),
];

const NO_SACK: Agreed = Agreed { sack: false, ..Agreed::ALL };
const NO_TIMESTAMPS: Agreed = Agreed { timestamps: false, ..Agreed::ALL };
const NO_WINDOW_SCALE: Agreed = Agreed { window_scale: false, ..Agreed::ALL };
const NO_ECN: Agreed = Agreed { ecn: false, ..Agreed::ALL };
const NOTHING: Agreed = Agreed { sack: false, timestamps: false, window_scale: false, ecn: false };

fn nothing_of_ours(tcp: &mut TcpConfig) {
    (tcp.sack, tcp.timestamps, tcp.window_scale) = (false, false, false);
    tcp.ecn = EcnMode::Off;
}

static CASES: [Case; 16] = [
    case("all is on", |_| {}, &[], Agreed::ALL),
    case("our SACK is off", |tcp| tcp.sack = false, &[], NO_SACK),
    case("the kernel's SACK is off", |_| {}, &[("tcp_sack", "0")], NO_SACK),
    case("our timestamps are off", |tcp| tcp.timestamps = false, &[], NO_TIMESTAMPS),
    case("the kernel's timestamps are off", |_| {}, &[("tcp_timestamps", "0")], NO_TIMESTAMPS),
    case("our window scaling is off", |tcp| tcp.window_scale = false, &[], NO_WINDOW_SCALE),
    case(
        "the kernel's window scaling is off",
        |_| {},
        &[("tcp_window_scaling", "0")],
        NO_WINDOW_SCALE,
    ),
    case("our ECN is off", |tcp| tcp.ecn = EcnMode::Off, &[], NO_ECN),
    case("the kernel's ECN is off", |_| {}, &[("tcp_ecn", "0")], NO_ECN),
    Case {
        name: "we use ECN when asked",
        ours: |tcp| tcp.ecn = EcnMode::WhenAsked,
        kernels: &[],
        agreed: [Agreed::ALL, NO_ECN],
    },
    Case {
        name: "the kernel uses ECN when asked",
        ours: |_| {},
        kernels: &[("tcp_ecn", "2")],
        agreed: [NO_ECN, Agreed::ALL],
    },
    case("all of ours is off", nothing_of_ours, &[], NOTHING),
    case(
        "all of the kernel's is off",
        |_| {},
        &[
            ("tcp_sack", "0"),
            ("tcp_timestamps", "0"),
            ("tcp_window_scaling", "0"),
            ("tcp_ecn", "0"),
        ],
        NOTHING,
    ),
    case("our DSACK is off", |tcp| tcp.dsack = false, &[], Agreed::ALL),
    case("we count losses", |tcp| tcp.rack_tlp = false, &[], Agreed::ALL),
    case(
        "the kernel counts losses and has no DSACK",
        |_| {},
        &[("tcp_recovery", "0"), ("tcp_dsack", "0")],
        Agreed::ALL,
    ),
];

/// Connections until one opens without a loss: a SYN that has to be sent again no longer asks for
/// ECN on either side (RFC 3168 §6.1.1.1). At the rates of the bad wire one in fifty is hit.
const TRIES: usize = 5;

impl Case {
    fn run(&self) {
        linux::set_ipv4(&KERNELS_SETTINGS);
        linux::set_ipv4(self.kernels);
        let mut tcp = TcpConfig { ecn: EcnMode::Request, ..TcpConfig::default() };
        (self.ours)(&mut tcp);
        let host = host_with(tcp);
        for (role, agreed) in ROLES.into_iter().zip(self.agreed) {
            let begin = std::time::Instant::now();
            let outcome = (0..TRIES)
                .map(|_| transfer(&host, role, "cubic"))
                .find(|outcome| !outcome.repeated)
                .unwrap_or_else(|| panic!("{}: {TRIES} handshakes were hit", self.name));
            self.check(role, agreed, &outcome);
            tell(&format!("  {}, {role:?}: {} ms", self.name, begin.elapsed().as_millis()));
        }
        host.stop();
    }

    /// Both sides say the same, and it is what was to be expected.
    fn check(&self, role: Role, agreed: Agreed, outcome: &Outcome) {
        let told = &outcome.told;
        assert_eq!(told.agreed, agreed, "{}, {role:?}: {}", self.name, told.text);
        let has = |option| outcome.info.tcpi_options & option != 0;
        assert_eq!(has(TCPI_OPT_SACK), agreed.sack, "{}, {role:?}", self.name);
        assert_eq!(has(TCPI_OPT_TIMESTAMPS), agreed.timestamps, "{}, {role:?}", self.name);
        assert_eq!(has(TCPI_OPT_WSCALE), agreed.window_scale, "{}, {role:?}", self.name);
    }
}

/// The cases share two tests, so that neither comes near the watchdog on a busy machine.
fn run_cases(name: &'static str, cases: &'static [Case]) {
    in_namespace(name, move || match linux::has_congestion("cubic") {
        Ok(()) => cases.iter().for_each(Case::run),
        Err(error) => tell(&format!("SKIPPED {name}: the kernel refuses CUBIC: {error}")),
    });
}

#[test]
fn options_switched_off_one_by_one_are_not_used() {
    run_cases("options_switched_off_one_by_one_are_not_used", &CASES[..9]);
}

#[test]
fn modes_of_ecn_and_of_recovery_get_on_with_each_other() {
    run_cases("modes_of_ecn_and_of_recovery_get_on_with_each_other", &CASES[9..]);
}

#[test]
fn what_ss_says_is_understood() {
    let text = "ESTAB 0 0 10.77.0.1:7002 10.77.0.2:40000 ts sack ecn ecnseen fastopen bbr \
                wscale:7,9 rto:201 rtt:0.1/0.05 mss:1448 cwnd:10 bbr:(bw:1Mbps)";
    let told = linux::parse(text);
    assert_eq!(told.agreed, Agreed::ALL);
    assert_eq!((told.congestion.as_str(), told.fast_open), ("bbr", true));
    let told = linux::parse("ESTAB 0 0 10.77.0.1:7002 10.77.0.2:40000 cubic rto:201 rtt:0.1/0.05");
    assert_eq!((told.agreed, told.fast_open), (NOTHING, false));
    assert_eq!(told.congestion, "cubic");
}
