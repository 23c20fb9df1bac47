//! What the engines of a core run: handlers, as an application has them.
//!
//! ```text
//!   client: 32 × loop { [connect ─▶] write ─▶ read [─▶ close] }
//!   server: accept ─▶ spawn: loop { read ─▶ write }, until the end of the stream
//! ```

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use barewire_stack::engine::{Core, Direction};
use barewire_stack::tcp::Readiness;
use barewire_stack::{Family, SocketError, SocketId, SocketKind, SocketOption, Stack};

use super::IN_FLIGHT;
use crate::ours::SERVER;
use crate::{MESSAGE_BYTES, message};

const PORT: u16 = 80;

/// What a core's clients and the loop below them tell each other.
#[derive(Default)]
pub(super) struct Ledger {
    /// Operations that may be begun.
    allowed: Cell<u64>,
    begun: Cell<u64>,
    done: Cell<u64>,
    opened: Cell<u64>,
    /// The client's ends of what is open all the time.
    ends: RefCell<Vec<SocketId>>,
}

impl Ledger {
    /// Lets clients begin `operations` more.
    pub(super) fn allow(&self, operations: u64) {
        self.allowed.set(self.begun.get().saturating_add(operations));
    }

    /// Operations that have been done.
    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Connections that have been opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// The connections that stay, as many as are open by now.
    pub(super) fn ends(&self) -> Vec<SocketId> {
        self.ends.borrow().clone()
    }

    /// The number of the next operation; nothing if there is to be none.
    fn begin(&self) -> Option<u64> {
        let begun = self.begun.get() + 1;
        (begun <= self.allowed.get()).then(|| {
            self.begun.set(begun);
            begun
        })
    }

    fn finish(&self) {
        self.done.set(self.done.get() + 1);
    }
}

fn at_server() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVER), PORT)
}

/// A listener of the server.
pub(super) fn listen(core: &Core) -> SocketId {
    let listen = |stack: &mut Stack| {
        let id = stack.socket(SocketKind::Tcp, Family::V4)?;
        stack.set_option(id, SocketOption::ReusePort(true))?;
        stack.bind(id, at_server())?;
        stack.listen(id, 2 * IN_FLIGHT)?;
        Ok::<SocketId, SocketError>(id)
    };
    core.with_stack(listen).expect("a free port")
}

/// Gives each connection a handler.
pub(super) async fn serve(core: Core, listener: SocketId) {
    loop {
        let accepted = core.ready(listener, Direction::Read, |stack| stack.accept(listener)).await;
        let Ok((id, _)) = accepted else { return };
        assert!(core.spawn(answer(core.clone(), id)), "room for a handler");
    }
}

/// Sends back what arrives, until the other end has nothing more to say.
async fn answer(core: Core, id: SocketId) {
    let mut buffer = [0; MESSAGE_BYTES];
    // What breaks a connection is for the client to complain of.
    while let Ok(len @ 1..) =
        core.ready(id, Direction::Read, |stack| stack.read(id, &mut buffer)).await
    {
        let write = |stack: &mut Stack| stack.write(id, &buffer[..len]);
        if core.ready(id, Direction::Write, write).await != Ok(len) {
            break;
        }
    }
    close(&core, id);
}

/// Opens a connection that stays.
pub(super) async fn open(core: Core, ledger: Rc<Ledger>) {
    let end = connect(&core, &ledger).await;
    ledger.ends.borrow_mut().push(end);
}

/// Requests and answers over a connection that stays.
pub(super) async fn echo(core: Core, end: SocketId, ledger: Rc<Ledger>) {
    while let Some(round) = ledger.begin() {
        ask(&core, end, round).await;
        ledger.finish();
    }
}

/// Connections one after the other.
pub(super) async fn connections(core: Core, ledger: Rc<Ledger>) {
    while let Some(round) = ledger.begin() {
        let end = connect(&core, &ledger).await;
        ask(&core, end, round).await;
        close(&core, end);
        ledger.finish();
    }
}

async fn connect(core: &Core, ledger: &Ledger) -> SocketId {
    let id = core.with_stack(|stack| {
        let id = stack.socket(SocketKind::Tcp, Family::V4).expect("room for a socket");
        assert_eq!(stack.connect(id, at_server()), Err(SocketError::InProgress));
        id
    });
    let opened = |stack: &mut Stack| {
        let ready = stack.readiness(id)?;
        if ready.intersects(Readiness::ERROR | Readiness::WRITE_CLOSED) {
            return Err(stack.take_error(id)?.unwrap_or(SocketError::ConnectionAborted));
        }
        if ready.contains(Readiness::WRITABLE) { Ok(()) } else { Err(SocketError::WouldBlock) }
    };
    core.ready(id, Direction::Write, opened).await.expect("a server that listens");
    ledger.opened.set(ledger.opened.get() + 1);
    id
}

/// One request and its answer.
async fn ask(core: &Core, id: SocketId, round: u64) {
    let (request, mut answer) = (message(round), [0; MESSAGE_BYTES]);
    let write = |stack: &mut Stack| stack.write(id, &request);
    let written = core.ready(id, Direction::Write, write).await;
    assert_eq!(written, Ok(MESSAGE_BYTES), "room for a request");
    let read = core.ready(id, Direction::Read, |stack| stack.read(id, &mut answer)).await;
    assert_eq!(read, Ok(MESSAGE_BYTES), "a whole answer");
    assert!(answer == request, "the answer differs");
}

fn close(core: &Core, id: SocketId) {
    core.forget(id);
    // A connection that is over has gone already.
    let _ = core.with_stack(|stack| stack.close(id));
}
