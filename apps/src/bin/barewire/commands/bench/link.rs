//! A connection, as the load tool uses it: one of our own on its core, or one of the kernel's on a
//! thread. What is done with it is written once, as `async` functions; those of the kernel's block
//! where ours wait, so that they are ready at their first poll.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use barewire::{AsyncTcpStream, Core, PacketSlice};

use super::BLOCK_BYTES;
use super::half::Half;
use super::tally::{Failure, Recorder};

/// The engine's timers are a millisecond coarse: what is due sooner than this is waited for by
/// taking turns with the network instead.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// Stack of a thread that carries one connection.
const STACK_BYTES: usize = 256 * 1024;

/// One connection.
pub(super) trait Link {
    /// Bytes that are sent over and over.
    type Block;

    /// Reads what is there; 0 at the end of the stream.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Link::read`], where nobody looks at the bytes; without a copy where `owned` asks for it
    /// and the connection can.
    async fn discard(&self, buffer: &mut [u8], owned: bool) -> io::Result<usize>;

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    /// What [`Link::write_block`] sends.
    fn block(&self, owned: bool) -> io::Result<Self::Block>;

    /// Sends a block and says how many bytes that was.
    async fn write_block(&self, block: &Self::Block) -> io::Result<usize>;

    /// Ends the stream in the direction away from here.
    fn end(&self) -> io::Result<()>;

    async fn sleep_until(&self, due: Instant);

    /// Gives `work` at most `limit`; the kernel's side gives each of its calls as long.
    async fn within<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Failure>;

    /// Runs both at once; gives what each has counted.
    async fn duplex(
        &self,
        one: Half<'_>,
        other: Half<'_>,
        to: &Recorder,
    ) -> (Result<u64, Failure>, Result<u64, Failure>);
}

/// Makes connections.
pub(super) trait Dialer {
    type Link: Link;

    async fn connect(&self) -> io::Result<Self::Link>;

    /// A pause between attempts that failed.
    async fn sleep(&self, time: Duration);
}

/// Connects from a core of ours.
pub(super) struct CoreDialer {
    pub(super) core: Core,
    pub(super) server: SocketAddr,
}

impl Dialer for CoreDialer {
    type Link = AsyncTcpStream;

    async fn connect(&self) -> io::Result<AsyncTcpStream> {
        let stream = self.core.tcp_connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn sleep(&self, time: Duration) {
        self.core.sleep(time).await;
    }
}

/// What an [`AsyncTcpStream`] sends over and over.
pub(super) enum CoreBlock {
    Copied(Vec<u8>),
    Owned(PacketSlice),
}

impl Link for AsyncTcpStream {
    type Block = CoreBlock;

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        AsyncTcpStream::read(self, buffer).await
    }

    async fn discard(&self, buffer: &mut [u8], owned: bool) -> io::Result<usize> {
        if owned {
            self.read_slices(usize::MAX, &mut VecDeque::new()).await
        } else {
            AsyncTcpStream::read(self, buffer).await
        }
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        AsyncTcpStream::write_all(self, bytes).await
    }

    fn block(&self, owned: bool) -> io::Result<CoreBlock> {
        if !owned {
            return Ok(CoreBlock::Copied(vec![0; BLOCK_BYTES]));
        }
        let pool = self.core().pool();
        let mut slot = pool.alloc().ok_or(ErrorKind::OutOfMemory)?;
        slot.fill(0);
        Ok(CoreBlock::Owned(slot.freeze()))
    }

    async fn write_block(&self, block: &CoreBlock) -> io::Result<usize> {
        match block {
            CoreBlock::Copied(bytes) => {
                AsyncTcpStream::write_all(self, bytes).await.map(|()| bytes.len())
            }
            CoreBlock::Owned(slice) => {
                let mut slices =
                    VecDeque::from(vec![slice.clone(); (BLOCK_BYTES / slice.len()).max(1)]);
                let bytes = slices.len() * slice.len();
                self.write_slices(&mut slices).await.map(|()| bytes)
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    async fn sleep_until(&self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        if left > TIMER_SLACK {
            self.core().sleep(left - TIMER_SLACK).await;
        }
        while Instant::now() < due {
            self.core().yield_now().await;
        }
    }

    async fn within<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Failure> {
        self.core().timeout(limit, work).await.map_err(|_elapsed| Failure::TimedOut)
    }

    async fn duplex(
        &self,
        one: Half<'_>,
        other: Half<'_>,
        to: &Recorder,
    ) -> (Result<u64, Failure>, Result<u64, Failure>) {
        let (mut one, mut other) = (pin!(one.run(self, to)), pin!(other.run(self, to)));
        let (mut first, mut second) = (None, None);
        std::future::poll_fn(|cx| {
            poll_once(&mut first, || one.as_mut().poll(cx));
            poll_once(&mut second, || other.as_mut().poll(cx));
            match (first.take(), second.take()) {
                (Some(one), Some(other)) => Poll::Ready((one, other)),
                (one, other) => {
                    (first, second) = (one, other);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Polls unless there is an outcome already.
fn poll_once<T>(outcome: &mut Option<T>, poll: impl FnOnce() -> Poll<T>) {
    if outcome.is_none()
        && let Poll::Ready(value) = poll()
    {
        *outcome = Some(value);
    }
}

/// Connects by the kernel.
pub(super) struct KernelDialer {
    pub(super) server: SocketAddr,
    /// Longest time for one call.
    pub(super) limit: Duration,
}

impl Dialer for KernelDialer {
    type Link = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.server, self.limit)?;
        bound(&stream, self.limit)?;
        Ok(stream)
    }

    async fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// Gives every call on `stream` an end, and sends small writes at once, as ours do.
fn bound(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)
}

impl Link for TcpStream {
    type Block = Vec<u8>;

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match Read::read(&mut &*self, buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    async fn discard(&self, buffer: &mut [u8], _owned: bool) -> io::Result<usize> {
        Link::read(self, buffer).await
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, bytes)
    }

    fn block(&self, _owned: bool) -> io::Result<Vec<u8>> {
        Ok(vec![0; BLOCK_BYTES])
    }

    async fn write_block(&self, block: &Vec<u8>) -> io::Result<usize> {
        Write::write_all(&mut &*self, block).map(|()| block.len())
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    async fn sleep_until(&self, due: Instant) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    async fn within<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Failure> {
        bound(self, limit)?;
        Ok(work.await)
    }

    async fn duplex(
        &self,
        one: Half<'_>,
        other: Half<'_>,
        to: &Recorder,
    ) -> (Result<u64, Failure>, Result<u64, Failure>) {
        thread::scope(|scope| {
            let beside = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || run_blocking(one.run(self, to)));
            let beside = match beside {
                Ok(beside) => beside,
                Err(error) => return (Err(Failure::Thread(error)), Ok(0)),
            };
            let other = run_blocking(other.run(self, to));
            let one = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (one, other)
        })
    }
}

/// Starts a thread for a connection.
pub(super) fn spawn_thread(
    task: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(task)
}

/// Runs a future whose every step blocks.
pub(super) fn run_blocking<T>(future: impl Future<Output = T>) -> T {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("calls of the kernel's sockets block"),
    }
}
