//! Open files and their metadata, so that a busy file costs no system call a request.
//!
//! ```text
//!   path ──▶ slot ──▶ Entry: header lines, and the content (small) or the descriptor (large)
//!            CLOCK: a hand sweeps the slots; an entry used since the last sweep stays
//! ```
//!
//! An entry is trusted for [`FRESH_FOR`] and then opened anew, so a changed file shows within that
//! time. Answers under way keep the entry that they began with. One cache a core, not shared.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::counters::Counters;
use super::date::{imf_fixdate, unix_seconds};

/// Most files in the cache of one core.
pub const CACHE_ENTRIES: usize = 1024;

/// Largest file whose content is kept in memory: with [`CACHE_ENTRIES`], 16 MiB a core at most.
pub const CACHED_BODY_BYTES: u64 = 16 * 1024;

/// How long an entry is trusted without a look at the file system.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// A file ready to be served.
#[derive(Debug)]
pub struct Entry {
    content: Content,
    len: u64,
    /// Modification time in whole seconds, all that HTTP's dates can say.
    pub(super) modified: u64,
    /// The entity tag with its quotes, and `W/` before them if it is weak.
    pub(super) etag: String,
    /// `Content-Type`, `Last-Modified`, `ETag` and `Accept-Ranges`, as lines.
    pub(super) lines: String,
}

#[derive(Debug)]
enum Content {
    Memory(Box<[u8]>),
    File(File),
}

impl Entry {
    /// Takes over a file that has just been opened; `name` decides its content type.
    ///
    /// # Errors
    /// When a small file cannot be read.
    pub(super) fn new(
        file: File,
        meta: &Metadata,
        name: &Path,
        now: SystemTime,
    ) -> io::Result<Entry> {
        let (content, len) = if meta.len() <= CACHED_BODY_BYTES {
            let bytes = read_whole(&file, meta.len() as usize)?;
            let len = bytes.len() as u64;
            (Content::Memory(bytes), len)
        } else {
            (Content::File(file), meta.len())
        };
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let etag = etag(meta, len, modified, now);
        let date = imf_fixdate(modified);
        let lines = format!(
            "Content-Type: {}\r\nLast-Modified: {}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n",
            content_type(name),
            String::from_utf8_lossy(&date),
        );
        Ok(Entry { content, len, modified: unix_seconds(modified), etag, lines })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole content, if it is kept in memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes),
            Content::File(_) => None,
        }
    }

    /// The open file, if the content is not kept in memory.
    pub fn file(&self) -> Option<&File> {
        match &self.content {
            Content::Memory(_) => None,
            Content::File(file) => Some(file),
        }
    }
}

/// Reads `len` bytes, or fewer if the file has shrunk since it was measured.
fn read_whole(file: &File, len: usize) -> io::Result<Box<[u8]>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

/// Length and modification time make the tag. A file changed within the last two seconds may
/// change again without its time showing it, so its tag is weak (RFC 9110 §8.8.1).
fn etag(meta: &Metadata, len: u64, modified: SystemTime, now: SystemTime) -> String {
    let settled = now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(2));
    let weak = if settled { "" } else { "W/" };
    format!("{weak}\"{:x}.{:x}-{len:x}\"", meta.mtime(), meta.mtime_nsec())
}

/// The media type by the file's extension; text is taken to be UTF-8.
fn content_type(name: &Path) -> String {
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    match (mime.type_().as_str(), mime.subtype().as_str()) {
        ("text", _) | ("application", "javascript" | "json") => {
            format!("{}; charset=utf-8", mime.essence_str())
        }
        _ => mime.essence_str().to_owned(),
    }
}

/// A file in the cache.
#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    entry: Rc<Entry>,
    loaded: SystemTime,
    used: bool,
}

/// The files of one core.
#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    by_key: HashMap<Box<[u8]>, usize>,
    hand: usize,
    capacity: usize,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Cache {
        Cache { slots: Vec::new(), by_key: HashMap::new(), hand: 0, capacity: capacity.max(1) }
    }

    /// The entry of `key`, if it is still fresh.
    pub(super) fn get(&mut self, key: &[u8], now: SystemTime) -> Option<Rc<Entry>> {
        let slot = &mut self.slots[*self.by_key.get(key)?];
        // A clock that was set back makes every entry stale rather than eternal.
        let fresh = now.duration_since(slot.loaded).is_ok_and(|age| age < FRESH_FOR);
        slot.used = true;
        fresh.then(|| Rc::clone(&slot.entry))
    }

    /// Puts `entry` in the place of an older one of the same key, or of one not used lately.
    pub(super) fn put(&mut self, key: &[u8], entry: &Rc<Entry>, now: SystemTime, count: &Counters) {
        let slot = Slot { key: key.into(), entry: Rc::clone(entry), loaded: now, used: false };
        if let Some(&at) = self.by_key.get(key) {
            self.slots[at] = slot;
            return;
        }
        let at = if self.slots.len() < self.capacity {
            self.by_key.insert(slot.key.clone(), self.slots.len());
            self.slots.push(slot);
            return;
        } else {
            self.victim()
        };
        count.cache_evictions.add(1);
        self.by_key.remove(&self.slots[at].key);
        self.by_key.insert(slot.key.clone(), at);
        self.slots[at] = slot;
    }

    /// Forgets `key`: the file has gone.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(at) = self.by_key.remove(key) {
            self.slots.swap_remove(at);
            if let Some(moved) = self.slots.get(at) {
                self.by_key.insert(moved.key.clone(), at);
            }
        }
    }

    /// Forgets everything, to free descriptors.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.by_key.clear();
    }

    /// The next slot that was not used since the hand last passed. Ends within two rounds, for a
    /// round clears every mark.
    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[self.hand].used) {
                return self.hand;
            }
        }
    }
}
