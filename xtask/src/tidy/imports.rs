//! Who may use whom inside lb-userspace, and where aya may be used: DESIGN.md's import directions.
//!
//! What one crate may use of another is `manifests`' business.

use super::{Finding, rules::has_word};

const CRATE: &str = "lb-userspace/src/";

/// What a top-level module of lb-userspace may use of the others. Subsystems never use each other: they meet in `daemon`.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("capability", &[]),
    ("certificate", &[]),
    ("state_file", &[]),
    ("visible", &[]),
    ("config", &["certificate", "control", "visible"]), // the types of the plan that the configuration names
    ("control", &["config"]),
    ("telemetry", &["config", "control"]),
    ("dataplane", &["config", "control", "telemetry"]),
    ("proxy", &["capability", "certificate", "config", "control", "telemetry"]),
    ("health", &["certificate", "config", "control", "telemetry"]),
    ("failover", &["config", "control", "telemetry"]),
    ("alerts", &["config", "control"]),
    ("snmp", &["config", "control"]),
    ("admin", &["certificate", "config", "control", "state_file", "telemetry"]),
    ("ctl", &["certificate", "config", "control", "state_file", "visible"]),
    (
        "daemon",
        &[
            "capability",
            "certificate",
            "state_file",
            "config",
            "control",
            "telemetry",
            "dataplane",
            "proxy",
            "health",
            "failover",
            "alerts",
            "snmp",
            "admin",
        ],
    ),
];

/// Crates of which only some files may know: their interface churns, or they are the kernel's side of things.
const CONFINED: [(&str, &[&str]); 2] =
    [("aya", &["lb-userspace/src/dataplane", "lb-common/src/maps.rs", "tests/"]), ("aya_ebpf", &["lb-ebpf/"])];

/// Violations of one file; `code` is its text without comments and literals.
pub(super) fn check(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = confined(path, code);
    let Some(module) = path.strip_prefix(CRATE).filter(|path| !path.starts_with("bin/")) else { return findings };
    let parts: Vec<&str> = module.trim_end_matches(".rs").split('/').collect();
    let own = parts[0];
    if own == "lib" {
        findings.extend(undeclared(path, code));
        return findings;
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else { return findings };
    let from_here = format!("{}crate::", "super::".repeat(parts.len()));
    for (line, used) in uses(code, &from_here) {
        if used != own && MAY_USE.iter().any(|(name, _)| *name == used) && !allowed.contains(&used.as_str()) {
            findings.push(Finding::new(
                path,
                line,
                format!("{own} uses {used}: it may use only {}", allowed.join(", ")),
            ));
        }
    }
    findings
}

fn confined(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, places) in CONFINED {
        if path.starts_with("xtask/") || places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        let is_use =
            |line: &str| has_word(line, name) && (line.contains(&format!("{name}::")) || line.contains("use "));
        let lines = code.lines().enumerate().filter(|(_, line)| is_use(line));
        findings.extend(lines.map(|(i, _)| Finding::new(path, i + 1, format!("{name} outside {}", places.join(", ")))));
    }
    findings
}

/// Modules of lib.rs that [`MAY_USE`] does not know.
fn undeclared(path: &str, code: &str) -> Vec<Finding> {
    let declared = code.lines().enumerate().filter_map(|(i, line)| {
        let name = line.trim().trim_start_matches("pub").trim_start_matches("(crate)").trim().strip_prefix("mod ")?;
        Some((i + 1, name.trim_end_matches(';').trim()))
    });
    declared
        .filter(|(_, name)| MAY_USE.iter().all(|(known, _)| known != name))
        .map(|(line, name)| {
            Finding::new(path, line, format!("module {name}: say in xtask/src/tidy/imports.rs what it uses"))
        })
        .collect()
}

/// Line and first path segment of everything that is named from the root of the crate: `crate::x`, `crate::{x, y::z}`, and
/// `super::…::x` where the `super`s of `from_here` lead to the root.
fn uses(code: &str, from_here: &str) -> Vec<(usize, String)> {
    let supers = from_here.trim_end_matches("crate::");
    let mut found = Vec::new();
    for prefix in ["crate::", supers] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            let is_whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':');
            if !is_whole {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            found.extend(first_segments(&code[at + prefix.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first segments of a path or of a braced list of paths.
fn first_segments(rest: &str) -> Vec<String> {
    let word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(list) = rest.trim_start().strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(&list[start..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(&list[start..i]));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_use_only_what_they_may() {
        let rows = [
            ("control from dataplane", "dataplane.rs", "use crate::control::plan::Plan;", 0),
            ("health from dataplane", "dataplane.rs", "use crate::health::Monitor;", 1),
            ("in a list", "dataplane/maps.rs", "use crate::{config::Config, health::{a, b}, admin};", 2),
            ("over lines", "admin/serve.rs", "use crate::{\n    config,\n    dataplane::X,\n};", 1),
            ("by super", "health/icmp.rs", "use super::super::dataplane::X;", 1),
            ("own child by super", "health/icmp.rs", "use super::machine::X;", 0),
            ("a child with the name of another", "health/icmp.rs", "use super::admin;", 0),
            ("by path in code", "failover.rs", "fn f() { crate::dataplane::go() }", 1),
            ("the root knows all", "daemon.rs", "use crate::{admin, dataplane, health, failover};", 0),
            ("a binary knows all", "bin/lbd.rs", "use lb::daemon;", 0),
            ("config must not know control's tasks' users", "config.rs", "use crate::daemon;", 1),
            ("an unknown module", "lib.rs", "pub mod config;\nmod surprise;", 1),
        ];
        for (name, file, code, expected) in rows {
            let found = check(&format!("{CRATE}{file}"), code);
            assert_eq!(found.len(), expected, "{name}: {found:?}");
        }
    }

    #[test]
    fn aya_stays_in_its_places() {
        let rows = [
            ("lb-userspace/src/dataplane/maps.rs", "use aya::maps::Array;", 0),
            ("lb-userspace/src/health.rs", "use aya::maps::Array;", 1),
            ("lb-ebpf/src/maps.rs", "use aya_ebpf::maps::Array;", 0),
            ("lb-common/src/flow.rs", "use aya_ebpf::maps::Array;", 1),
            ("lb-common/src/lib.rs", "fn aya() {}", 0),
        ];
        for (path, code, expected) in rows {
            assert_eq!(check(path, code).len(), expected, "{path}: {code}");
        }
    }
}
