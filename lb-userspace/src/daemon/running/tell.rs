//! What the control task tells as events: differences between what it knew a moment ago and what it knows now.

use std::time::{Duration, Instant};

use super::{Running, now};
use crate::{
    control::{
        event::{Fact, Name},
        proxy::{ProxyEvent, rule::RuleEvent},
        state::Event,
    },
    daemon::subsystems::Subsystems,
    proxy::supervisor::News,
};

/// Events of rules that are told in a second.
const MOST_RULE_EVENTS: u32 = 20;

/// How many events of rules were told lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: Option<Instant>,
    told: u32,
    held: u64,
}

impl Pace {
    /// Whether one may be told now, and how many were not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.second.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            (self.second, self.told) = (Some(now), 0);
        }
        if self.told == MOST_RULE_EVENTS {
            self.held += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.held))
    }
}

impl<S: Subsystems> Running<S> {
    pub(super) fn tell(&self, fact: Fact) {
        self.parts.teller.tell(fact);
    }

    /// Tells what is different since the last time.
    pub(super) fn tell_changes(&mut self) {
        if !std::mem::take(&mut self.untold) {
            return;
        }
        let now = self.state.picture();
        let before = std::mem::replace(&mut self.told, now);
        before.until(&self.told).into_iter().for_each(|fact| self.tell(fact));
        let draining = self.told.draining();
        self.parts.drains.send_if_modified(|known| std::mem::replace(known, draining.clone()) != draining);
    }

    /// Tells what certificates, machines and the worker came to within the last second.
    pub(super) fn tell_of_others(&mut self) {
        let mut facts = self.certificates.ending(now());
        let (vips, problem) = (self.vips(), self.parts.subsystems.worker_problem());
        facts.extend(self.machines.cluster(&vips));
        facts.extend(self.machines.worker(self.parts.subsystems.worker(), problem.as_deref()));
        facts.into_iter().for_each(|fact| self.tell(fact));
    }

    /// Notes whether everything does what it should, or why not.
    pub(super) fn follows(&mut self, behind: Option<String>) {
        match (&self.behind, &behind) {
            (None, Some(why)) => {
                let text = format!("the data path or the L7 proxy does not do what it should: {why}");
                self.tell(Fact::new(Name::DataPathBehind, "", text));
            }
            (Some(_), None) => self.tell(Fact::new(Name::DataPathFollows, "", "they do what they should again")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.behind = behind;
    }

    /// Notes whether what was set at run time is saved, or why not.
    pub(super) fn saved(&mut self, unsaved: Option<String>) {
        match (&self.unsaved, &unsaved) {
            (None, Some(why)) => {
                let text = format!("what was set at run time cannot be saved, and is tried again: {why}");
                self.tell(Fact::new(Name::StateUnsaved, "", text));
            }
            (Some(_), None) => self.tell(Fact::new(Name::StateSaved, "", "what was set at run time is saved again")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.unsaved = unsaved;
    }

    /// What the worker of the L7 proxy has to tell: it has acted by it already.
    pub(super) fn take_news(&mut self, news: News) {
        let event = match news {
            News::Fresh => Event::FreshWorker,
            News::Happened(ProxyEvent::Node(node)) => Event::Passive(node),
            News::Happened(ProxyEvent::Rule(RuleEvent { is_event, virtual_server, rule, request_id, text })) => {
                if is_event {
                    // Clients cause them: they must not displace all else.
                    let Some(more) = self.rule_events.admit(Instant::now()) else { return };
                    let more = if more == 0 { String::new() } else { format!("; {more} more before it were not told") };
                    let text = format!("{text} (request {request_id}){more}");
                    self.tell(Fact::new(Name::RuleEvent, format!("{virtual_server}/{rule}"), text));
                } else {
                    tracing::info!(virtual_server, rule, request_id, text, "a rule speaks");
                }
                return;
            }
        };
        // These events are never refused.
        let _ = self.apply(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_fill_the_journal_by_rules() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let told = (0..100).filter(|_| pace.admit(start).is_some()).count();
        assert_eq!(told, MOST_RULE_EVENTS as usize);
        assert_eq!(pace.admit(start + Duration::from_secs(1)), Some(80));
        assert_eq!(pace.admit(start + Duration::from_secs(1)), Some(0));
    }
}
