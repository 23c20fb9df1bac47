//! `barewire doctor`: what this machine has and lacks for driving a network card.
//!
//! It reads and changes nothing, and needs no rights. The exit status is 1 if something has to be
//! mended before a card can be driven.

use std::process::ExitCode;

use barewire_driver::doctor::{self, Row};
use barewire_driver::pci::System;

use crate::output;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let rows = doctor::run(&System::default());
    for text in table(&rows) {
        output::line(text)?;
    }
    Ok(if doctor::failed(&rows) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The lines to print: a row each, with its remedy below it.
fn table(rows: &[Row]) -> Vec<String> {
    let width = rows.iter().map(|row| row.check.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in rows {
        lines.push(format!("{:4}  {:width$}  {}", row.status, row.check, row.detail));
        if let Some(fix) = &row.fix {
            lines.push(format!("{:4}  {:width$}  to mend it: {fix}", "", ""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::doctor::Status;

    #[test]
    fn remedies_stand_below_what_they_mend() {
        let row = |check: &str, status, fix: Option<&str>| Row {
            check: check.into(),
            status,
            detail: "detail".into(),
            fix: fix.map(str::to_owned),
        };
        let rows = [
            row("IOMMU", Status::Pass, None),
            row("hugepages", Status::Warn, Some("sudo sysctl vm.nr_hugepages=64")),
        ];
        assert_eq!(
            table(&rows),
            [
                "pass  IOMMU      detail",
                "warn  hugepages  detail",
                "                 to mend it: sudo sysctl vm.nr_hugepages=64",
            ]
        );
    }
}
