//! The kernel's side as a test sets it up and as the kernel tells about it: settings of a namespace
//! and of a socket, its counters, and what `ss` says a connection has agreed on.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{self, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{KERNEL, PATIENCE, kernel, set_kernel};

/// `MSG_FASTOPEN` (`linux/socket.h`): connect, and send with the SYN.
const MSG_FASTOPEN: i32 = 0x2000_0000;

/// The backlog of the kernel's listeners here; `somaxconn` limits it.
const BACKLOG: i32 = 4096;

/// Writes the settings of the namespace below `/proc/sys/net/ipv4`.
pub(crate) fn set_ipv4(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        set_kernel(&format!("ipv4/{name}"), value);
    }
}

fn socket(congestion: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    Ok(socket)
}

/// Whether the kernel has this congestion controller and lets us choose it.
pub(crate) fn has_congestion(name: &str) -> io::Result<()> {
    socket(name).map(|_| ())
}

/// Listens on the kernel's side; what is accepted inherits the controller.
pub(crate) fn listen(port: u16, congestion: &str) -> net::TcpListener {
    let socket = socket(congestion).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&kernel(port).into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    socket.into()
}

/// Connects from the kernel's side.
pub(crate) fn connect(to: SocketAddr, congestion: &str) -> TcpStream {
    let socket = socket(congestion).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Connects from the kernel's side with `data`, its front in the SYN if there is a cookie.
pub(crate) fn connect_with(to: SocketAddr, data: &[u8]) -> TcpStream {
    use std::io::Write;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent = socket.send_to_with_flags(data, &to.into(), MSG_FASTOPEN).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.write_all(&data[sent..]).unwrap();
    stream
}

/// `SO_LINGER` with no time: closing resets.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The kernel's TCP counters of this namespace, by the names that `nstat` gives them.
pub(crate) fn counters() -> HashMap<String, u64> {
    let mut counters = HashMap::new();
    for (file, groups) in [("netstat", &["TcpExt:"]), ("snmp", &["Tcp:"])] {
        // Of the thread, not of the process: the namespace is the thread's.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let (mut names, mut values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
            let (group, _) = (names.next().unwrap(), values.next());
            if !groups.contains(&group) {
                continue;
            }
            let prefix = group.trim_end_matches(':');
            for (name, value) in names.zip(values) {
                // `MaxConn` is -1 and no count.
                counters.insert(format!("{prefix}{name}"), value.parse().unwrap_or(0));
            }
        }
    }
    counters
}

/// One of them.
#[track_caller]
pub(crate) fn counter(name: &str) -> u64 {
    *counters().get(name).unwrap_or_else(|| panic!("the kernel does not count {name}"))
}

/// How many of the kernel's sockets are in the state that `ss` calls this.
pub(crate) fn sockets_in(state: &str) -> usize {
    ss(&["-tnH", "state", state]).lines().count()
}

fn ss(arguments: &[&str]) -> String {
    let output = Command::new("ss").args(arguments).output().unwrap();
    assert!(output.status.success(), "ss {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a connection has agreed on in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
    pub(crate) window_scale: bool,
    pub(crate) ecn: bool,
}

impl Agreed {
    /// Everything that both sides can do.
    pub(crate) const ALL: Agreed =
        Agreed { sack: true, timestamps: true, window_scale: true, ecn: true };
}

/// What `ss -ti` says about one of the kernel's connections.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) agreed: Agreed,
    /// `TCP_CONGESTION`.
    pub(crate) congestion: String,
    /// Data went with the SYN and was acknowledged with it.
    pub(crate) fast_open: bool,
    /// All that was said.
    pub(crate) text: String,
}

/// Asks `ss` about the connection with these ports.
#[track_caller]
pub(crate) fn told(stream: &TcpStream) -> Told {
    let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    assert_eq!(near.ip(), KERNEL);
    let ports = [format!("sport = :{}", near.port()), format!("dport = :{}", far.port())];
    let text = ss(&["-tinoHO", &ports.join(" and ")]);
    assert_eq!(text.lines().count(), 1, "one connection has {near} and {far}: {text:?}");
    parse(&text)
}

/// Names that the kernel gives controllers.
const CONTROLLERS: [&str; 3] = ["cubic", "bbr", "reno"];

/// Understands a line of `ss -tinoHO`.
pub(crate) fn parse(text: &str) -> Told {
    let words: Vec<_> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let congestion = CONTROLLERS.into_iter().find(|name| has(name)).unwrap_or_default();
    Told {
        agreed: Agreed {
            sack: has("sack"),
            timestamps: has("ts"),
            window_scale: words.iter().any(|word| word.starts_with("wscale:")),
            ecn: has("ecn"),
        },
        congestion: congestion.to_owned(),
        fast_open: has("fastopen"),
        text: text.trim().to_owned(),
    }
}
