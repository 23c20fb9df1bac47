//! The engine's stream as a transport of the file server.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::time::{Duration, Instant};

use barewire::http::{Deadline, Timer, Transport};
use barewire::{AsyncTcpStream, Core};

/// Bytes of a file that have to leave within the time that a slow client has.
const PROGRESS_BYTES: u64 = 64 << 10;

/// Time as a core's engine keeps it.
pub(super) struct CoreTimer(pub(super) Core);

impl Timer for CoreTimer {
    type Sleep = Pin<Box<dyn Future<Output = ()>>>;

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        let core = self.0.clone();
        Box::pin(async move { core.sleep(duration).await })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A connection on its own core: nothing crosses a thread, files are not copied.
pub(super) struct StreamTransport {
    stream: AsyncTcpStream,
    deadline: Deadline<CoreTimer>,
}

impl StreamTransport {
    pub(super) fn new(stream: AsyncTcpStream, core: Core) -> StreamTransport {
        let deadline = Deadline::new(CoreTimer(core.clone()));
        StreamTransport { stream, deadline }
    }
}

impl Transport for StreamTransport {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.run(self.stream.read(buffer)).await
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.deadline.run(self.stream.write(bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let next = (end - at).min(PROGRESS_BYTES);
            self.deadline.run(self.stream.send_file(file, at, next)).await?;
            at += next;
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.deadline.run(std::future::ready(self.stream.shutdown(Shutdown::Write))).await
    }

    fn set_deadline(&mut self, timeout: Option<Duration>) {
        self.deadline.set(timeout);
    }
}
