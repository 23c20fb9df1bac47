//! The `Date` field, made once a second.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of an IMF-fixdate (RFC 9110 §5.6.7).
pub(super) const DATE_LEN: usize = 29;

/// The text of the second that was asked for last.
#[derive(Clone, Debug)]
pub(super) struct DateCache {
    second: Option<u64>,
    text: [u8; DATE_LEN],
}

impl DateCache {
    pub(super) fn new() -> DateCache {
        DateCache { second: None, text: [b' '; DATE_LEN] }
    }

    /// `now` as an IMF-fixdate.
    pub(super) fn text(&mut self, now: SystemTime) -> &[u8; DATE_LEN] {
        let second = unix_seconds(now);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = imf_fixdate(now);
        }
        &self.text
    }
}

/// Whole seconds since 1970; earlier times count as 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `time` as text, brought into the years that HTTP can write.
pub(super) fn imf_fixdate(time: SystemTime) -> [u8; DATE_LEN] {
    let seconds = unix_seconds(time).min(LAST_SECOND);
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let mut text = [b' '; DATE_LEN];
    let date: &dyn fmt::Display = &httpdate::HttpDate::from(time);
    // The text is 29 bytes for every year up to 9999, so the write cannot come up short.
    let _ = write!(&mut text[..], "{date}");
    text
}

/// The end of the year 9999, the last that an IMF-fixdate can name.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_changes_with_the_second_and_only_then() {
        let mut cache = DateCache::new();
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(cache.text(at(784_111_777_000)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(at(784_111_777_999)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(at(784_111_778_000)), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }

    #[test]
    fn times_that_http_cannot_write_are_brought_into_range() {
        assert_eq!(
            &imf_fixdate(UNIX_EPOCH - Duration::from_secs(5)),
            b"Thu, 01 Jan 1970 00:00:00 GMT"
        );
        let late = UNIX_EPOCH + Duration::from_secs(LAST_SECOND * 10);
        assert_eq!(&imf_fixdate(late), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
