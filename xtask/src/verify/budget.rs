//! `lb-ebpf/budget.txt`: the most instructions the verifier may walk, by program and kernel.
//!
//! The kernel gives up at a million; a program that nears it is one change away from not loading, on the oldest kernel
//! first. Pure: `verify` reads and writes the file.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, bail};

use super::report::Report;

/// The rows of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// By program and kernel (see [`row_of`]).
    rows: BTreeMap<(String, String), u32>,
}

/// The kernel that has a row of its own; every other one is held to `any`.
const FLOOR: &str = "6.1";

const HEADER: &str = "\
# The most instructions the verifier may walk, by program and kernel (any: every kernel without a row of its own).
# `cargo xtask verify` compares; `cargo xtask verify --update` writes what it measures and a twentieth more.
";

fn row_of(release: &str) -> String {
    let is_floor = release.strip_prefix(FLOOR).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    if is_floor { FLOOR } else { "any" }.to_owned()
}

impl Budget {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut rows = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let [program, kernel, count] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("line {}: not `program kernel instructions`: {line}", i + 1);
            };
            let count = count.parse().with_context(|| format!("line {}: not a number: {count}", i + 1))?;
            rows.insert((program.to_owned(), kernel.to_owned()), count);
        }
        Ok(Self { rows })
    }

    /// Takes over what was measured on a kernel, rounded up to hundreds after adding a twentieth.
    pub(super) fn set(&mut self, release: &str, report: &Report) {
        let kernel = row_of(release);
        self.rows.retain(|(_, row), _| *row != kernel);
        for (program, count) in &report.programs {
            self.rows.insert((program.clone(), kernel.clone()), (count + count / 20).next_multiple_of(100));
        }
    }

    /// What exceeds the budget, one sentence each.
    pub(super) fn excesses(&self, release: &str, report: &Report) -> Vec<String> {
        let kernel = row_of(release);
        let excess = |(program, count): (&String, &u32)| match self.rows.get(&(program.clone(), kernel.clone())) {
            None => Some(format!("{program} has no budget for Linux {release} (row {program} {kernel})")),
            Some(most) if count > most => {
                Some(format!("{program} takes {count} verified instructions on Linux {release}, the budget is {most}"))
            }
            Some(_) => None,
        };
        report.programs.iter().filter_map(excess).collect()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        self.rows.iter().try_for_each(|((program, kernel), count)| writeln!(f, "{program} {kernel} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: u32) -> Report {
        Report::parse(&format!("verify: program lb_ingress {count}\nverify: 1 verdicts ok\n")).expect("well formed")
    }

    #[test]
    fn a_budget_is_kept_or_exceeded() {
        let budget = Budget::parse("# words\n\nlb_ingress 6.1 1000\nlb_ingress any 900\n").expect("well formed");
        for (release, count, exceeded) in [
            ("6.1.0-56-amd64", 1000, false),
            ("6.1.0-56-amd64", 1001, true),
            ("6.18.3", 900, false),
            ("6.18.3", 901, true),
            ("6.10.1", 901, true),
        ] {
            assert_eq!(!budget.excesses(release, &report(count)).is_empty(), exceeded, "{release} {count}");
        }
        assert!(Budget::default().excesses("6.18.3", &report(1))[0].contains("no budget"));
    }

    #[test]
    fn an_update_replaces_only_the_rows_of_its_kernel() {
        let mut budget = Budget::parse("lb_ingress 6.1 1000\nold any 5\n").expect("well formed");
        budget.set("6.18.3", &report(10_000));
        let text = budget.to_string();
        assert!(text.ends_with("lb_ingress 6.1 1000\nlb_ingress any 10500\n"), "{text}");
        assert_eq!(Budget::parse(&text).expect("it wrote it"), budget);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Budget::parse("# x\nlb_ingress 1000\n").expect_err("a column is missing").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
