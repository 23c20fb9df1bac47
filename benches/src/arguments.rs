//! Arguments that several of the programs take, checked before anything runs.

use std::ops::RangeInclusive;

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

#[cfg(test)]
mod tests {
    use super::*;

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
