//! `lbctl alert`: who is told of events.

use super::{
    args::AlertVerbs,
    client::{Client, encode},
    events::time,
    failure::Failure,
    output::{Cell, Column, Look, Output, Tone, left, right, table},
};
use crate::control::{api::Empty, view::AlertView};

pub(super) fn run(client: &Client, output: &Output, verb: AlertVerbs) -> Result<(), Failure> {
    match verb {
        AlertVerbs::Ls => {
            let answer = client.get::<Vec<AlertView>>("alerts")?;
            output.answer(&answer, |alerts, look| list(alerts, look))?;
            if answer.value.is_empty() && !output.is_json() {
                output.note("nobody is told of events; see [alert.NAME] in docs/config.md");
            }
            Ok(())
        }
        AlertVerbs::Test { name } => {
            let answer = client.post::<Empty>(&format!("alerts/{}/test", encode(&name)), &Empty {})?;
            if output.is_json() {
                return output.answer(&answer, |_, _| String::new());
            }
            output.note(&format!("alert {name} was told a test"));
            Ok(())
        }
    }
}

fn list(alerts: &[AlertView], look: Look) -> String {
    let columns: Vec<Column<AlertView>> = vec![
        left("ALERT", |alert: &AlertView| Cell::new(&alert.name)),
        left("TYPE", |alert: &AlertView| Cell::new(&alert.kind)),
        left("TELLS", |alert: &AlertView| Cell::new(&alert.target)).wraps(),
        right("SENT", |alert: &AlertView| Cell::new(alert.counts.sent)),
        right("FAILED", |alert: &AlertView| counted(alert.counts.failed)),
        right("HELD BACK", |alert: &AlertView| Cell::new(alert.counts.held_back)),
        right("DROPPED", |alert: &AlertView| counted(alert.counts.dropped)).wide(),
        left("LAST", |alert: &AlertView| Cell::optional(alert.counts.last_sent_ms.map(time))).wide(),
        left("EVENT TYPES", |alert: &AlertView| Cell::new(alert.event_types.join(", "))).wide(),
        left("ENGINE ID", |alert: &AlertView| Cell::optional(alert.engine_id.as_ref())).wide(),
        left("PROBLEM", |alert: &AlertView| Cell::optional(alert.counts.problem.as_ref())).wraps(),
    ];
    table(columns, alerts, look)
}

fn counted(count: u64) -> Cell {
    if count == 0 { Cell::new(count) } else { Cell::toned(count, Tone::Bad) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::AlertCounts;

    #[test]
    fn alerts_read_as_a_table() {
        let counts = AlertCounts { sent: 3, failed: 1, problem: Some("refused".into()), ..AlertCounts::default() };
        let alert = AlertView {
            name: "ops".into(),
            kind: "snmp".into(),
            target: "10.0.0.9:162".into(),
            event_types: Vec::new(),
            engine_id: Some("80001f88".into()),
            counts,
        };
        let narrow = list(std::slice::from_ref(&alert), Look::default());
        assert!(narrow.contains("refused") && !narrow.contains("80001f88"), "{narrow}");
        let wide = list(&[alert], Look { wide: true, ..Look::default() });
        assert!(wide.contains("80001f88"), "{wide}");
    }
}
