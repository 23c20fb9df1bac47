//! Arguments that several of the programs take, checked before anything runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A parser of numbers in `range`. Everything else is refused and nothing is moved to its bounds:
/// who asks for what cannot be done is not told of something else.
pub fn number(
    range: RangeInclusive<f64>,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
        // What is not a number is in no range.
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(format!("give a number from {} to {}", range.start(), range.end()))
        }
    }
}

/// A file that figures are to be written into, opened before anything is measured that could not be
/// written. What is in it stays until then: the measurement may be interrupted.
#[derive(Debug)]
pub struct FiguresFile {
    file: File,
    path: PathBuf,
}

impl FiguresFile {
    /// Opens the file, or makes one.
    ///
    /// # Errors
    /// Those of the system, with the path.
    pub fn open(path: &Path) -> io::Result<FiguresFile> {
        let path = path.to_owned();
        match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(FiguresFile { file, path }),
            Err(error) => Err(named(&path, &error)),
        }
    }

    /// Writes the figures in place of what was there.
    ///
    /// # Errors
    /// Those of the system, with the path.
    pub fn write(mut self, figures: &str) -> io::Result<()> {
        // A pipe or a terminal has no length.
        let _ = self.file.set_len(0);
        self.file.write_all(figures.as_bytes()).map_err(|error| named(&self.path, &error))
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_has_stays_until_there_are_figures() {
        let path = std::env::temp_dir().join(format!("barewire-figures-{}", std::process::id()));
        std::fs::write(&path, "earlier figures").unwrap();
        let file = FiguresFile::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier figures");
        file.write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        std::fs::remove_file(&path).unwrap();
        let error = FiguresFile::open(&path.join("none")).unwrap_err();
        assert!(error.to_string().contains("none: "), "{error}");
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_and_not_moved() {
        let seconds = number(0.1..=600.0);
        assert_eq!(
            (seconds("0.1"), seconds("600"), seconds("2e1")),
            (Ok(0.1), Ok(600.0), Ok(20.0))
        );
        for text in ["0", "0.09", "600.1", "-1", "1e9", "nan", "NaN", "inf", "-inf", "", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
