//! A trace as text: lines, includes, times.

use std::path::Path;
use std::time::Duration;

use super::Failure;

/// Files that a trace may include, counted with the files that those include.
const MAX_INCLUDES: usize = 16;

/// When a line happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At the time of the line before.
    Now,
    /// So much later.
    After(Duration),
    /// At this time of the trace's clock.
    At(Duration),
    /// Between now and so much later; for `expect` only.
    Within(Duration),
}

/// One line of a trace, split into words.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// `file:line`, for messages.
    pub(crate) place: String,
    /// The line as it stands.
    pub(crate) text: String,
    pub(crate) when: When,
    pub(crate) words: Vec<String>,
}

impl Line {
    pub(crate) fn fails(&self, why: impl std::fmt::Display) -> Failure {
        Failure(format!("{}: {}\n    {why}", self.place, self.text.trim()))
    }
}

/// Reads a trace with the files that it includes.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    let mut left = MAX_INCLUDES;
    read_into(path, &mut left, &mut lines)?;
    Ok(lines)
}

fn read_into(path: &Path, left: &mut usize, lines: &mut Vec<Line>) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    *left = left.checked_sub(1).ok_or_else(|| Failure(format!("{name}: too many includes")))?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    for (number, text) in text.lines().enumerate() {
        let code = text.split('#').next().unwrap_or_default();
        let mut words: Vec<String> = code.split_whitespace().map(str::to_owned).collect();
        let Some(first) = words.first().cloned() else { continue };
        let place = format!("{name}:{}", number + 1);
        let mut line = Line { place, text: text.to_owned(), when: When::Now, words: Vec::new() };
        if first == "include" {
            let [_, file] = &words[..] else { return Err(line.fails("include FILE")) };
            let dir = path.ancestors().nth(1).unwrap_or(Path::new(""));
            let dir = if dir.ends_with("include") { dir.to_owned() } else { dir.join("include") };
            read_into(&dir.join(file), left, lines)?;
            continue;
        }
        let time = |text: &str| duration(text).ok_or_else(|| line.fails("this is no time"));
        let (when, taken) = match first.split_at(1) {
            ("+", span) => (When::After(time(span)?), 1),
            ("@", at) => (When::At(time(at)?), 1),
            _ if first == "within" => {
                let span = words.get(1).ok_or_else(|| line.fails("within TIME expect …"))?;
                (When::Within(time(span)?), 2)
            }
            _ => (When::Now, 0),
        };
        line.when = when;
        words.drain(..taken);
        line.words = words;
        if line.words.is_empty() {
            return Err(line.fails("a time alone says nothing"));
        }
        lines.push(line);
    }
    Ok(())
}

/// A span of time with its unit: `250us`, `40ms`, `1.5s`, `2h`; zero needs none.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];
    let (number, unit) =
        units.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}
