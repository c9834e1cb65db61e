//! What happens to VIP groups, as events: from the failover thread to whoever is told. Called by `vips`.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::journal::Teller;
use crate::{
    control::event::{Fact, Name},
    failover::{
        cluster::{Incident, Names},
        election::{Alarm, Role},
    },
};

/// Incidents of one kind are told this often at most; all of them are counted.
const ONE_LINE_IN: Duration = Duration::from_secs(10);

/// Tells what happens: every change of a role, and of the rest one event of each kind in a while.
pub(super) async fn tell(mut incidents: mpsc::Receiver<Incident>, known: watch::Receiver<Names>, teller: Teller) {
    let mut told: BTreeMap<String, Instant> = BTreeMap::new();
    // A group's role is told as raised or lost: what was never owned is not lost.
    let mut owned: BTreeSet<String> = BTreeSet::new();
    while let Some(incident) = incidents.recv().await {
        let (now, names) = (Instant::now(), known.borrow().clone());
        if let Incident::Transition { group, role, reason } = &incident {
            let why = names.put_into(&reason.to_string());
            tracing::debug!(group, state = ?role, why, "VIP group changes");
            match role {
                Role::Active => {
                    owned.insert(group.clone());
                    teller.tell(Fact::new(Name::VipRaised, group, format!("VIP group {group} is up here: {why}")));
                }
                Role::Idle | Role::Backup if owned.remove(group) => {
                    teller.tell(Fact::new(
                        Name::VipLost,
                        group,
                        format!("VIP group {group} is not here any more: {why}"),
                    ));
                }
                Role::Idle | Role::Backup => {}
            }
            continue;
        }
        if let Incident::Announcement { group, announced, why } = &incident {
            let (name, what) = if *announced {
                (Name::VipRaised, "is announced")
            } else {
                (Name::VipLost, "is not announced any more")
            };
            teller.tell(Fact::new(name, group, format!("VIP group {group} {what}: {why}")));
            continue;
        }
        let kind = names.put_into(&incident.to_string());
        // Both are bounded: kinds by groups and machines, and what is old is forgotten.
        told.retain(|_, at| now.saturating_duration_since(*at) < ONE_LINE_IN);
        if let Entry::Vacant(first) = told.entry(kind) {
            let text = format!("{} (told once in {} s at most)", first.key(), ONE_LINE_IN.as_secs());
            let (name, object) = event_of(&incident, &names);
            teller.tell(Fact::new(name, object, text));
            first.insert(now);
        }
    }
}

/// An incident's event, and what it is about.
fn event_of(incident: &Incident, names: &Names) -> (Name, String) {
    match incident {
        Incident::Transition { group, .. } | Incident::Announcement { group, .. } => (Name::VipLost, group.clone()),
        Incident::Malformed(_) => (Name::HeartbeatRefused, "heartbeat".to_owned()),
        Incident::Refused { from, .. } => (Name::HeartbeatRefused, names.put_into(&from.to_string())),
        Incident::Alarm { group, alarm } => {
            let name = match alarm {
                Alarm::LoopedBack => Name::LoopedBack,
                Alarm::SecondOwner(_) => Name::SplitBrain,
                Alarm::AddressClaimed => Name::VipClaimed,
                Alarm::HandoverUnanswered(_) | Alarm::NoSuccessor | Alarm::NotOwner => Name::VipNotMoved,
            };
            (name, group.clone())
        }
    }
}
