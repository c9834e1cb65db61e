//! What a new set of targets changes: which checks go on, which are shared, which begin.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Instant,
};

use super::{Attempt, Check, CheckId, Event, Group, Key, Machine, Schedule, Step, Target, Verdict, report};

/// The targets wanted from now on.
type Wanted = BTreeMap<Key, Group>;

impl Schedule {
    /// Replaces the targets; of two with the same names the later counts. What is known of a target that stays at its
    /// address is kept, also under new settings.
    pub fn set(&mut self, targets: Vec<Target>, now: Instant) -> Step {
        let mut step = Step::default();
        let wanted: Wanted = targets.into_iter().map(split).collect();
        let gone: Vec<Key> = self.names.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            self.leave(&name, &mut step);
            step.removed.push(name);
        }
        for (name, group) in &wanted {
            self.set_one(name, group, &wanted, now, &mut step);
        }
        step
    }

    fn set_one(&mut self, name: &Key, group: &Group, wanted: &Wanted, now: Instant, step: &mut Step) {
        let current = self.names.get(name).and_then(|id| Some((*id, self.checks.get(id)?)));
        let there = self.groups.get(group).copied();
        let Some((id, check)) = current else {
            let id =
                there.unwrap_or_else(|| self.begin(group, Machine::new(group.1.clone(), identity(name, group.0), now)));
            return self.join(name, id, &Verdict::default(), step);
        };
        if there == Some(id) {
            return;
        }
        let (known, stays) = (check.machine.verdict().clone(), check.address == group.0);
        if there.is_none() && stays && check.members.iter().all(|member| wanted.get(member) == Some(group)) {
            return self.reconfigure(id, group, now, step);
        }
        // Others stay behind, or it is another server. What is known of the same one is taken along.
        let machine = if stays {
            check.machine.fork(group.1.clone(), identity(name, group.0), now)
        } else {
            Machine::new(group.1.clone(), identity(name, group.0), now)
        };
        self.leave(name, step);
        let id = there.unwrap_or_else(|| self.begin(group, machine));
        self.join(name, id, &known, step);
    }

    /// The same check of the same address, by other settings.
    fn reconfigure(&mut self, id: CheckId, group: &Group, now: Instant, step: &mut Step) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        let held_for = super::resource(&check.settings.kind);
        let before = (check.address, std::mem::replace(&mut check.settings, group.1.clone()));
        if check.is_held && held_for != super::resource(&group.1.kind) {
            // It waits for what it no longer needs: its entry there is passed over.
            check.is_held = false;
        }
        self.groups.remove(&before);
        self.groups.insert(group.clone(), id);
        self.apply(id, Event::Configured(group.1.clone()), now, step);
    }

    fn begin(&mut self, group: &Group, machine: Machine) -> CheckId {
        let id = CheckId(self.next_id);
        self.next_id += 1;
        let wakeup = machine.wakeup();
        let (address, settings) = group.clone();
        let members = std::collections::BTreeSet::new();
        self.wakeups.insert((wakeup, id));
        self.groups.insert(group.clone(), id);
        self.checks.insert(id, Check { address, settings, members, machine, wakeup, is_held: false, holds: None });
        id
    }

    /// `known`: what was last said of the target.
    fn join(&mut self, name: &Key, id: CheckId, known: &Verdict, step: &mut Step) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        check.members.insert(name.clone());
        self.names.insert(name.clone(), id);
        if check.machine.verdict() != known {
            step.reports.push(report(name, check.machine.verdict()));
        }
    }

    /// Takes a target out of its check, which ends with its last one.
    fn leave(&mut self, name: &Key, step: &mut Step) {
        let Some(id) = self.names.remove(name) else { return };
        let Some(check) = self.checks.get_mut(&id) else { return };
        check.members.remove(name);
        if !check.members.is_empty() {
            return;
        }
        let Some(check) = self.checks.remove(&id) else { return };
        self.wakeups.remove(&(check.wakeup, id));
        self.groups.remove(&(check.address, check.settings));
        self.give_back(check.holds);
        step.abandoned.extend(check.machine.attempt().map(|number| Attempt { check: id, number }));
    }
}

fn split(target: Target) -> (Key, Group) {
    let Target { pool, node, address, monitor, settings } = target;
    ((pool, node, monitor), (address, settings))
}

/// The same for the same target on every machine and at every start; `DefaultHasher::new` has no random key.
fn identity(name: &Key, address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, address).hash(&mut hasher);
    hasher.finish()
}
