//! What is sent: an event, what was held back before it, or a test; as text and as JSON. Pure.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::control::event::{Entry, Name, Severity};

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// This machine.
    pub(super) machine: Arc<str>,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) subject: Subject,
    /// Events that were held back before this one, by name.
    pub(super) held_back: BTreeMap<Name, u64>,
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// An event, and the fault that it ends with its age.
    Event(Arc<Entry>, Option<(Name, Duration)>),
    /// What was held back, alone.
    HeldBack,
    /// An operator tries the alert.
    Test,
}

impl Notice {
    /// `fault`, `recovery`, `information`, `held_back`, `test`.
    pub(super) fn state(&self) -> &'static str {
        match &self.subject {
            Subject::Event(_, Some(_)) => "recovery",
            Subject::Event(entry, None) if entry.severity >= Severity::Warning => "fault",
            Subject::Event(..) => "information",
            Subject::HeldBack => "held_back",
            Subject::Test => "test",
        }
    }

    /// The event's name, or the state of what is none.
    pub(super) fn name(&self) -> &'static str {
        match &self.subject {
            Subject::Event(entry, _) => entry.name.word(),
            Subject::HeldBack | Subject::Test => self.state(),
        }
    }

    pub(super) fn severity(&self) -> Severity {
        match &self.subject {
            Subject::Event(entry, _) => entry.severity,
            Subject::HeldBack => Severity::Warning,
            Subject::Test => Severity::Info,
        }
    }

    pub(super) fn object(&self) -> &str {
        match &self.subject {
            Subject::Event(entry, _) => &entry.object,
            Subject::HeldBack | Subject::Test => "",
        }
    }

    /// Number of the event; 0 of what is none.
    pub(super) fn number(&self) -> u64 {
        match &self.subject {
            Subject::Event(entry, _) => entry.number,
            Subject::HeldBack | Subject::Test => 0,
        }
    }

    /// One line: what happened.
    pub(super) fn line(&self) -> String {
        let mut line = match &self.subject {
            Subject::Event(entry, None) => entry.text.clone(),
            Subject::Event(entry, Some((_, after))) => format!("{} (after {})", entry.text, time(*after)),
            Subject::HeldBack => "more happened than may be told".to_owned(),
            Subject::Test => "this is a test of the alert; nothing is wrong".to_owned(),
        };
        if !self.held_back.is_empty() {
            let held: Vec<String> =
                self.held_back.iter().map(|(name, count)| format!("{count} {}", name.word())).collect();
            // Writing to a string cannot fail.
            let _ = write!(line, "; held back before: {}", held.join(", "));
        }
        line
    }

    /// A short title, for a mail.
    pub(super) fn title(&self) -> String {
        let object = self.object();
        let space = if object.is_empty() { "" } else { " " };
        format!("[lb {}] {}: {}{space}{object}", self.machine, self.state(), self.name())
    }

    /// RFC 3339, in UTC, to the millisecond.
    pub(super) fn time(&self) -> String {
        let stamp = i64::try_from(self.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        stamp.map_or_else(String::new, |stamp| stamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    }

    pub(super) fn json(&self) -> Value {
        let held: BTreeMap<&str, u64> = self.held_back.iter().map(|(name, count)| (name.word(), *count)).collect();
        let ends = match &self.subject {
            Subject::Event(_, Some((name, after))) => Some((name.word(), after.as_secs())),
            Subject::Event(_, None) | Subject::HeldBack | Subject::Test => None,
        };
        json!({
            "machine": &*self.machine,
            "time": self.time(),
            "state": self.state(),
            "event": self.name(),
            "severity": self.severity().word(),
            "object": self.object(),
            "text": self.line(),
            "number": self.number(),
            "ends": ends.map(|(name, _)| name),
            "after_s": ends.map(|(_, after)| after),
            "held_back": held,
        })
    }
}

/// `2h 3m`, `12s`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::alerts) fn notice(name: Name, text: &str) -> Notice {
        let entry = Entry {
            number: 7,
            at_ms: 1_700_000_000_123,
            name,
            severity: name.severity(),
            object: "web/n1".into(),
            text: text.into(),
        };
        Notice {
            machine: "lb1".into(),
            at_ms: entry.at_ms,
            subject: Subject::Event(Arc::new(entry), None),
            held_back: BTreeMap::new(),
        }
    }

    #[test]
    fn a_fault_reads_as_text_and_json() {
        let notice = notice(Name::NodeDown, "node web/n1 is down: refused");
        assert_eq!(notice.title(), "[lb lb1] fault: node_down web/n1");
        assert_eq!(notice.line(), "node web/n1 is down: refused");
        let json = notice.json();
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(
            (&json["state"], &json["event"], &json["ends"]),
            (&json!("fault"), &json!("node_down"), &Value::Null)
        );
    }

    #[test]
    fn recoveries_say_how_long_it_took_and_what_was_held_back() {
        let mut notice = notice(Name::NodeUp, "node web/n1 is up again");
        let Subject::Event(_, ends) = &mut notice.subject else { panic!() };
        *ends = Some((Name::NodeDown, Duration::from_secs(192)));
        notice.held_back = [(Name::NodeDown, 3), (Name::NodeUp, 2)].into();
        assert_eq!(notice.line(), "node web/n1 is up again (after 3m 12s); held back before: 3 node_down, 2 node_up");
        let json = notice.json();
        assert_eq!(
            (&json["state"], &json["ends"], &json["after_s"]),
            (&json!("recovery"), &json!("node_down"), &json!(192))
        );
        assert_eq!(json["held_back"], json!({"node_down": 3, "node_up": 2}));
    }

    #[test]
    fn a_test_says_that_it_is_one() {
        let notice = Notice { subject: Subject::Test, ..notice(Name::NodeDown, "") };
        assert_eq!((notice.title(), notice.name()), ("[lb lb1] test: test".to_owned(), "test"));
        assert!(notice.line().contains("nothing is wrong"));
        assert_eq!([7500, 192, 9].map(|s| time(Duration::from_secs(s))), ["2h 5m", "3m 12s", "9s"]);
    }
}
