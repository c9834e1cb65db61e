//! Why rules do what they do: each rule's outcome for one request, in words. For `lbctl trace URL`; counts nothing and takes
//! nothing from limits.

use super::{
    Edits, Rule, RuleSet, Scope,
    action::Step,
    condition::{Comparison, Condition, Groups, Seen, look},
    view::View,
};
use crate::control::proxy::{
    rule::{Fact, Test, check::Phase},
    trace::{Outcome, Told},
};

impl RuleSet {
    /// What each request rule does; with a response in `scope`, each response rule, too. Limits are taken as not reached.
    #[must_use]
    pub fn explain(&self, scope: &Scope<'_>) -> Vec<Told> {
        let mut edits = Edits::default();
        let mut told = Vec::new();
        let request = Scope { response: None, hits: &[], ..*scope };
        explain_phase(&self.request, Phase::Request, &request, &mut edits, &mut told);
        if scope.response.is_some() {
            let response = Scope { hits: &[], ..*scope };
            explain_phase(&self.response, Phase::Response, &response, &mut edits, &mut told);
        }
        told
    }
}

fn explain_phase(rules: &[Rule], phase: Phase, scope: &Scope<'_>, edits: &mut Edits, told: &mut Vec<Told>) {
    let mut groups = Groups::default();
    let mut ended = None;
    for rule in rules {
        let mut entry = Told {
            phase: phase.name().to_owned(),
            rule: rule.name.to_string(),
            outcome: Outcome::NotReached,
            why: String::new(),
            did: Vec::new(),
        };
        if let Some(name) = &ended {
            entry.why = format!("{name:?} ended the list");
            told.push(entry);
            continue;
        }
        let (holds, why) = why(&rule.when, &View { scope, edits }, &mut groups);
        entry.why = why;
        entry.outcome = if holds { Outcome::Matched } else { Outcome::NotMatched };
        if holds {
            edits.rule = Some(rule.id);
            for step in &rule.steps {
                let (did, ends) = tell_step(step, phase, scope, &groups, edits);
                entry.did.push(did);
                if ends {
                    entry.outcome = Outcome::Ended;
                    ended = Some(rule.name.clone());
                    break;
                }
            }
        }
        told.push(entry);
    }
}

/// Does a step that takes nothing from a limit, and says what it does and whether it ends the list.
fn tell_step(step: &Step, phase: Phase, scope: &Scope<'_>, groups: &Groups, edits: &mut Edits) -> (String, bool) {
    let limited = match step {
        Step::Rate(_) => Some("counts in its rate class".to_owned()),
        Step::MaxConnections(most, gate) => Some(format!("lets {most} requests in at a time ({} now)", gate.open())),
        Step::Bandwidth(_) => Some("counts in its bandwidth class".to_owned()),
        Step::Pool(_)
        | Step::Redirect { .. }
        | Step::Respond { .. }
        | Step::Drop
        | Step::SetHost(_)
        | Step::SetHeader(..)
        | Step::AddHeader(..)
        | Step::DeleteHeader(_)
        | Step::AllowHeaders(_)
        | Step::SetPath(..)
        | Step::RewritePath { .. }
        | Step::SetQuery(_)
        | Step::SetCookie { .. }
        | Step::DeleteCookie(_)
        | Step::CacheControl(_)
        | Step::Note(..) => None,
    };
    if let Some(did) = limited {
        return (did, false);
    }
    let verdict = step.run(phase, scope, groups, edits);
    let did = match (step, verdict) {
        (_, Some(super::Verdict::Refuse { status })) => {
            format!("refuses with {status}: a text would put control characters into a head")
        }
        (Step::Pool(_), _) => "chooses its pool".to_owned(),
        (Step::Redirect { status, .. }, _) => format!("redirects with {status} to {}", edits.location()),
        (Step::Respond { status, .. }, _) => format!("answers {status}"),
        (Step::Drop, _) => "closes the connection".to_owned(),
        (Step::SetHost(_), _) => format!("host is now {}", edits.host().unwrap_or("")),
        (Step::SetPath(..) | Step::RewritePath { .. }, _) => {
            format!("path is now {}", edits.path().unwrap_or("as before"))
        }
        (Step::SetQuery(_), _) => format!("query is now {:?}", edits.query().flatten().unwrap_or("")),
        (Step::SetHeader(name, _), _) => format!("sets header field {name}"),
        (Step::AddHeader(name, _), _) => format!("adds header field {name}"),
        (Step::DeleteHeader(name), _) => format!("takes out header field {name}"),
        (Step::AllowHeaders(names), _) => format!("takes out header fields other than {}", names.join(", ")),
        (Step::SetCookie { name, .. }, _) => format!("sets cookie {name}"),
        (Step::DeleteCookie(name), _) => format!("takes out cookie {name}"),
        (Step::CacheControl(_), _) => "sets Cache-Control".to_owned(),
        (Step::Note(..), _) => format!("notes: {}", edits.notes().last().map_or("", |(_, _, text)| text)),
        (Step::Rate(_) | Step::MaxConnections(..) | Step::Bandwidth(_), _) => String::new(),
    };
    (did, verdict.is_some())
}

/// Whether a condition holds, and the comparisons that decide it.
fn why(condition: &Condition, view: &View<'_>, groups: &mut Groups) -> (bool, String) {
    match condition {
        Condition::Always => (true, "always".to_owned()),
        Condition::Not(part) => {
            let (holds, why) = self::why(part, view, groups);
            (!holds, why)
        }
        Condition::All(parts) => decided_by(parts, false, view, groups),
        Condition::Any(parts) => decided_by(parts, true, view, groups),
        Condition::Is(comparison) => {
            let seen = look(&comparison.fact, view);
            let holds = comparison.matcher.matches(&seen, groups, true);
            (holds, words(comparison, &seen, holds))
        }
    }
}

/// The part that decides (`deciding`: what makes up one's mind), or all of them.
fn decided_by(parts: &[Condition], deciding: bool, view: &View<'_>, groups: &mut Groups) -> (bool, String) {
    let mut reasons = Vec::new();
    for part in parts {
        let (holds, why) = why(part, view, groups);
        if holds == deciding {
            return (deciding, why);
        }
        reasons.push(why);
    }
    (!deciding, reasons.join("; "))
}

fn words(comparison: &Comparison, seen: &Seen<'_>, holds: bool) -> String {
    let fact = fact_words(&comparison.fact);
    let seen = match seen {
        Seen::Nothing => return format!("there is no {fact}"),
        Seen::Text(text) => format!("{text:?}"),
        Seen::Address(address) => address.to_string(),
        Seen::Number(number) => number.to_string(),
    };
    let list = |values: &[String]| values.join(", ");
    let networks = |networks: &[crate::control::proxy::Network]| {
        networks.iter().map(|net| format!("{}/{}", net.address, net.prefix)).collect::<Vec<_>>().join(", ")
    };
    let (yes, no, what) = match &comparison.test {
        Test::Present => ("is there", "is not there", String::new()),
        Test::OneOf(values) => ("is one of", "is not one of", list(values)),
        Test::Prefix(values) => ("begins with one of", "begins with none of", list(values)),
        Test::Suffix(values) => ("ends with one of", "ends with none of", list(values)),
        Test::Contains(values) => ("contains one of", "contains none of", list(values)),
        Test::Regex(text) => ("matches", "does not match", text.clone()),
        Test::Within(list) => ("is within", "is not within", networks(list)),
        Test::Range(from, to) => ("is within", "is not within", format!("{from} to {to}")),
    };
    let verb = if holds { yes } else { no };
    format!("{fact} {seen} {verb} {what}").trim_end().to_owned()
}

fn fact_words(fact: &Fact) -> String {
    match fact {
        Fact::ClientAddress => "client address".to_owned(),
        Fact::LocalAddress => "local address".to_owned(),
        Fact::LocalPort => "local port".to_owned(),
        Fact::Method => "method".to_owned(),
        Fact::Host => "host".to_owned(),
        Fact::Path => "path".to_owned(),
        Fact::RawUrl => "raw URL".to_owned(),
        Fact::Query => "query".to_owned(),
        Fact::QueryParameter(name) => format!("query parameter {name}"),
        Fact::Header(name) => format!("header field {name}"),
        Fact::Cookie(name) => format!("cookie {name}"),
        Fact::Version => "version".to_owned(),
        Fact::Tls => "TLS".to_owned(),
        Fact::TlsVersion => "TLS version".to_owned(),
        Fact::TlsServerName => "TLS server name".to_owned(),
        Fact::TlsClientSubject => "client certificate's subject".to_owned(),
        Fact::Status => "status".to_owned(),
        Fact::ResponseHeader(name) => format!("response header field {name}"),
        Fact::TimeOfDay => "time of day".to_owned(),
        Fact::Weekday => "weekday".to_owned(),
    }
}
