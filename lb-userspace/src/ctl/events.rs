//! `lbctl events`: what happened, and what happens.

use super::{
    args::{EventArguments, EventVerbs},
    client::{Client, query_path},
    failure::Failure,
    output::{Cell, Column, Look, Output, Tone, left, table},
};
use crate::{
    control::event::{Entry, Events, Filter, Severity},
    visible,
};

/// How long the API waits for the next event, in seconds.
const WAIT: u64 = 15;

pub(super) fn run(client: &Client, output: &Output, verb: &EventVerbs) -> Result<(), Failure> {
    let EventVerbs::Ls(arguments) = verb;
    let mut filter = arguments.filter();
    if arguments.follow {
        return follow(client, output, arguments, filter);
    }
    // The number of the newest event is for those who ask again.
    filter.wait = None;
    let answer = client.get::<Events>(&query_path("events", &filter)?)?;
    output.answer(&answer, |events, look| list(&events.events, look))?;
    if answer.value.events.is_empty() && !output.is_json() {
        output.note("no event matches; events are kept since lbd started, 4096 at most");
    }
    Ok(())
}

/// A line an event, until lbd or the reader is gone.
fn follow(client: &Client, output: &Output, arguments: &EventArguments, filter: Filter) -> Result<(), Failure> {
    let mut answer = client.get::<Events>(&query_path("events", &filter)?)?.value;
    let mut filter = Filter { limit: None, wait: Some(WAIT), ..arguments.filter() };
    loop {
        for entry in &answer.events {
            let json = || serde_json::to_string(entry).map_err(std::io::Error::other);
            output.print(&if output.is_json() { json()? } else { line(entry) })?;
        }
        filter.after = Some(answer.newest);
        let next = client.get::<Events>(&query_path("events", &filter)?)?.value;
        // Another lbd counts from 1 again.
        answer = if next.newest < answer.newest {
            client.get::<Events>(&query_path("events", &Filter { after: None, wait: None, ..filter.clone() })?)?.value
        } else {
            next
        };
    }
}

fn list(events: &[Entry], look: Look) -> String {
    let columns: Vec<Column<Entry>> = vec![
        left("TIME", |entry: &Entry| Cell::new(time(entry.at_ms))),
        left("SEVERITY", |entry: &Entry| Cell::toned(entry.severity.word(), tone(entry.severity))),
        left("EVENT", |entry: &Entry| Cell::new(entry.name.word())),
        left("OBJECT", |entry: &Entry| Cell::new(&entry.object)).wide(),
        left("WHAT", |entry: &Entry| Cell::new(&entry.text)).wraps(),
    ];
    table(columns, events, look)
}

fn line(entry: &Entry) -> String {
    format!("{}  {:8}  {}  {}", time(entry.at_ms), entry.severity.word(), entry.name.word(), visible::line(&entry.text))
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Info => Tone::Neutral,
        Severity::Warning => Tone::Attention,
        Severity::Critical => Tone::Bad,
    }
}

/// In the time of this machine.
pub(super) fn time(at_ms: u64) -> String {
    let stamp = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zoned = stamp.map(|stamp| stamp.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(String::new, |zoned| zoned.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::event::Name;

    #[test]
    fn events_read_as_lines() {
        let entry = Entry {
            number: 7,
            at_ms: 1_700_000_000_000,
            name: Name::NodeDown,
            severity: Severity::Warning,
            object: "web/n1".into(),
            text: "node web/n1 is down: tcp: refused".into(),
        };
        assert!(line(&entry).ends_with("  warning   node_down  node web/n1 is down: tcp: refused"), "{}", line(&entry));
        let text = list(std::slice::from_ref(&entry), Look::default());
        assert!(text.contains("2023-11-1") && text.contains("node_down") && !text.contains("OBJECT"), "{text}");
    }
}
