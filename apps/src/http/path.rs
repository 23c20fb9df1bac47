//! From a request target to a path below the root.
//!
//! The path is decoded once, split, and rebuilt from its plain segments, so what reaches the file
//! system has no `..`, no empty segment and no NUL. Links are the file system's side of the same
//! promise: [`barewire_driver::sys::open_beneath`].

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode, utf8_percent_encode};

use super::response::Status;

/// What stands unescaped in a path besides letters and digits (RFC 3986 §3.3, `pchar` and "/").
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A target's path, safe to open beneath a root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SafePath<'a> {
    /// Relative, without leading or trailing slash; empty for the root.
    bytes: Cow<'a, [u8]>,
    /// The target ended with a slash: it names a directory.
    pub(super) directory: bool,
    /// What followed the `?`, still escaped.
    query: Option<&'a str>,
}

impl<'a> SafePath<'a> {
    /// Reads an origin-form or absolute-form target (RFC 9112 §3.2).
    ///
    /// # Errors
    /// 400 for any other form, a broken escape, NUL or `..`; 404 for an escaped slash, which no
    /// file name can contain.
    pub(super) fn parse(target: &'a str) -> Result<SafePath<'a>, Status> {
        let (path, query) = match origin_form(target)?.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin_form(target)?, None),
        };
        let decoded = decode(path)?;
        let directory = decoded.last() == Some(&b'/') || decoded.ends_with(b"/.");
        let bytes = match decoded {
            Cow::Borrowed(bytes) if plain(bytes) => Cow::Borrowed(trim(bytes)),
            bytes => Cow::Owned(rebuild(&bytes)?),
        };
        Ok(SafePath { bytes, directory, query })
    }

    /// The path to open, relative to the root; `.` for the root itself.
    pub(super) fn as_path(&self) -> &Path {
        match self.bytes.as_ref() {
            b"" => Path::new("."),
            bytes => Path::new(OsStr::from_bytes(bytes)),
        }
    }

    /// The bytes that tell one path from another.
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes
    }

    /// The same path, escaped, with a slash at its end and its query: where a directory lives. It
    /// begins with exactly one slash, so that it cannot be read as another host's address.
    pub(super) fn directory_location(&self) -> String {
        let path = percent_encode(&self.bytes, ESCAPED);
        let slash = if self.bytes.is_empty() { "" } else { "/" };
        match self.query {
            Some(query) => format!("/{path}{slash}?{}", utf8_percent_encode(query, CONTROLS)),
            None => format!("/{path}{slash}"),
        }
    }
}

/// The target from its path on. The authority of an absolute-form target is not needed: there is
/// one site, whatever it is called.
fn origin_form(target: &str) -> Result<&str, Status> {
    if target.contains('#') {
        return Err(Status::BadRequest);
    }
    if target.starts_with('/') {
        return Ok(target);
    }
    let Some((scheme, rest)) = target.split_once("://") else { return Err(Status::BadRequest) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Status::BadRequest);
    }
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    match &rest[authority..] {
        _ if authority == 0 => Err(Status::BadRequest),
        "" => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        // RFC 9110 §4.2.3: an empty path is "/"; the query has no use without one.
        _ => Ok("/"),
    }
}

fn decode(path: &str) -> Result<Cow<'_, [u8]>, Status> {
    let bytes = path.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(b"2f" | b"2F") => return Err(Status::NotFound),
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(Status::BadRequest),
        }
    }
    let decoded: Cow<'_, [u8]> = percent_decode(bytes).into();
    if decoded.contains(&0) { Err(Status::BadRequest) } else { Ok(decoded) }
}

/// True if rebuilding would change nothing but the slashes at both ends.
fn plain(path: &[u8]) -> bool {
    let inner = trim(path);
    path.starts_with(b"/")
        && path.len() - inner.len() <= 2
        && (inner.is_empty()
            || inner.split(|&b| b == b'/').all(|segment| !matches!(segment, b"" | b"." | b"..")))
}

fn trim(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

fn rebuild(path: &[u8]) -> Result<Vec<u8>, Status> {
    let mut clean = Vec::with_capacity(path.len());
    for segment in path.split(|&b| b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => return Err(Status::BadRequest),
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> Result<(String, bool), Status> {
        let path = SafePath::parse(target)?;
        Ok((String::from_utf8_lossy(path.key()).into_owned(), path.directory))
    }

    #[test]
    fn plain_targets_become_relative_paths() {
        for (target, expect, directory) in [
            ("/", "", true),
            ("/a/b.txt", "a/b.txt", false),
            ("/a/b/?q=/../x", "a/b", true),
            ("/a%20b%c3%a9", "a b\u{e9}", false),
            ("//a///./b//", "a/b", true),
            ("/a/.", "a", true),
            ("/.../..a", ".../..a", false),
            ("http://host:80/a", "a", false),
            ("HTTP://host", "", true),
            ("http://host?q", "", true),
        ] {
            assert_eq!(path(target), Ok((expect.into(), directory)), "{target}");
        }
    }

    #[test]
    fn targets_that_try_to_leave_are_refused() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/a/../../b",
            "/%2e%2e/x",
            "/a/%2E./b",
            "/a/..",
            "/a\u{0}",
            "/%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a#b",
            "*",
            "a/b",
            "",
            "ftp://host/a",
            "http:///a",
        ] {
            assert_eq!(path(target), Err(Status::BadRequest), "{target}");
        }
        for target in ["/a%2fb", "/..%2F..%2Fetc"] {
            assert_eq!(path(target), Err(Status::NotFound), "{target}");
        }
    }

    #[test]
    fn a_directory_is_redirected_within_this_host() {
        let location = |target| SafePath::parse(target).map(|p| p.directory_location());
        assert_eq!(location("//evil.example").as_deref(), Ok("/evil.example/"));
        assert_eq!(location("/a%0d%0aSet-Cookie:x").as_deref(), Ok("/a%0D%0ASet-Cookie:x/"));
        assert_eq!(location("/%5c%5cevil?x=1").as_deref(), Ok("/%5C%5Cevil/?x=1"));
    }

    proptest! {
        #[test]
        fn no_target_yields_a_path_that_climbs(target in "[/.%20-9a-fA-F?#]{0,40}|.{0,40}") {
            if let Ok(path) = SafePath::parse(&target) {
                let key = path.key();
                prop_assert!(!key.contains(&0) && !key.starts_with(b"/") && !key.ends_with(b"/"));
                if !key.is_empty() {
                    let climbs = |s: &[u8]| matches!(s, b"" | b"." | b"..");
                    prop_assert!(!key.split(|&b| b == b'/').any(climbs));
                }
                prop_assert!(path.directory_location().is_ascii());
                prop_assert!(!path.directory_location().starts_with("//"));
            }
        }
    }
}
