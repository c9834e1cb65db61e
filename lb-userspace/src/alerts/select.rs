//! Which events an alert tells, and which of them end a fault that it told. Pure.

use std::collections::BTreeMap;

use crate::{
    config::alert::{Alert, Alerts, EventType},
    control::event::{Entry, Name, Severity},
};

/// Faults that are remembered until they are over; the oldest is forgotten beyond, and its recovery not told.
const MOST_FAULTS: usize = 4096;

/// What an alert tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    types: Vec<EventType>,
    recoveries: bool,
}

/// Faults that were told and are not over, with their times in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Faults(BTreeMap<(Name, String), u64>);

/// An event that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// When the fault that it ends began, milliseconds since 1970.
    pub(super) ends: Option<(Name, u64)>,
}

impl Selection {
    /// That of an alert.
    pub(super) fn new(alert: &Alert, all: &Alerts) -> Self {
        let types = alert.event_types.iter().filter_map(|name| all.event_types.get(name)).cloned();
        Self { types: types.collect(), recoveries: alert.recoveries }
    }

    /// Whether an event is told; notes faults and what ends them.
    pub(super) fn choose(&self, entry: &Entry, faults: &mut Faults) -> Option<Chosen> {
        let mut ends = None;
        for ended in entry.name.ends() {
            if let Some(at_ms) = faults.0.remove(&(*ended, entry.object.clone())) {
                ends = Some((*ended, at_ms));
            }
        }
        let wanted = self.wants(entry);
        if wanted && entry.name.is_fault() {
            faults.note(entry);
        }
        (wanted || self.recoveries && ends.is_some()).then_some(Chosen { ends })
    }

    fn wants(&self, entry: &Entry) -> bool {
        if self.types.is_empty() {
            return entry.severity >= Severity::Warning;
        }
        self.types.iter().any(|wanted| {
            entry.severity >= wanted.severity
                && (wanted.events.is_empty() || wanted.events.contains(&entry.name))
                && (wanted.objects.is_empty() || wanted.objects.iter().any(|pattern| fits(pattern, &entry.object)))
        })
    }
}

impl Faults {
    fn note(&mut self, entry: &Entry) {
        if self.0.len() >= MOST_FAULTS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(id, _)| id.clone())
        {
            self.0.remove(&oldest);
        }
        // One that is told again began at the first time.
        self.0.entry((entry.name, entry.object.clone())).or_insert(entry.at_ms);
    }
}

/// Whether a text is as a pattern says, in which `*` stands for any text. Linear but for the product of both lengths.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: Name, object: &str, at_ms: u64) -> Entry {
        Entry { number: 1, at_ms, name, severity: name.severity(), object: object.into(), text: String::new() }
    }

    fn of_type(wanted: EventType) -> Selection {
        Selection { types: vec![wanted], recoveries: true }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("web", "web", true),
            ("web", "web2", false),
            ("web/*", "web/n1", true),
            ("web/*", "webx/n1", false),
            ("*", "", true),
            ("*/n1", "web/n1", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn without_event_types_warnings_and_what_ends_them_are_told() {
        let selection = Selection { types: Vec::new(), recoveries: true };
        let mut faults = Faults::default();
        let mut choose = |name, object, at| selection.choose(&entry(name, object, at), &mut faults);
        let told = |ends| Some(Chosen { ends });
        assert_eq!(choose(Name::Started, "", 0), None);
        assert_eq!(choose(Name::NodeUp, "web/n1", 1), None, "nobody was told that it was down");
        assert_eq!(choose(Name::NodeDown, "web/n1", 2), told(None));
        assert_eq!(choose(Name::NodeUp, "web/n2", 3), None, "another node");
        assert_eq!(choose(Name::NodeUp, "web/n1", 4), told(Some((Name::NodeDown, 2))));
        assert_eq!(choose(Name::NodeUp, "web/n1", 5), None, "once");
        assert_eq!(choose(Name::VirtualServerDown, "v", 6), told(None));
        assert_eq!(choose(Name::VirtualServerFailedOver, "v", 7), told(Some((Name::VirtualServerDown, 6))));
        assert_eq!(choose(Name::VirtualServerUp, "v", 8), told(Some((Name::VirtualServerFailedOver, 7))));
    }

    #[test]
    fn event_types_choose_by_name_object_and_severity() {
        let all = EventType { events: Vec::new(), objects: Vec::new(), severity: Severity::Info };
        let chosen = |selection: &Selection, name, object: &str| {
            selection.choose(&entry(name, object, 0), &mut Faults::default()).is_some()
        };
        assert!(chosen(&of_type(all.clone()), Name::Started, ""));
        let named = of_type(EventType { events: vec![Name::NodeDown], ..all.clone() });
        assert!(chosen(&named, Name::NodeDown, "web/n1") && !chosen(&named, Name::PoolDown, "web"));
        let of_web = of_type(EventType { objects: vec!["web/*".into()], ..all.clone() });
        assert!(chosen(&of_web, Name::NodeDown, "web/n1") && !chosen(&of_web, Name::NodeDown, "api/n1"));
        let critical = of_type(EventType { severity: Severity::Critical, ..all });
        assert!(chosen(&critical, Name::PoolDown, "web") && !chosen(&critical, Name::NodeDown, "web/n1"));
    }

    #[test]
    fn recoveries_can_be_left_out_and_faults_are_bounded() {
        let selection = Selection { types: Vec::new(), recoveries: false };
        let mut faults = Faults::default();
        selection.choose(&entry(Name::NodeDown, "web/n1", 1), &mut faults).unwrap();
        assert_eq!(selection.choose(&entry(Name::NodeUp, "web/n1", 2), &mut faults), None);
        for number in 0..MOST_FAULTS as u64 + 10 {
            selection.choose(&entry(Name::NodeDown, &format!("web/{number}"), number), &mut faults).unwrap();
        }
        assert_eq!(faults.0.len(), MOST_FAULTS);
        assert!(!faults.0.contains_key(&(Name::NodeDown, "web/0".to_owned())), "the oldest went");
    }
}
