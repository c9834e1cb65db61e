//! The certificates of the configuration in force: which there are, and when to tell that one ends soon.

use std::collections::BTreeMap;

use crate::{
    certificate::{Expiry, Facts},
    config::Config,
    control::{
        event::{Fact, Name},
        view::CertificateView,
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    facts: Vec<(String, Facts)>,
    /// What was told of each: again when it is another step.
    told: BTreeMap<String, Step>,
    /// Whether there was a configuration before.
    read_before: bool,
}

/// A step towards a certificate's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    NotYet,
    Within(i64),
    Expired,
}

impl Certificates {
    /// Reads those of a configuration, which was checked: what cannot be read is not in it. Tells of those that are other ones
    /// than before; the first time nothing is new.
    pub(super) fn read(&mut self, config: &Config) -> Vec<Fact> {
        let facts: Vec<_> = config.proxy.files.check_certificates(config).unwrap_or_default().into_iter().collect();
        let before = std::mem::replace(&mut self.facts, facts);
        self.told.retain(|name, _| self.facts.iter().any(|(known, _)| known == name));
        if !std::mem::replace(&mut self.read_before, true) {
            return Vec::new();
        }
        let loaded = loaded(&before, &self.facts);
        // One that replaces another may end soon as well: that is told again.
        self.told.retain(|name, _| loaded.iter().all(|fact| fact.object != *name));
        loaded
    }

    /// Certificates that came a step nearer to their end by `now` (seconds since 1970).
    pub(super) fn ending(&mut self, now: i64) -> Vec<Fact> {
        let mut ending = Vec::new();
        for (name, facts) in &self.facts {
            let Some(expiry) = facts.expiry(now) else {
                self.told.remove(name);
                continue;
            };
            let (event, step) = match expiry {
                Expiry::NotYetValid => (Name::CertificateExpiring, Step::NotYet),
                Expiry::Soon { within, .. } => (Name::CertificateExpiring, Step::Within(within)),
                Expiry::Expired => (Name::CertificateExpired, Step::Expired),
            };
            if self.told.insert(name.clone(), step) != Some(step) {
                let text = format!("certificate {name} ({}) {expiry}", facts.names.join(", "));
                ending.push(Fact::new(event, name, text));
            }
        }
        ending
    }

    /// What `lbctl status` warns of.
    pub(super) fn warnings(&self, now: i64) -> impl Iterator<Item = String> {
        let ending = self.facts.iter().filter_map(move |(name, facts)| Some((name, facts, facts.expiry(now)?)));
        ending.map(|(name, facts, expiry)| format!("certificate {name:?} ({}) {expiry}", facts.names.join(", ")))
    }

    /// All of them, by name.
    pub(super) fn views(&self) -> Vec<CertificateView> {
        let view = |(name, facts): &(String, Facts)| CertificateView {
            name: name.clone(),
            subject: facts.subject.clone(),
            names: facts.names.clone(),
            not_after: facts.not_after,
        };
        self.facts.iter().map(view).collect()
    }
}

/// Certificates that are other ones than before, or new.
fn loaded(before: &[(String, Facts)], now: &[(String, Facts)]) -> Vec<Fact> {
    let told = |(name, facts): &(String, Facts)| {
        let text = format!("certificate {name} ({}) is in use now", facts.names.join(", "));
        Fact::new(Name::CertificateLoaded, name, text)
    };
    now.iter().filter(|one| !before.contains(one)).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn one(not_after: i64) -> Certificates {
        let facts = Facts {
            subject: "CN=a".into(),
            issuer: "CN=ca".into(),
            serial: "1".into(),
            names: vec!["a.example".into()],
            key: "ECDSA P-256".into(),
            not_before: 0,
            not_after,
            fingerprint: String::new(),
            is_ca: false,
        };
        Certificates { facts: vec![("site".into(), facts)], told: BTreeMap::new(), read_before: true }
    }

    #[test]
    fn each_step_towards_the_end_is_told_once() {
        let mut certificates = one(100 * DAY);
        let mut told = Vec::new();
        for day in 0..=101 {
            let facts = certificates.ending(day * DAY + 1);
            told.extend(facts.into_iter().map(|fact| (day, fact.name, certificates.told["site"])));
        }
        let expected = [
            (70, Name::CertificateExpiring, Step::Within(30)),
            (93, Name::CertificateExpiring, Step::Within(7)),
            (99, Name::CertificateExpiring, Step::Within(1)),
            (100, Name::CertificateExpired, Step::Expired),
        ];
        assert_eq!(told, expected);
        assert_eq!(certificates.warnings(50 * DAY).count(), 0);
        let warnings: Vec<_> = certificates.warnings(98 * DAY).collect();
        assert_eq!(warnings, ["certificate \"site\" (a.example) expires in 2 days"]);
    }

    #[test]
    fn a_certificate_that_replaces_another_is_told_and_the_first_ones_are_not() {
        let told = |before: i64, now: i64| loaded(&one(before).facts, &one(now).facts).len();
        assert_eq!((told(1, 1), told(1, 2)), (0, 1));
        let config = Config::parse("lb.toml", "version = 1\n").unwrap();
        let mut fresh = Certificates { read_before: false, ..one(1) };
        assert_eq!(fresh.read(&config), []);
        assert!(fresh.read_before);
    }
}
