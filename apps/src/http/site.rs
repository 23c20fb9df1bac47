//! A directory as a web site: requests in, responses out.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use barewire_driver::sys::{open_beneath, out_of_descriptors};

use super::cache::{CACHE_ENTRIES, Cache, Entry};
use super::counters::Counters;
use super::date::{DateCache, unix_seconds};
use super::path::SafePath;
use super::request::{Method, Request, Version, date, decimal, tokens};
use super::response::{Body, HeadWriter, Response, Status};

/// What a directory is served by.
const INDEX: &str = "index.html";

/// A directory being served by one core.
///
/// Names that begin with a dot are served like any other. Symbolic links are followed while they
/// stay inside the directory.
#[derive(Debug)]
pub struct Site {
    root: File,
    counters: Arc<Counters>,
    stopping: Arc<AtomicBool>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache,
    date: DateCache,
}

/// What a path stands for.
enum Found {
    File(Rc<Entry>),
    Directory,
    Nothing(Status),
}

/// How the conditions of a request came out.
enum Condition {
    /// The file, whole.
    Whole,
    /// One range of it.
    Part(Range<u64>),
    /// No file, but this status.
    Instead(Status),
}

impl Site {
    /// Serves the directory `root`. Once `stopping` is set, every answer ends its connection.
    ///
    /// # Errors
    /// When the directory cannot be opened, or is none.
    pub fn open(
        root: &Path,
        counters: Arc<Counters>,
        stopping: Arc<AtomicBool>,
    ) -> io::Result<Site> {
        let root = File::open(root)?;
        if !root.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let inner = Inner { cache: Cache::new(CACHE_ENTRIES), date: DateCache::new() };
        Ok(Site { root, counters, stopping, inner: RefCell::new(inner) })
    }

    /// What this site counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// True once every answer ends its connection.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Answers `request`: appends the head, and the body of an error, to `out`, and says what else
    /// there is to send.
    pub fn respond(&self, request: &Request<'_>, now: SystemTime, out: &mut Vec<u8>) -> Response {
        let inner = &mut *self.inner.borrow_mut();
        let found = match request.method {
            Method::Get | Method::Head => match SafePath::parse(request.target) {
                Ok(path) => self.find(&mut inner.cache, &path, now),
                Err(status) => Found::Nothing(status),
            },
            Method::Other => Found::Nothing(Status::MethodNotAllowed),
        };
        if request.expects_continue {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let close = !request.keep_alive || self.is_stopping();
        let (version, date) = (request.version, &mut inner.date);
        let mut head = HeadWriter { out, date, now, version, close };
        let (status, body) = match found {
            Found::File(entry) => file(&mut head, request, entry, now),
            Found::Directory => {
                // Parsed again rather than kept: this is the rare way.
                let location = SafePath::parse(request.target)
                    .map_or_else(|_| "/".into(), |path| path.directory_location());
                let extra = format!("Location: {location}\r\n");
                let status = Status::MovedPermanently;
                head.plain(status, &extra, request.method == Method::Head);
                (status, Body::None)
            }
            Found::Nothing(status) => {
                // RFC 9110 §15.5.6: a 405 names the methods that would do.
                let allow = status == Status::MethodNotAllowed;
                let extra = if allow { "Allow: GET, HEAD\r\n" } else { "" };
                head.plain(status, extra, request.method == Method::Head);
                (status, Body::None)
            }
        };
        self.count(status);
        Response { status, body, close }
    }

    /// Answers what is no request: a head that was refused, or a client that was too slow.
    pub fn refuse(&self, status: Status, now: SystemTime, out: &mut Vec<u8>) {
        let date = &mut self.inner.borrow_mut().date;
        let version = Version::Http11;
        HeadWriter { out, date, now, version, close: true }.plain(status, "", false);
        self.count(status);
    }

    fn count(&self, status: Status) {
        self.counters.requests.add(1);
        match status.code() {
            400..500 => self.counters.client_errors.add(1),
            500.. => self.counters.server_errors.add(1),
            _ => {}
        }
    }

    fn find(&self, cache: &mut Cache, path: &SafePath<'_>, now: SystemTime) -> Found {
        if !path.directory {
            return self.load(cache, path.key(), path.as_path(), now);
        }
        let index: PathBuf = Path::new(OsStr::from_bytes(path.key())).join(INDEX);
        match self.load(cache, index.as_os_str().as_bytes(), &index, now) {
            // A directory called index.html is no page, and there is no listing.
            Found::Directory => Found::Nothing(Status::NotFound),
            found => found,
        }
    }

    fn load(&self, cache: &mut Cache, key: &[u8], path: &Path, now: SystemTime) -> Found {
        if let Some(entry) = cache.get(key, now) {
            self.counters.cache_hits.add(1);
            return Found::File(entry);
        }
        self.counters.cache_misses.add(1);
        let opened = self.open_file(cache, path, now);
        match &opened {
            Found::File(entry) => cache.put(key, entry, now, &self.counters),
            Found::Directory | Found::Nothing(_) => cache.remove(key),
        }
        opened
    }

    fn open_file(&self, cache: &mut Cache, path: &Path, now: SystemTime) -> Found {
        let mut opened = open_beneath(&self.root, path);
        if opened.as_ref().is_err_and(out_of_descriptors) {
            // Descriptors that wait for a next request are the ones to give up.
            cache.clear();
            opened = open_beneath(&self.root, path);
        }
        let (file, meta) = match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((meta, file)) => (file, meta),
            Err(error) => return Found::Nothing(status_of(&error)),
        };
        if meta.is_dir() {
            return Found::Directory;
        }
        // A device, FIFO or socket has no content of a length that could be promised.
        if !meta.is_file() {
            return Found::Nothing(Status::Forbidden);
        }
        match Entry::new(file, &meta, path, now) {
            Ok(entry) => Found::File(Rc::new(entry)),
            Err(error) => Found::Nothing(status_of(&error)),
        }
    }
}

/// What a failed open means to the client.
fn status_of(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Status::NotFound
        }
        io::ErrorKind::PermissionDenied => Status::Forbidden,
        _ if out_of_descriptors(error) => Status::Unavailable,
        _ => Status::InternalError,
    }
}

/// The answer for a file: head into `head`, and the body.
fn file(
    head: &mut HeadWriter<'_>,
    request: &Request<'_>,
    entry: Rc<Entry>,
    now: SystemTime,
) -> (Status, Body) {
    let only_head = request.method == Method::Head;
    let (status, range) = match condition(request, &entry, now) {
        Condition::Whole => (Status::Ok, 0..entry.len()),
        Condition::Part(range) => (Status::PartialContent, range),
        Condition::Instead(Status::NotModified) => {
            // RFC 9110 §15.4.5: no more about the file than its validator.
            head.begin(Status::NotModified);
            head.field("ETag", &entry.etag);
            head.end();
            return (Status::NotModified, Body::None);
        }
        Condition::Instead(status) => {
            // RFC 9110 §15.5.17: a 416 tells the length.
            let extra = match status {
                Status::RangeNotSatisfiable => {
                    format!("Content-Range: bytes */{}\r\n", entry.len())
                }
                _ => String::new(),
            };
            head.plain(status, &extra, only_head);
            return (status, Body::None);
        }
    };
    head.begin(status);
    head.lines(&entry.lines);
    if status == Status::PartialContent {
        head.content_range(&range, entry.len());
    }
    head.number("Content-Length", range.end - range.start);
    head.end();
    let body = if only_head || range.is_empty() {
        Body::None
    } else if entry.bytes().is_some() {
        Body::Cached(entry, range.start as usize..range.end as usize)
    } else {
        Body::File { entry, offset: range.start, len: range.end - range.start }
    };
    (status, body)
}

/// The preconditions in the order of RFC 9110 §13.2.2.
fn condition(request: &Request<'_>, entry: &Entry, now: SystemTime) -> Condition {
    let etag = entry.etag.as_bytes();
    let changed_since = |time: SystemTime| entry.modified > unix_seconds(time);
    let failed = match request.if_match {
        Some(list) => !any_tag(list, |tag| strong_match(tag, etag)),
        None => request.if_unmodified_since.is_some_and(changed_since),
    };
    if failed {
        return Condition::Instead(Status::PreconditionFailed);
    }
    let unchanged = match request.if_none_match {
        Some(list) => any_tag(list, |tag| opaque(tag) == opaque(etag)),
        // RFC 9110 §13.1.3: ignored when If-None-Match is there.
        None => request.if_modified_since.is_some_and(|time| !changed_since(time)),
    };
    if unchanged {
        return Condition::Instead(Status::NotModified);
    }
    // RFC 9110 §14.2: Range has a meaning for GET only.
    let Some(range) = request.range.filter(|_| request.method == Method::Get) else {
        return Condition::Whole;
    };
    let current = request.if_range.is_none_or(|value| match value {
        [b'"', ..] | [b'W', b'/', ..] => strong_match(value, etag),
        // RFC 9110 §13.1.5: a date must match exactly and be a strong validator, which it is once
        // the file has rested for a second or more (§8.8.2.2); the tag knows.
        _ => {
            let exact = date(value).is_some_and(|time| unix_seconds(time) == entry.modified);
            exact && etag.starts_with(b"\"") && unix_seconds(now) > entry.modified
        }
    });
    if current { parse_range(range, entry.len()) } else { Condition::Whole }
}

/// True if one of the tags in a list passes `test`, or the list is `*`.
fn any_tag(list: &[u8], test: impl Fn(&[u8]) -> bool) -> bool {
    list.trim_ascii() == b"*" || tokens(list).any(test)
}

/// RFC 9110 §8.8.3.2: equal, and neither is weak.
fn strong_match(a: &[u8], b: &[u8]) -> bool {
    a == b && a.starts_with(b"\"")
}

/// A tag without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// A `Range` field (RFC 9110 §14.1.2) against a file of `len` bytes.
///
/// One range is served. Several, another unit and what is malformed are ignored, as §14.2 allows:
/// multipart bodies cost the server more than the file, and overlapping ranges have been used to
/// bring servers down.
fn parse_range(value: &[u8], len: u64) -> Condition {
    let unit = value.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes="));
    let Some(spec) = value.get(6..).filter(|_| unit).map(<[u8]>::trim_ascii) else {
        return Condition::Whole;
    };
    let Some(dash) = spec.iter().position(|&b| b == b'-') else { return Condition::Whole };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (first.is_empty(), last.is_empty(), decimal(first), decimal(last)) {
        (true, false, None, Some(0)) => Condition::Instead(Status::RangeNotSatisfiable),
        // The last bytes of an empty file are the whole of it; Content-Range cannot say so.
        (true, false, None, Some(_)) if len == 0 => Condition::Whole,
        (true, false, None, Some(count)) => Condition::Part(len.saturating_sub(count)..len),
        (false, true, Some(first), None) if first < len => Condition::Part(first..len),
        (false, false, Some(first), Some(last)) if first > last => Condition::Whole,
        (false, false, Some(first), Some(last)) if first < len => {
            Condition::Part(first..last.saturating_add(1).min(len))
        }
        (false, true, Some(_), None) | (false, false, Some(_), Some(_)) => {
            Condition::Instead(Status::RangeNotSatisfiable)
        }
        _ => Condition::Whole,
    }
}
