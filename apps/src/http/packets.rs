//! A file's bytes, read straight into packet memory.
//!
//! One `preadv` fills a run of packet buffers from the page cache; handed to the stream as they
//! are, they are not copied again before the device takes them.

use std::fs::File;
use std::io;

use barewire_driver::sys::read_at_into;
use barewire_driver::{PacketBuf, PacketSlice, Pool};

/// Most buffers filled by one system call: 64 KiB in slots of 2,048 bytes.
const BURST_BUFFERS: usize = 32;

/// A file is only read while more than one in so many of the pool's slots is free, so that sending
/// cannot starve receiving.
const RESERVE: usize = 4;

/// Reads files a burst at a time; keeps its list of buffers from one burst to the next.
#[derive(Default)]
pub struct FileReader {
    burst: Vec<PacketBuf>,
}

impl FileReader {
    /// A reader without buffers.
    pub fn new() -> FileReader {
        FileReader::default()
    }

    /// Reads up to `len` bytes of `file` from `offset`, at least one.
    ///
    /// # Errors
    /// `WouldBlock` if the pool has no slot to spare now, `UnexpectedEof` at the file's end, else
    /// what the kernel answers.
    pub fn read(
        &mut self,
        pool: &Pool,
        file: &File,
        offset: u64,
        len: u64,
    ) -> io::Result<impl Iterator<Item = PacketSlice>> {
        self.burst.clear();
        let mut wanted = usize::try_from(len).unwrap_or(usize::MAX);
        while wanted > 0 && self.burst.len() < BURST_BUFFERS {
            if pool.free_slots() <= pool.total_slots() / RESERVE {
                break;
            }
            let Some(mut buffer) = pool.alloc() else { break };
            buffer.truncate(wanted);
            wanted -= buffer.len();
            self.burst.push(buffer);
        }
        if self.burst.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut filled = match read_at_into(file, offset, &mut self.burst) {
            Ok(count @ 1..) => count,
            Ok(0) => return Err(self.give_back(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(self.give_back(error)),
        };
        Ok(self.burst.drain(..).map_while(move |mut buffer| {
            buffer.truncate(filled);
            filled -= buffer.len();
            (!buffer.is_empty()).then(|| buffer.freeze())
        }))
    }

    /// Nothing was read: the buffers go back to the pool.
    fn give_back(&mut self, error: io::Error) -> io::Error {
        self.burst.clear();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::PoolConfig;
    use std::fs;

    fn pool(slots: u32) -> Pool {
        Pool::new(PoolConfig { slots, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
    }

    fn file(len: usize) -> (File, Vec<u8>) {
        let name = format!("barewire-packets-{}-{len}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_file_arrives_in_order_and_whole() {
        let (pool, (file, bytes)) = (pool(256), file(150_001));
        let mut reader = FileReader::new();
        let mut at = 1;
        let mut bursts = 0;
        while at < bytes.len() {
            let left = (bytes.len() - at) as u64;
            for slice in reader.read(&pool, &file, at as u64, left).unwrap() {
                assert_eq!(slice[..], bytes[at..at + slice.len()]);
                at += slice.len();
            }
            bursts += 1;
        }
        assert_eq!((at, bursts), (bytes.len(), 3));
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_short_read_and_the_end_leave_no_buffer_behind() {
        let (pool, (file, bytes)) = (pool(64), file(3000));
        let mut reader = FileReader::new();
        let lens: Vec<_> =
            reader.read(&pool, &file, 500, 60_000).unwrap().map(|slice| slice.len()).collect();
        assert_eq!(lens, [2048, 452]);
        assert_eq!(reader.read(&pool, &file, 0, 10).unwrap().next().unwrap()[..], bytes[..10]);
        let end = reader.read(&pool, &file, 3000, 10).err().unwrap();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        drop(reader);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_quarter_of_the_pool_is_left_to_others() {
        let (pool, (file, _)) = (pool(16), file(100_000));
        let mut reader = FileReader::new();
        let held: Vec<_> = reader.read(&pool, &file, 0, 100_000).unwrap().collect();
        assert_eq!((held.len(), pool.free_slots()), (12, 4));
        let full = reader.read(&pool, &file, 0, 1).err().unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
