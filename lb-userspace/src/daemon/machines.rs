//! What a second changed of machines and the worker, as events: two views before and after. Pure; called by the control task.

use crate::control::{
    event::{Fact, Name},
    view::{ClusterView, VipsView, WorkerView},
};

/// What was seen a second ago.
#[derive(Debug, Default)]
pub(super) struct Machines {
    cluster: Option<ClusterView>,
    worker: Option<WorkerView>,
    /// Whether the worker failed, and none has served since.
    without_worker: bool,
}

impl Machines {
    /// What is new of the cluster. The first look tells only of what is wrong.
    pub(super) fn cluster(&mut self, vips: &VipsView) -> Vec<Fact> {
        let Some(now) = &vips.cluster else { return Vec::new() };
        let before = self.cluster.replace(now.clone());
        let mut facts = Vec::new();
        let own = &now.machine;
        let before_fault = before.as_ref().and_then(|before| before.fault.as_ref());
        match (before_fault, &now.fault) {
            (None, Some(why)) => {
                let text = format!("this machine gives its VIPs away: {why}");
                facts.push(Fact::new(Name::MachineFault, own, text));
            }
            (Some(_), None) => facts.push(Fact::new(Name::MachineWell, own, "this machine is well again")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let Some(before) = before else { return facts };
        match (before.in_maintenance, now.in_maintenance) {
            (false, true) => {
                facts.push(Fact::new(Name::MaintenanceOn, own, "this machine leaves its VIPs to the others"))
            }
            (true, false) => facts.push(Fact::new(Name::MaintenanceOff, own, "this machine takes part again")),
            (false, false) | (true, true) => {}
        }
        for machine in &now.machines {
            let was = before.machines.iter().find(|was| was.name == machine.name).is_some_and(|was| was.alive);
            let name = &machine.name;
            match (was, machine.alive) {
                (true, false) => {
                    facts.push(Fact::new(Name::PeerLost, name, format!("machine {name} is not heard any more")));
                }
                (false, true) => facts.push(Fact::new(Name::PeerFound, name, format!("machine {name} is heard"))),
                (false, false) | (true, true) => {}
            }
        }
        facts
    }

    /// What is new of the worker. `problem`: why there is none.
    pub(super) fn worker(&mut self, now: Option<WorkerView>, problem: Option<&str>) -> Vec<Fact> {
        let before = self.worker.take();
        let mut facts = Vec::new();
        let failures = |view: &Option<WorkerView>| view.as_ref().map_or(0, |view| view.failures);
        if failures(&now) > failures(&before) {
            self.without_worker = true;
            let why = problem.unwrap_or("it ended without being told to");
            facts.push(Fact::new(Name::WorkerCrashed, "worker", format!("the worker of the L7 proxy failed: {why}")));
        }
        if self.without_worker && now.as_ref().is_some_and(|view| view.ready) {
            self.without_worker = false;
            facts.push(Fact::new(Name::WorkerReady, "worker", "a worker of the L7 proxy serves again"));
        }
        self.worker = now;
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::MachineView;

    fn names(facts: &[Fact]) -> Vec<&'static str> {
        facts.iter().map(|fact| fact.name.word()).collect()
    }

    fn cluster(alive: bool, fault: Option<&str>, in_maintenance: bool) -> VipsView {
        let peer = MachineView { name: "lb2".into(), alive, ..MachineView::default() };
        let cluster = ClusterView {
            machine: "lb1".into(),
            machines: vec![peer],
            fault: fault.map(str::to_owned),
            in_maintenance,
            ..ClusterView::default()
        };
        VipsView { cluster: Some(cluster), ..VipsView::default() }
    }

    #[test]
    fn machines_are_told_of_when_they_change() {
        let mut machines = Machines::default();
        let mut look = |view: VipsView| names(&machines.cluster(&view));
        assert_eq!(look(cluster(false, None, false)), [""; 0], "a peer that starts later is not lost");
        assert_eq!(look(cluster(true, None, false)), ["peer_found"]);
        assert_eq!(look(cluster(true, Some("no gateway"), false)), ["machine_fault"]);
        assert_eq!(look(cluster(true, Some("no node"), false)), [""; 0]);
        assert_eq!(look(cluster(false, None, true)), ["machine_well", "maintenance_on", "peer_lost"]);
        assert_eq!(look(cluster(true, None, false)), ["maintenance_off", "peer_found"]);
        assert_eq!(look(VipsView::default()), [""; 0]);
    }

    #[test]
    fn a_worker_that_fails_is_told_of_also_when_another_serves_already() {
        let mut machines = Machines::default();
        let view = |failures, ready| Some(WorkerView { pid: Some(7), ready, connections: 0, failures, sessions: 0 });
        let mut look = |view| names(&machines.worker(view, Some("signal 9")));
        assert_eq!(look(None), [""; 0]);
        assert_eq!(look(view(0, false)), [""; 0]);
        assert_eq!(look(view(0, true)), [""; 0]);
        assert_eq!(look(view(1, true)), ["worker_crashed", "worker_ready"]);
        assert_eq!(look(view(2, false)), ["worker_crashed"]);
        assert_eq!(look(view(2, true)), ["worker_ready"]);
    }
}
