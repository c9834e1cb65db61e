//! The certificates of the configuration in force: which there are, and when to tell that one ends soon.

use std::collections::BTreeMap;

use crate::{
    certificate::{Expiry, Facts},
    config::Config,
    control::view::CertificateView,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    facts: Vec<(String, Facts)>,
    /// What was told of each: again when it is another step.
    told: BTreeMap<String, Step>,
}

/// A step towards a certificate's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    NotYet,
    Within(i64),
    Expired,
}

impl Certificates {
    /// Reads those of a configuration, which was checked: what cannot be read is not in it.
    pub(super) fn read(&mut self, config: &Config) {
        self.facts = config.proxy.files.check_certificates(config).unwrap_or_default().into_iter().collect();
        self.told.retain(|name, _| self.facts.iter().any(|(known, _)| known == name));
    }

    /// Tells the log of certificates that came a step nearer to their end by `now` (seconds since 1970).
    pub(super) fn tell(&mut self, now: i64) {
        for (name, facts) in &self.facts {
            let Some(expiry) = facts.expiry(now) else {
                self.told.remove(name);
                continue;
            };
            let step = match expiry {
                Expiry::NotYetValid => Step::NotYet,
                Expiry::Soon { within, .. } => Step::Within(within),
                Expiry::Expired => Step::Expired,
            };
            if self.told.insert(name.clone(), step) != Some(step) {
                tracing::warn!(certificate = name, names = facts.names.join(","), "certificate {expiry}");
            }
        }
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
        Certificates { facts: vec![("site".into(), facts)], told: BTreeMap::new() }
    }

    #[test]
    fn each_step_towards_the_end_is_told_once() {
        let mut certificates = one(100 * DAY);
        let mut told = Vec::new();
        for day in 0..=101 {
            let before = certificates.told.clone();
            certificates.tell(day * DAY + 1);
            if certificates.told != before {
                told.push((day, certificates.told["site"]));
            }
        }
        let expected = [(70, Step::Within(30)), (93, Step::Within(7)), (99, Step::Within(1)), (100, Step::Expired)];
        assert_eq!(told, expected);
        assert_eq!(certificates.warnings(50 * DAY).count(), 0);
        let warnings: Vec<_> = certificates.warnings(98 * DAY).collect();
        assert_eq!(warnings, ["certificate \"site\" (a.example) expires in 2 days"]);
    }
}
