//! File descriptors: scattered reads and gathered writes over packet buffers, wake-ups, waiting.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};

use arrayvec::ArrayVec;

use crate::mem::{PacketBuf, PacketSlice};

/// Most pieces (header included) in one scattered or gathered call. The kernel takes 1,024; with 256
/// the largest TSO frame is still full when its pieces have only 256 bytes on average.
pub const MAX_IOVECS: usize = 256;

/// Reads one message: first into `header`, then into `bufs` one after the other. Gives the number
/// of bytes read, the header's included. Buffers beyond [`MAX_IOVECS`] stay unused.
///
/// # Errors
/// What `readv(2)` answers; `WouldBlock` where a non-blocking descriptor has nothing.
pub fn readv(mut fd: &File, header: &mut [u8], bufs: &mut [PacketBuf]) -> io::Result<usize> {
    let mut pieces = ArrayVec::<IoSliceMut<'_>, MAX_IOVECS>::new();
    if !header.is_empty() {
        pieces.push(IoSliceMut::new(header));
    }
    let room = MAX_IOVECS - pieces.len();
    pieces.extend(bufs.iter_mut().take(room).map(|buf| IoSliceMut::new(buf)));
    fd.read_vectored(&mut pieces)
}

/// Writes one message: `header`, then all `segments`.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_IOVECS`] pieces, since a message cut short would be another
/// message; otherwise what `writev(2)` answers.
pub fn writev(mut fd: &File, header: &[u8], segments: &[PacketSlice]) -> io::Result<usize> {
    let mut pieces = ArrayVec::<IoSlice<'_>, MAX_IOVECS>::new();
    if !header.is_empty() {
        pieces.push(IoSlice::new(header));
    }
    if segments.len() > MAX_IOVECS - pieces.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    pieces.extend(segments.iter().map(|segment| IoSlice::new(segment)));
    fd.write_vectored(&pieces)
}

/// Reads a file from `offset` into several buffers with one system call, so that serving 64 KiB of
/// it costs one. Gives the number of bytes read: fewer than the buffers hold at the file's end, and
/// then the caller cuts them. Buffers beyond [`MAX_IOVECS`] stay unused.
///
/// # Errors
/// What `preadv(2)` answers.
pub fn read_at_into(file: &File, offset: u64, bufs: &mut [PacketBuf]) -> io::Result<usize> {
    let offset = libc::off64_t::try_from(offset)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let pieces: ArrayVec<IoSliceMut<'_>, MAX_IOVECS> =
        bufs.iter_mut().take(MAX_IOVECS).map(|buf| IoSliceMut::new(buf)).collect();
    loop {
        // SAFETY: `IoSliceMut` has the layout of `iovec` by its documentation; the pieces are
        // valid for writes and exclusively borrowed until the call returns.
        let n = unsafe {
            libc::preadv64(file.as_raw_fd(), pieces.as_ptr().cast(), pieces.len() as i32, offset)
        };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// A counter that a sleeping thread can wait on (`eventfd(2)`).
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one, not signalled, non-blocking.
    ///
    /// # Errors
    /// What the kernel answers when descriptors or memory run out.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
        Ok(EventFd(unsafe { File::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable.
    pub fn signal(&self) {
        // The write fails only when the counter stands at its maximum, and then the descriptor is
        // readable already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again; true if it was signalled.
    pub fn drain(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

/// Makes a non-blocking `eventfd` that somebody else owns unreadable again; true if it was
/// signalled. A descriptor that is closed or of another kind answers false.
pub fn drain_eventfd(fd: RawFd) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: `count` is valid for writes of the length given, for the length of the call.
    let n = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
    n == count.len() as isize
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Several descriptors as one, which is readable while any of them is (`epoll(7)`).
#[derive(Debug)]
pub struct WaitSet(File);

impl WaitSet {
    /// The set of these descriptors. One that is closed leaves it by itself.
    ///
    /// # Errors
    /// What the kernel answers when descriptors or memory run out, or for one that cannot be waited
    /// for.
    pub fn new(fds: &[RawFd]) -> io::Result<WaitSet> {
        // SAFETY: epoll_create1 takes no pointer.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
        let set = WaitSet(unsafe { File::from_raw_fd(set) });
        for &fd in fds {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            // SAFETY: `event` is valid for reads for the length of the call.
            let added = unsafe {
                libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
            };
            if added < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(set)
    }
}

impl AsRawFd for WaitSet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Most descriptors that [`poll_readable`] waits for.
pub const MAX_POLL_FDS: usize = 16;

/// Sleeps until one of `fds` is readable (or broken, which reading tells) or `timeout_ns` has
/// passed; `None` waits for ever, 0 only looks. Gives a bit for each descriptor that is ready;
/// none after a timeout or a signal. `ppoll` measures in nanoseconds, so a short timer is not
/// rounded up to a millisecond.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_POLL_FDS`] descriptors; otherwise what `ppoll(2)` answers.
pub fn poll_readable(fds: &[RawFd], timeout_ns: Option<u64>) -> io::Result<u16> {
    if fds.len() > MAX_POLL_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut polled: ArrayVec<libc::pollfd, MAX_POLL_FDS> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `polled` is valid for reads and writes of its length, `timeout` is null or points to
    // a timespec that outlives the call, and a null signal mask leaves the mask as it is.
    let n = unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout, std::ptr::null())
    };
    if n < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) };
    }
    Ok(polled.iter().enumerate().fold(0, |ready, (i, p)| ready | u16::from(p.revents != 0) << i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Pool, PoolConfig};
    use std::time::{Duration, Instant};

    fn pool() -> Pool {
        Pool::new(PoolConfig { slots: 80, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
    }

    #[test]
    fn a_file_is_read_into_several_buffers_from_any_offset() {
        let file = super::super::memfd("test", false).unwrap();
        let content: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        (&file).write_all(&content).unwrap();
        let pool = pool();
        let mut bufs: Vec<_> = (0..3).map(|_| pool.alloc().unwrap()).collect();
        assert_eq!(read_at_into(&file, 7, &mut bufs).unwrap(), 6144);
        let read: Vec<u8> = bufs.iter().flat_map(|b| b.to_vec()).collect();
        assert_eq!(read, content[7..7 + 6144]);
        assert_eq!(read_at_into(&file, 9_990, &mut bufs).unwrap(), 10);
        assert_eq!(bufs[0][..10], content[9_990..]);
        assert_eq!(read_at_into(&file, 10_000, &mut bufs).unwrap(), 0);
        assert!(read_at_into(&file, u64::MAX, &mut bufs).is_err());
    }

    #[test]
    fn a_message_crosses_in_pieces_behind_its_header() {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let (near, far) = (
            File::from(std::os::fd::OwnedFd::from(near)),
            File::from(std::os::fd::OwnedFd::from(far)),
        );
        let pool = pool();
        let segments = [&b"one"[..], b"", b"three"].map(|b| pool.copy_from(b).unwrap().freeze());
        assert_eq!(writev(&near, b"head", &segments).unwrap(), 12);
        let mut header = [0; 4];
        let mut bufs = [pool.alloc().unwrap(), pool.alloc().unwrap()];
        bufs[0].truncate(6);
        assert_eq!(readv(&far, &mut header, &mut bufs).unwrap(), 12);
        assert_eq!((&header, &bufs[0][..], &bufs[1][..2]), (b"head", &b"onethr"[..], &b"ee"[..]));
    }

    #[test]
    fn too_many_pieces_are_refused_rather_than_cut() {
        let (near, _far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let near = File::from(std::os::fd::OwnedFd::from(near));
        let pool = pool();
        let segments = vec![pool.copy_from(b"x").unwrap().freeze(); MAX_IOVECS];
        assert_eq!(writev(&near, b"", &segments).unwrap(), MAX_IOVECS);
        let error = writev(&near, b"h", &segments).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn waiting_ends_by_signal_or_by_time() {
        let (quiet, loud) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let fds = [quiet.as_raw_fd(), loud.as_raw_fd()];
        assert_eq!(poll_readable(&fds, Some(0)).unwrap(), 0);
        loud.signal();
        loud.signal();
        assert_eq!(poll_readable(&fds, None).unwrap(), 0b10);
        assert!(loud.drain() && !loud.drain());
        let before = Instant::now();
        assert_eq!(poll_readable(&fds, Some(3_000_000)).unwrap(), 0);
        assert!(before.elapsed() >= Duration::from_millis(3));
        assert!(poll_readable(&[0; MAX_POLL_FDS + 1], Some(0)).is_err());
    }

    #[test]
    fn a_set_is_readable_while_one_of_its_members_is() {
        let (a, b) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let set = WaitSet::new(&[a.as_raw_fd(), b.as_raw_fd()]).unwrap();
        let readable = || poll_readable(&[set.as_raw_fd()], Some(0)).unwrap() == 1;
        assert!(!readable());
        b.signal();
        assert!(readable());
        a.signal();
        b.drain();
        assert!(readable());
        a.drain();
        assert!(!readable());
        assert!(WaitSet::new(&[-1]).is_err());
    }
}
