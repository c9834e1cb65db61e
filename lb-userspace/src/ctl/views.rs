//! The API's views as text: one function a view, from the value and the wanted look to lines. Pure.

use serde::Serialize;

use super::output::Tone;
use crate::control::{
    plan::Admission,
    view::{Health, NodeState, Severity, Traffic},
};

mod connections;
mod findings;
mod proxied;
mod requests;
mod revisions;
mod servers;
mod status;
mod vips;

pub(super) use connections::{connections, map_dump, maps, ring};
pub(super) use findings::{doctor, trace};
pub(super) use requests::{duration, requests, trace_url};
pub(super) use revisions::{changes, difference, revision, revisions, texts};
pub(super) use servers::{facts, node, nodes, pool, pools, virtual_server, virtual_servers};
pub(super) use status::status;
pub(super) use vips::{vip_status, vips};

/// The word that JSON has for a value: tables and JSON never differ.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], " ")
}

/// `1.5M`: a rate, a count that need not be exact.
pub(super) fn about(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T"], "")
}

fn scaled(mut value: f64, step: f64, units: &[&str], space: &str) -> String {
    let mut unit = 0;
    // What would be rounded to a full step is shown in the next unit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$}{space}{}", units[unit])
}

/// `2d 3h`, `1h 5m`, `12s`.
pub(super) fn seconds(count: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(size, _)| count >= *size).unwrap_or(3);
    let (size, unit) = units[first];
    let rest = units.get(first + 1).map(|(below, name)| (count % size / below, name)).filter(|(n, _)| *n > 0);
    match rest {
        Some((number, name)) => format!("{}{unit} {number}{name}", count / size),
        None => format!("{}{unit}", count / size),
    }
}

/// `80`, `80,8000-8100`, `all`.
fn ports(ranges: &[(u16, u16)]) -> String {
    if ranges == [(1, 65535)] {
        return "all".to_owned();
    }
    let range = |&(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// Packets and bytes.
fn traffic(traffic: Traffic) -> String {
    if traffic.packets == 0 { "0".to_owned() } else { format!("{} ({})", traffic.packets, bytes(traffic.bytes)) }
}

fn health_tone(health: Health) -> Tone {
    match health {
        Health::Up => Tone::Good,
        Health::Down => Tone::Bad,
        Health::Unknown => Tone::Attention,
    }
}

fn state_tone(state: NodeState) -> Tone {
    match state {
        NodeState::Active => Tone::Good,
        NodeState::Draining => Tone::Attention,
        NodeState::Disabled => Tone::Bad,
    }
}

fn admission_tone(admission: Admission) -> Tone {
    match admission {
        Admission::All => Tone::Good,
        Admission::Tracked => Tone::Attention,
        Admission::Nothing => Tone::Bad,
    }
}

fn severity_tone(severity: Severity) -> Tone {
    match severity {
        Severity::Ok => Tone::Good,
        Severity::Warning => Tone::Attention,
        Severity::Problem => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::plan::Forwarding;

    #[test]
    fn words_are_those_of_the_json() {
        assert_eq!(word(&Forwarding::NatSource), "nat_source");
        assert_eq!(word(&Health::Up), "up");
    }

    #[test]
    fn sizes_rates_and_times_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1_048_576, 200 * 1024].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "200 KiB"]
        );
        assert_eq!(
            [0.0, 999.0, 1000.0, 12_345.0, 999_999.0, 3.2e9].map(about),
            ["0", "999", "1.0k", "12.3k", "1.0M", "3.2G"]
        );
        assert_eq!([0, 59, 60, 3700, 90_000, 86_400].map(seconds), ["0s", "59s", "1m", "1h 1m", "1d 1h", "1d"]);
    }

    #[test]
    fn port_ranges_read_as_configured() {
        assert_eq!(ports(&[(80, 80), (8000, 8100)]), "80,8000-8100");
        assert_eq!(ports(&[(1, 65535)]), "all");
    }
}
