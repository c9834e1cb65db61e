//! The path of a packet as sentences, in the order in which the program takes the steps. Pure.

use lb_common::{
    conntrack::State,
    explain::{Explanation, step},
    flow::FlowKey,
    reason::Reason,
};

use super::question::Question;
use crate::{
    control::plan::Scheduler,
    dataplane::names::{Names, SlotInfo},
};

/// One sentence a step.
pub(super) fn sentences(question: &Question, explanation: &Explanation, reason: Reason, names: &Names) -> Vec<String> {
    let path = Path { question, explanation, reason, names };
    // Only the slow path notes the key: without it the common case decided.
    if explanation.key == FlowKey::default() { path.fast() } else { path.slow() }
}

struct Path<'p> {
    question: &'p Question,
    explanation: &'p Explanation,
    reason: Reason,
    names: &'p Names,
}

impl Path<'_> {
    fn took(&self, bit: u32) -> bool {
        self.explanation.steps & bit != 0
    }

    fn fast(&self) -> Vec<String> {
        let Question { source, destination, .. } = self.question;
        if self.reason == Reason::NotVirtual {
            return vec![format!(
                "the address filter knows neither {} as a VIP nor {} as a node of a translating pool",
                destination.ip(),
                source.ip()
            )];
        }
        if self.explanation.node == 0 {
            return Vec::new();
        }
        let mut steps = vec!["the address filter says: look closer".to_owned(), self.found("FLOWS")];
        steps.extend(self.reply());
        steps.extend(self.owner());
        steps
    }

    fn slow(&self) -> Vec<String> {
        let mut steps = vec![self.destination()];
        if self.took(step::FLOW_HIT) {
            steps.push(self.found("FLOWS"));
        } else if self.took(step::PENDING_HIT) {
            steps.push(self.found("PENDING, the table of half-open connections,"));
        } else if self.looked_up() {
            steps.push("neither FLOWS nor PENDING has a record of it".to_owned());
        }
        if self.took(step::STALE) {
            steps.push(
                "the record is not used any more: it is expired or closing, or its node failed, is disabled or removed"
                    .to_owned(),
            );
        }
        steps.extend(self.reply());
        if self.took(step::SERVICE_HIT) {
            steps.push(self.service());
        }
        steps.extend(self.choice());
        if self.took(step::FRAGMENT_HIT) {
            steps.push("a later fragment: its first fragment went to this node".to_owned());
        }
        if !self.took(step::SCHEDULED | step::AFFINITY_HIT | step::STATELESS) {
            steps.extend(self.owner());
        }
        steps
    }

    fn destination(&self) -> String {
        let address = self.question.destination.ip();
        if self.is_vip() {
            format!("{address} is a VIP")
        } else {
            format!("{address} is no VIP; the packet may still be a node's answer")
        }
    }

    /// The program notes it only where it asks, and it asks for odd packets only: otherwise by what followed, or the plan.
    fn is_vip(&self) -> bool {
        let address = self.question.destination.ip();
        let planned = || self.names.plan.virtual_servers.values().any(|server| server.addresses.contains(&address));
        self.took(step::FILTER_HIT | step::SERVICE_HIT) || (self.reason != Reason::NotVirtual && planned())
    }

    /// Whether the tables were asked for the connection.
    fn looked_up(&self) -> bool {
        let ended = matches!(
            self.reason,
            Reason::NoVirtualServer | Reason::NotVirtual | Reason::BadSource | Reason::ZeroPort | Reason::AnsweredReset
        );
        ended || self.took(step::SERVICE_HIT)
    }

    fn found(&self, table: &str) -> String {
        let state = State::from_number(self.explanation.state);
        if state <= State::Claimed || self.took(step::STALE) {
            return format!("{table} has a record of it");
        }
        format!("{table} has a record of it, in state {}", state.name())
    }

    fn reply(&self) -> Option<String> {
        self.took(step::REPLY).then(|| "it is a node's answer: addresses and ports are restored".to_owned())
    }

    fn service(&self) -> String {
        let Question { destination, .. } = self.question;
        let protocol = self.question.protocol();
        match self.names.virtual_servers.get(&self.explanation.virtual_server) {
            Some(name) => format!("virtual server {name:?} serves {protocol} {destination}"),
            None => format!("a virtual server without a name serves {protocol} {destination}"),
        }
    }

    /// How its node was chosen.
    fn choice(&self) -> Option<String> {
        let node = self.node().map(|slot| format!("node {:?} of pool {:?}", slot.node, slot.pool));
        let unnamed = || "a node".to_owned();
        if self.took(step::AFFINITY_HIT) {
            return Some(format!("AFFINITY has the node that this client had last: {}", node.unwrap_or_else(unnamed)));
        }
        if self.took(step::STATELESS) {
            let chosen = node.unwrap_or_else(|| "none".to_owned());
            return Some(format!(
                "it opens nothing and belongs to no connection: by the ring, without a record: {chosen}"
            ));
        }
        if !self.took(step::SCHEDULED) {
            return None;
        }
        let limit = if self.took(step::FLOOD) { " (flood_limit is exceeded: by the ring)" } else { "" };
        Some(match node {
            Some(node) => format!("{}{limit} chooses {node}{}", self.scheduler(), self.changing()),
            None if self.reason == Reason::NextHopUnresolved => {
                format!("{}{limit} chooses a node whose MAC address is not known", self.scheduler())
            }
            None => format!("{}{limit} is asked for a node", self.scheduler()),
        })
    }

    /// That a real packet may be placed elsewhere.
    fn changing(&self) -> &'static str {
        match self.algorithm() {
            Some(Scheduler::Random) => " (a real connection draws anew)",
            Some(Scheduler::RoundRobin | Scheduler::WeightedRoundRobin) => {
                " (whose turn it is now: each new connection moves on)"
            }
            Some(Scheduler::LeastConnections | Scheduler::WeightedLeastConnections) => " (the least loaded now)",
            Some(Scheduler::SourceHash | Scheduler::Maglev) | None => "",
        }
    }

    fn scheduler(&self) -> String {
        match self.algorithm() {
            Some(scheduler) => format!("scheduler {}", name_of(scheduler)),
            None => "the scheduler".to_owned(),
        }
    }

    fn algorithm(&self) -> Option<Scheduler> {
        let name = self.names.virtual_servers.get(&self.explanation.virtual_server)?;
        self.names.plan.virtual_servers.get(name).map(|server| server.scheduler)
    }

    fn node(&self) -> Option<&SlotInfo> {
        self.names.slots.get(&self.explanation.node)
    }

    fn owner(&self) -> Option<String> {
        self.node().map(|slot| format!("it belongs to node {:?} of pool {:?}", slot.node, slot.pool))
    }
}

fn name_of(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::RoundRobin => "round_robin",
        Scheduler::WeightedRoundRobin => "weighted_round_robin",
        Scheduler::LeastConnections => "least_connections",
        Scheduler::WeightedLeastConnections => "weighted_least_connections",
        Scheduler::SourceHash => "source_hash",
        Scheduler::Maglev => "maglev",
        Scheduler::Random => "random",
    }
}
