//! `lbctl status`.

use std::fmt::Write;

use lb_common::reason::{Action, Reason};

use super::{
    super::output::{Cell, Look, Tone, left, paint, right, table},
    bytes, seconds,
};
use crate::control::view::{InterfaceView, Status, TableUse, Traffic};

/// Fill of a table from which it is marked (THREATS D4).
const ALARM: f64 = 70.0;

/// The daemon on one screen.
pub(in crate::ctl) fn status(status: &Status, look: Look) -> String {
    let mut text = format!(
        "{} {}, process {}, up {}\n",
        paint("lbd", Tone::Neutral, look),
        status.version,
        status.pid,
        seconds(status.uptime_s)
    );
    // Writing to a String cannot fail.
    let revision = status.config_revision.map_or_else(|| "not recorded".to_owned(), |n| format!("revision {n}"));
    let _ =
        writeln!(text, "configuration  {}, {revision} (accepted: {})", status.config_file, status.config_generation);
    let _ = writeln!(text, "data path      {}", status.data_path);
    if let Some(worker) = &status.worker {
        let pid = worker.pid.map_or_else(|| "none".to_owned(), |pid| format!("process {pid}"));
        let serves = if worker.ready { "serves" } else { "does not serve" };
        let (connections, sessions) = (worker.connections, worker.sessions);
        let _ = writeln!(text, "L7 worker      {pid}, {serves}, {connections} connections, {sessions} sessions");
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "{} {warning}", paint("warning:", Tone::Attention, look));
    }
    if let Some(error) = &status.config_error {
        let _ =
            writeln!(text, "\n{}\n{}", paint("why the last reload was refused:", Tone::Bad, look), error.trim_end());
    }
    text.push('\n');
    text.push_str(&interfaces(&status.interfaces, look));
    text.push('\n');
    text.push_str(&tables(status, look));
    text
}

fn interfaces(interfaces: &[InterfaceView], look: Look) -> String {
    let of = |action| move |interface: &InterfaceView| Cell::new(sum(interface, Some(action)).packets);
    let columns = vec![
        left("INTERFACE", |i: &InterfaceView| Cell::new(&i.name)),
        left("XDP", |i: &InterfaceView| {
            let tone = match i.mode.as_str() {
                "native" => Tone::Good,
                "generic" => Tone::Attention,
                _ => Tone::Bad,
            };
            Cell::toned(&i.mode, tone)
        }),
        right("PACKETS", |i: &InterfaceView| Cell::new(sum(i, None).packets)),
        right("BYTES", |i: &InterfaceView| Cell::new(bytes(sum(i, None).bytes))),
        right("SENT", of(Action::Send)),
        right("PASSED", of(Action::Pass)),
        right("DROPPED", of(Action::Drop)),
    ];
    table(columns, interfaces, look)
}

/// Traffic of an interface that ended in an action, or in any.
fn sum(interface: &InterfaceView, action: Option<Action>) -> Traffic {
    let ended = |name: &str| Reason::ALL.iter().find(|reason| reason.name() == name).map(|reason| reason.action());
    interface.reasons.iter().filter(|(name, _)| action.is_none() || ended(name) == action).fold(
        Traffic::default(),
        |sum, (_, more)| Traffic { packets: sum.packets + more.packets, bytes: sum.bytes + more.bytes },
    )
}

fn tables(status: &Status, look: Look) -> String {
    let rows: Vec<(&String, &TableUse)> = status.tables.iter().collect();
    let columns = vec![
        left("TABLE", |row: &(&String, &TableUse)| Cell::new(row.0)),
        right("RECORDS", |row: &(&String, &TableUse)| Cell::new(row.1.used)),
        right("PLACES", |row: &(&String, &TableUse)| Cell::new(row.1.capacity)),
        right("FILL", |row: &(&String, &TableUse)| {
            let percent = row.1.used as f64 * 100.0 / row.1.capacity.max(1) as f64;
            let tone = if percent >= ALARM { Tone::Bad } else { Tone::Neutral };
            Cell::toned(format!("{percent:.1}%"), tone)
        }),
    ];
    table(columns, &rows, look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_by_what_became_of_them() {
        let reason = |name: &str, packets| (name.to_owned(), Traffic { packets, bytes: packets * 100 });
        let reasons = [reason("forwarded_dsr", 5), reason("not_virtual", 3), reason("zero_port", 2)].into();
        let interface = InterfaceView { name: "eth0".into(), ifindex: 2, mode: "native".into(), reasons };
        let tables = [("FLOWS".to_owned(), TableUse { used: 71, capacity: 100 })].into();
        let text = status(
            &Status { interfaces: vec![interface], tables, warnings: vec!["look".into()], ..Status::default() },
            Look::default(),
        );
        assert!(text.contains("warning: look\n"), "{text}");
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace();
        assert_eq!(row("eth0").collect::<Vec<_>>(), ["eth0", "native", "10", "1000", "B", "5", "3", "2"]);
        assert_eq!(row("FLOWS").collect::<Vec<_>>(), ["FLOWS", "71", "100", "71.0%"]);
    }
}
