//! What the control task tells as events: differences between what it knew a moment ago and what it knows now.

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

impl<S: Subsystems> Running<S> {
    pub(super) fn tell(&self, fact: Fact) {
        self.parts.teller.tell(fact);
    }

    /// Tells what is different since the last time.
    pub(super) fn tell_changes(&mut self) {
        let now = self.state.picture();
        if now == self.told {
            return;
        }
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
                    let text = format!("{text} (request {request_id})");
                    self.tell(Fact::new(Name::RuleEvent, format!("{virtual_server}/{rule}"), text));
                } else {
                    tracing::info!(virtual_server, rule, request_id, text, "a rule speaks");
                }
                return;
            }
        };
        // These events are never refused.
        let _ = self.state.apply(event);
    }
}
