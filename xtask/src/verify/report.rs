//! What `verify-guest` prints: for each program `verify: program NAME INSTRUCTIONS` (as the kernel counts the instructions
//! its verifier walked, `bpf_prog_info.verified_insns`), how many golden packets there are by forwarding mode and family
//! (`verify: N golden packets: …`), at the end `verify: N verdicts ok`. It exits with 0 then.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, bail};

/// What was measured on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Instructions that the verifier walked, by program.
    pub(super) programs: BTreeMap<String, u32>,
    verdicts: u32,
    golden: String,
}

impl Report {
    /// Reads the program's output, or a console that has it among other lines.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in text.lines() {
            let Some((_, line)) = line.split_once("verify: ") else { continue };
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["program", name, count] => {
                    let count = count.parse().with_context(|| format!("no count of instructions: {line}"))?;
                    report.programs.insert(name.to_owned(), count);
                }
                [count, "verdicts", "ok"] => {
                    report.verdicts = count.parse().with_context(|| format!("no count of verdicts: {line}"))?;
                }
                [_, "golden", "packets:", ..] => line.clone_into(&mut report.golden),
                _ => bail!("not understood: verify: {line}"),
            }
        }
        if report.programs.is_empty() || report.verdicts == 0 {
            bail!("verify-guest did not say that it loaded a program and checked a verdict; it printed:\n{text}");
        }
        Ok(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} verdicts ok", self.verdicts)?;
        if !self.golden.is_empty() {
            write!(f, " ({})", self.golden.trim_end_matches(';'))?;
        }
        self.programs.iter().try_for_each(|(name, count)| write!(f, ", {name} {count} instructions verified"))
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_console_is_read() {
        let text = "[    1.2] boot\r\nverify: program lb_ingress 41234\r\nverify: 12 golden packets: dsr A 12;\r\nverify: 12 verdicts ok\r\nguest: exit 0\r\n";
        let report = Report::parse(text).expect("it is complete");
        assert_eq!(
            report.to_string(),
            "12 verdicts ok (12 golden packets: dsr A 12), lb_ingress 41234 instructions verified"
        );
    }

    #[test]
    fn what_is_incomplete_or_odd_is_refused() {
        for (text, expected) in [
            ("", "did not say"),
            ("verify: program lb_ingress 41234\n", "did not say"),
            ("verify: 12 verdicts ok\n", "did not say"),
            ("verify: program lb_ingress 41234\nverify: 0 verdicts ok\n", "did not say"),
            ("verify: program lb_ingress many\n", "no count"),
            ("verify: something else\n", "not understood"),
        ] {
            let error = Report::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
