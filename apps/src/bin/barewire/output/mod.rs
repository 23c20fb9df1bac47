//! What the command prints, and where: results and the ready line to standard output, everything
//! for a person watching (the live line, errors) to standard error.

mod figures;

pub(crate) use figures::{LiveLine, Rates, bits, bytes, count};

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use barewire_driver::LinkState;

/// A failure, with what to do next.
#[derive(Debug)]
pub(crate) struct Advice {
    what: String,
    next: String,
}

impl Advice {
    pub(crate) fn new(what: impl Into<String>, next: impl Into<String>) -> Advice {
        Advice { what: what.into(), next: next.into() }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  next: {}", self.what, self.next)
    }
}

impl Error for Advice {}

/// Prints one line to standard output, for people and for programs that wait for it.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// The state of a link, in words.
pub(crate) fn link(state: LinkState) -> String {
    match (state.up, state.speed_mbps) {
        (false, _) => "down".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(mbps)) => format!("up, {mbps} Mbit/s"),
    }
}

/// Prints why the command failed.
pub(crate) fn error(error: &anyhow::Error) {
    // There is nowhere left to say that this could not be said.
    let _ = writeln!(io::stderr().lock(), "{}", describe(error));
}

/// The error and its causes, the outermost first; a cause that the text before it tells already is
/// not told twice.
fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let cause: Result<(), _> = Err(Advice::new("no such device", "try `barewire devices`"));
        let error = cause.context("tap:bw0 could not be opened").unwrap_err();
        assert_eq!(
            describe(&error),
            "error: tap:bw0 could not be opened\n  because: no such device\n  next: try `barewire devices`"
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_repeated() {
        let io = io::Error::from(io::ErrorKind::NotFound);
        let text = format!("site: {io}");
        let error = anyhow::Error::new(io).context(text.clone());
        assert_eq!(describe(&error), format!("error: {text}"));
    }
}
