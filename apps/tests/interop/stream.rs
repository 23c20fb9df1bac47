//! Streams whose every byte is known: a seed and a position give it. The sender makes them, the
//! receiver checks each byte where it arrives, so that a difference is told with its place; both
//! also sum what they have handled, and compare the sums.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use barewire::{AsyncTcpStream, ReadHalf, WriteHalf};

use super::conn::Conn;
use super::{join, start};

/// Bytes made and written at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Eight bytes of a stream (the output function of SplitMix64).
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A place in a stream. Both ends have one each, of the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    seed: u64,
    at: u64,
    sum: u64,
}

/// What one end has handled: how much, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) checksum: u64,
}

impl Known {
    pub(crate) fn new(seed: u64) -> Known {
        Known { seed, at: 0, sum: 0 }
    }

    pub(crate) fn sum(&self) -> Sum {
        Sum { bytes: self.at, checksum: self.sum }
    }

    /// Calls `f` with the next bytes of the stream, eight or fewer at a time, beside their place.
    fn each(&mut self, len: usize, mut f: impl FnMut(usize, &[u8])) {
        let mut done = 0;
        while done < len {
            let value = word(self.seed, self.at / 8);
            let skip = (self.at % 8) as usize;
            let n = (8 - skip).min(len - done);
            f(done, &value.to_le_bytes()[skip..skip + n]);
            if skip + n == 8 {
                self.sum = self.sum.rotate_left(5) ^ value;
            }
            self.at += n as u64;
            done += n;
        }
    }

    /// Fills `buf` with what comes next.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        self.each(buf.len(), |at, bytes| buf[at..at + bytes.len()].copy_from_slice(bytes));
    }

    /// `len` bytes of what comes next.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Panics unless `got` is what comes next.
    #[track_caller]
    pub(crate) fn check(&mut self, got: &[u8]) {
        let begin = self.at;
        let mut wrong = None;
        self.each(got.len(), |at, bytes| {
            if got[at..at + bytes.len()] != *bytes && wrong.is_none() {
                wrong = Some((at, bytes.len()));
            }
        });
        if let Some((at, len)) = wrong {
            let place = begin + at as u64;
            panic!("stream {} differs near byte {place}: {:x?}", self.seed, &got[at..at + len]);
        }
    }
}

/// Writes `bytes` bytes of the stream with this seed and ends that direction.
#[track_caller]
pub(crate) fn send(mut conn: impl Conn, seed: u64, bytes: u64) -> Sum {
    let sum = send_some(&mut conn, &mut Known::new(seed), bytes);
    conn.end(Shutdown::Write).unwrap();
    sum
}

/// Writes the next `bytes` bytes of the stream.
#[track_caller]
pub(crate) fn send_some(conn: &mut impl Conn, known: &mut Known, bytes: u64) -> Sum {
    let mut buf = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(CHUNK as u64) as usize;
        known.fill(&mut buf[..n]);
        if let Err(error) = conn.write_all(&buf[..n]) {
            panic!("sending stream {known:?}, {left} of {bytes} bytes left: {error}");
        }
        left -= n as u64;
    }
    known.sum()
}

/// Reads the stream with this seed until the peer ends it.
#[track_caller]
pub(crate) fn receive(mut conn: impl Conn, seed: u64) -> Sum {
    let mut known = Known::new(seed);
    receive_some(&mut conn, &mut known, u64::MAX);
    known.sum()
}

/// Reads the next bytes of the stream: `most`, or those before its end.
#[track_caller]
pub(crate) fn receive_some(conn: &mut impl Conn, known: &mut Known, most: u64) {
    let mut buf = vec![0; CHUNK];
    let mut left = most;
    while left > 0 {
        let room = left.min(CHUNK as u64) as usize;
        match conn.read(&mut buf[..room]) {
            Ok(0) => return,
            Ok(n) => {
                known.check(&buf[..n]);
                left -= n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("receiving stream {known:?}: {error}"),
        }
    }
}

/// As [`send`], on a core. The direction ends when the half is dropped.
pub(crate) async fn send_async(half: WriteHalf, seed: u64, bytes: u64) -> Sum {
    let mut known = Known::new(seed);
    let mut buf = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(CHUNK as u64) as usize;
        known.fill(&mut buf[..n]);
        if let Err(error) = half.write_all(&buf[..n]).await {
            panic!("sending stream {known:?}, {left} of {bytes} bytes left: {error}");
        }
        left -= n as u64;
    }
    known.sum()
}

/// As [`receive`], on a core and without a copy.
pub(crate) async fn receive_async(half: ReadHalf, seed: u64) -> Sum {
    let mut known = Known::new(seed);
    loop {
        match half.read_owned(usize::MAX).await {
            Ok(Some(slice)) => known.check(&slice),
            Ok(None) => return known.sum(),
            Err(error) => panic!("receiving stream {known:?}: {error}"),
        }
    }
}

/// Sends the stream of the seed `out` and receives that of `back`, both at once over one connection.
/// Gives what was sent and received.
#[track_caller]
pub(crate) fn both_ways(conn: impl Conn, out: u64, back: u64, bytes: u64) -> (Sum, Sum) {
    let reading = conn.another();
    let sender = start(move || send(conn, out, bytes));
    let received = receive(reading, back);
    (join(sender), received)
}

/// As [`both_ways`], on a core. Ends the connection.
pub(crate) async fn both_ways_async(
    stream: AsyncTcpStream,
    out: u64,
    back: u64,
    bytes: u64,
) -> (Sum, Sum) {
    let core = stream.core().clone();
    let (reading, writing) = stream.split();
    let sent = Rc::new(Cell::new(None));
    let tell = sent.clone();
    core.spawn(async move { tell.set(Some(send_async(writing, out, bytes).await)) });
    let received = receive_async(reading, back).await;
    while sent.get().is_none() {
        core.sleep(Duration::from_millis(1)).await;
    }
    (sent.get().unwrap(), received)
}

/// Sends back everything that comes, without a copy, and then ends the other direction.
pub(crate) async fn echo_async(stream: AsyncTcpStream) -> std::io::Result<u64> {
    let mut bytes = 0;
    while let Some(slice) = stream.read_owned(usize::MAX).await? {
        bytes += slice.len() as u64;
        stream.write_owned(slice).await?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(bytes)
}

/// Sends back everything that comes, and then ends the other direction.
pub(crate) fn echo(mut conn: impl Conn) -> std::io::Result<u64> {
    let mut buf = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let n = conn.read(&mut buf)?;
        if n == 0 {
            break;
        }
        conn.write_all(&buf[..n])?;
        bytes += n as u64;
    }
    conn.end(Shutdown::Write)?;
    Ok(bytes)
}

/// Writes `bytes` bytes of the stream with this seed, and checks that they all come back.
#[track_caller]
pub(crate) fn exchange(mut conn: impl Conn, seed: u64, bytes: usize) {
    conn.write_all(&Known::new(seed).take(bytes)).unwrap();
    let mut known = Known::new(seed);
    receive_some(&mut conn, &mut known, bytes as u64);
    assert_eq!(known.sum().bytes, bytes as u64, "the echo has ended too soon");
}

/// As [`exchange`], on a core.
pub(crate) async fn exchange_async(stream: &AsyncTcpStream, seed: u64, bytes: usize) {
    stream.write_all(&Known::new(seed).take(bytes)).await.unwrap();
    let mut known = Known::new(seed);
    while known.sum().bytes < bytes as u64 {
        let left = bytes - known.sum().bytes as usize;
        let slice = stream.read_owned(left).await.unwrap();
        known.check(&slice.expect("the echo has ended too soon"));
    }
}
