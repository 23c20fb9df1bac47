//! A row of figures: in a table for people, in JSON for programs.

use std::fmt;

use serde_json::{Value, json};

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// At least this many times the peer's figure.
    Times(f64),
    /// At most this much, whatever the peer has.
    AtMost(f64),
    /// Nothing: the row is there to be read.
    None,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Times(times) => write!(f, ">= {times} x"),
            Target::AtMost(most) => write!(f, "<= {most}"),
            Target::None => f.write_str("-"),
        }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) unit: &'static str,
    /// Medians.
    pub(crate) ours: f64,
    pub(crate) peer_value: f64,
    /// The median of the ratios of neighbouring turns, ours to the peer's.
    pub(crate) ratio: f64,
    /// The range of those ratios in parts of their median.
    pub(crate) spread: f64,
    pub(crate) target: Target,
    /// What else is to be said.
    pub(crate) note: Option<String>,
}

impl Row {
    /// Whether the target is met, if there is one.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.target {
            Target::Times(times) => Some(self.ratio >= times),
            Target::AtMost(most) => Some(self.ours <= most),
            Target::None => None,
        }
    }

    /// Whether the ratio is nearer to its target than turns differed: then nothing is decided.
    pub(crate) fn is_uncertain(&self) -> bool {
        match self.target {
            Target::Times(times) => self.spread * self.ratio >= (self.ratio - times).abs(),
            // Counted, not timed.
            Target::AtMost(_) | Target::None => false,
        }
    }

    /// Everything that is to be said beside the figures.
    pub(crate) fn notes(&self) -> Option<String> {
        let uncertain = self.is_uncertain().then(|| {
            format!(
                "ratios of turns range over {:.2}, and {:.2} is {} by less: another run may say \
                 otherwise",
                self.spread * self.ratio,
                self.ratio,
                if self.met() == Some(true) { "met" } else { "missed" },
            )
        });
        let notes: Vec<String> = uncertain.into_iter().chain(self.note.clone()).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// An object with the row's figures.
    fn json(&self) -> Value {
        let target = match self.target {
            Target::None => None,
            Target::Times(_) | Target::AtMost(_) => Some(self.target.to_string()),
        };
        json!({
            "workload": self.workload,
            "peer": self.peer,
            "unit": self.unit,
            "ours": rounded(self.ours),
            "peer_value": rounded(self.peer_value),
            "ratio": rounded(self.ratio),
            "spread": rounded(self.spread),
            "target": target,
            "met": self.met(),
            "note": self.notes(),
        })
    }
}

/// Four digits behind the point. What is no number, or infinite, becomes null in JSON.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// All rows as one array.
pub(crate) fn json(rows: &[Row]) -> String {
    format!("{:#}\n", rows.iter().map(Row::json).collect::<Value>())
}

/// The table's first line.
pub(crate) fn heading() -> String {
    format!(
        "{:<25} {:<16} {:>12} {:>12} {:<7} {:>8} {:>7}  {:<9} met",
        "workload", "peer", "ours", "peer's", "unit", "ratio", "spread", "target"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.ours.min(self.peer_value) < 1000.0 { 2 } else { 0 };
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let mark = if self.is_uncertain() { " *" } else { "" };
        write!(
            f,
            "{:<25} {:<16} {:>12.digits$} {:>12.digits$} {:<7} {:>8.2} {:>5.0} %  {:<9} {met}{mark}",
            self.workload,
            self.peer,
            self.ours,
            self.peer_value,
            self.unit,
            self.ratio,
            self.spread * 100.0,
            self.target.to_string(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: Target) -> Row {
        Row {
            workload: "tcp-echo",
            peer: "smoltcp",
            unit: "op/s",
            ours: 400.0,
            peer_value: 200.0,
            ratio: 2.0,
            spread: 0.05,
            target,
            note: None,
        }
    }

    #[test]
    fn a_target_is_of_the_ratio_or_of_our_figure() {
        assert_eq!(row(Target::Times(2.0)).met(), Some(true));
        assert_eq!(row(Target::Times(2.1)).met(), Some(false));
        assert_eq!(row(Target::AtMost(400.0)).met(), Some(true));
        assert_eq!(row(Target::AtMost(399.0)).met(), Some(false));
        assert_eq!(row(Target::None).met(), None);
    }

    #[test]
    fn json_has_every_field() {
        let loud = Some("a \"b\" \\ \n µs".to_owned());
        let rows = [
            Row { spread: 0.041_26, ..row(Target::Times(1.5)) },
            Row { ratio: f64::NAN, note: loud.clone(), ..row(Target::None) },
        ];
        let first = json!({
            "workload": "tcp-echo", "peer": "smoltcp", "unit": "op/s", "ours": 400.0,
            "peer_value": 200.0, "ratio": 2.0, "spread": 0.0413, "target": ">= 1.5 x", "met": true,
            "note": null,
        });
        let mut second = first.clone();
        for (name, value) in [
            ("ratio", Value::Null),
            ("spread", json!(0.05)),
            ("target", Value::Null),
            ("met", Value::Null),
            ("note", json!(loud)),
        ] {
            second[name] = value;
        }
        let read: Value = serde_json::from_str(&json(&rows)).unwrap();
        assert_eq!(read, json!([first, second]));
    }

    #[test]
    fn a_target_within_the_spread_is_told_as_such() {
        let noted = |target, spread, note: Option<&str>| {
            let note = note.map(str::to_owned);
            Row { spread, note, ..row(target) }.notes()
        };
        // The ratio is 2.
        assert_eq!(noted(Target::Times(1.8), 0.08, None), None);
        assert!(noted(Target::Times(1.8), 0.12, None).unwrap().contains("2.00 is met by less"));
        assert!(noted(Target::Times(2.2), 0.12, None).unwrap().contains("2.00 is missed by less"));
        assert_eq!(noted(Target::AtMost(400.0), 0.1, None), None);
        assert_eq!(noted(Target::None, 1.0, Some("loud")), Some("loud".to_owned()));
        let both = noted(Target::Times(1.8), 0.12, Some("loud")).unwrap();
        assert!(both.ends_with("otherwise; loud"), "{both}");
        assert!(row(Target::Times(2.0)).to_string().ends_with("yes *"));
        assert!(row(Target::Times(1.0)).to_string().ends_with("yes"));
    }
}
