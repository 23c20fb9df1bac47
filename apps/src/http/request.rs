//! A request head: checked as a whole before anything acts on it.
//!
//! httparse splits the bytes; this file decides what they mean and refuses whatever two programs
//! could read in two ways (RFC 9112 §11.2, request smuggling).

use std::time::SystemTime;

use super::MAX_HEADERS;
use super::response::Status;

/// Version of HTTP that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: a connection lives for one request unless both sides say `keep-alive`.
    Http10,
    /// HTTP/1.1: a connection lives on unless one side says `close`.
    Http11,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// The head that GET would bring.
    Head,
    /// Anything else; this server has no use for it.
    Other,
}

/// A checked request head, borrowed from the connection's buffer.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is asked for.
    pub method: Method,
    /// The request target as it came.
    pub target: &'a str,
    /// The client's version.
    pub version: Version,
    /// Whether the connection goes on after the answer.
    pub keep_alive: bool,
    /// The `Range` field, unless there were several.
    pub range: Option<&'a [u8]>,
    /// The `If-Range` field.
    pub if_range: Option<&'a [u8]>,
    /// The `If-None-Match` field.
    pub if_none_match: Option<&'a [u8]>,
    /// The `If-Match` field.
    pub if_match: Option<&'a [u8]>,
    /// The `If-Modified-Since` field, if it is a date.
    pub if_modified_since: Option<SystemTime>,
    /// The `If-Unmodified-Since` field, if it is a date.
    pub if_unmodified_since: Option<SystemTime>,
    /// Bytes of body that follow the head.
    pub(super) content_length: u64,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// What a stretch of bytes turned out to be.
#[allow(clippy::large_enum_variant, reason = "a head is used at once; a box would cost more")]
pub(super) enum Head<'a> {
    /// The head goes on beyond these bytes.
    Partial,
    /// A head, and its length in bytes.
    Whole(Request<'a>, usize),
    /// The client gets this status, and the connection ends: nobody knows where the next request
    /// would begin.
    Refused(Status),
}

/// Reads the head at the start of `bytes`, which end with a line end.
///
/// A bare LF ends a line like CRLF does (RFC 9112 §2.2 allows it): there is no proxy behind this
/// server that could see the message differently.
pub(super) fn parse(bytes: &[u8]) -> Head<'_> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut fields);
    let len = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(httparse::Error::TooManyHeaders) => return Head::Refused(Status::HeaderTooLarge),
        Err(httparse::Error::Version) => return Head::Refused(Status::VersionNotSupported),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token,
        ) => return Head::Refused(Status::BadRequest),
    };
    match Fields::read(&raw).and_then(|fields| fields.into_request(&raw)) {
        Ok(request) => Head::Whole(request, len),
        Err(status) => Head::Refused(status),
    }
}

/// The header fields that matter, collected before they are judged together.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expect: Option<&'a [u8]>,
    range: Option<&'a [u8]>,
    ranges: usize,
    if_range: Option<&'a [u8]>,
    if_none_match: Option<&'a [u8]>,
    if_match: Option<&'a [u8]>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

impl<'a> Fields<'a> {
    fn read(raw: &httparse::Request<'_, 'a>) -> Result<Fields<'a>, Status> {
        let mut fields = Fields::default();
        for field in raw.headers.iter() {
            fields.add(field.name, field.value)?;
        }
        Ok(fields)
    }

    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), Status> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            // RFC 9112 §3.2: more than one Host field, or an invalid one, is answered 400.
            if self.host.is_some() || !valid_host(value) {
                return Err(Status::BadRequest);
            }
            self.host = Some(value);
        } else if is("content-length") {
            // RFC 9112 §6.3: a list or a repetition is refused, even of equal values.
            if self.content_length.is_some() {
                return Err(Status::BadRequest);
            }
            self.content_length = Some(decimal(value).ok_or(Status::BadRequest)?);
        } else if is("transfer-encoding") {
            if self.transfer_encoding.is_some() {
                return Err(Status::BadRequest);
            }
            self.transfer_encoding = Some(value);
        } else if is("connection") {
            for option in tokens(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("expect") {
            self.expect = Some(value);
        } else if is("range") {
            (self.range, self.ranges) = (Some(value), self.ranges + 1);
        } else if is("if-range") {
            self.if_range = Some(value);
        } else if is("if-none-match") {
            self.if_none_match = Some(value);
        } else if is("if-match") {
            self.if_match = Some(value);
        } else if is("if-modified-since") {
            self.if_modified_since = date(value);
        } else if is("if-unmodified-since") {
            self.if_unmodified_since = date(value);
        }
        Ok(())
    }

    /// Judges the fields together with the request line.
    fn into_request(self, raw: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Status> {
        let version = if raw.version == Some(0) { Version::Http10 } else { Version::Http11 };
        // RFC 9112 §3.2: a 1.1 request without Host is answered 400.
        if version == Version::Http11 && self.host.is_none() {
            return Err(Status::BadRequest);
        }
        if let Some(coding) = self.transfer_encoding {
            // RFC 9112 §6.1: both lengths at once, or Transfer-Encoding from a 1.0 client, is how
            // smuggling looks.
            if self.content_length.is_some() || version == Version::Http10 {
                return Err(Status::BadRequest);
            }
            // RFC 9112 §6.1 asks for 501 for a coding that is not understood; chunked is, but no
            // resource here takes content, and its length would only be known at its end.
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            return Err(if chunked { Status::LengthRequired } else { Status::NotImplemented });
        }
        let content_length = self.content_length.unwrap_or(0);
        let expects_continue = match self.expect {
            // RFC 9110 §10.1.1: a 1.0 client's expectation is ignored.
            Some(_) if version == Version::Http10 => false,
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => content_length > 0,
            Some(_) => return Err(Status::ExpectationFailed),
            None => false,
        };
        Ok(Request {
            method: match raw.method {
                Some("GET") => Method::Get,
                Some("HEAD") => Method::Head,
                _ => Method::Other,
            },
            target: raw.path.unwrap_or("/"),
            version,
            // RFC 9112 §9.3: `close` wins, then the version's default.
            keep_alive: !self.close && (version == Version::Http11 || self.keep_alive),
            range: self.range.filter(|_| self.ranges == 1),
            if_range: self.if_range,
            if_none_match: self.if_none_match,
            if_match: self.if_match,
            if_modified_since: self.if_modified_since,
            if_unmodified_since: self.if_unmodified_since,
            content_length,
            expects_continue,
        })
    }
}

/// The items of a comma-separated list, without the space around them.
pub(super) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// A number of nothing but digits (RFC 9110 §8.6: no sign, no space, no overflow).
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A date in any of the three forms of RFC 9110 §5.6.7; anything else counts as absent.
pub(super) fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// RFC 3986 §3.2.2: what a host and port may consist of. Empty is allowed (RFC 9112 §3.2).
fn valid_host(host: &[u8]) -> bool {
    host.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&b))
}
