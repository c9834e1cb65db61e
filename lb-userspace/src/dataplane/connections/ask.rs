//! What is asked for, as numbers of the maps. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::{
    conntrack::State,
    flow::{Control, FlowRecord},
};

use super::{super::inspect::words, forwarding};
use crate::{
    control::{
        plan::Forwarding,
        query::{ConnectionFilter, QueryError},
    },
    dataplane::names::{Names, SlotInfo},
};

/// A filter, resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    state: Option<u8>,
    forwarding: Option<Forwarding>,
    protocol: Option<u8>,
    client: Option<IpAddr>,
    /// Id of the virtual server.
    virtual_server: Option<u16>,
    /// Slots of the pool and node that were named, with their generations.
    slots: Option<BTreeSet<(u16, u16)>>,
}

impl Ask {
    /// # Errors
    /// `Invalid` for an unknown state, `NotFound` for an unknown name.
    pub(super) fn new(filter: &ConnectionFilter, names: &Names) -> Result<Self, QueryError> {
        Ok(Self {
            state: filter.state.as_deref().map(state).transpose()?,
            forwarding: filter.forwarding,
            protocol: filter.protocol.map(|protocol| protocol.number()),
            client: filter.client.map(|client| client.to_canonical()),
            virtual_server: filter.virtual_server.as_deref().map(|name| virtual_server(names, name)).transpose()?,
            slots: slots(names, filter.pool.as_deref(), filter.node.as_deref())?,
        })
    }

    /// Whether a record with this control word may match: cheap, before the rest is read.
    pub(super) fn wants(&self, control: Control) -> bool {
        self.state.is_none_or(|state| state == control.state)
            && self.forwarding.is_none_or(|wanted| wanted == forwarding(control.flags))
    }

    /// Whether a record matches.
    pub(super) fn matches(&self, record: &FlowRecord) -> bool {
        self.wants(record.control)
            && self.protocol.is_none_or(|protocol| protocol == record.key.protocol())
            && self.virtual_server.is_none_or(|id| id == record.virtual_server)
            && self.slots.as_ref().is_none_or(|slots| slots.contains(&(record.node, record.control.generation)))
            && self.client.is_none_or(|client| client == words::source(&record.key).ip())
    }
}

/// States that a connection can be in.
fn connection_states() -> impl Iterator<Item = State> {
    let none = [State::Free, State::Claimed, State::Affinity, State::Fragment];
    State::ALL.into_iter().filter(move |state| !none.contains(state))
}

fn state(name: &str) -> Result<u8, QueryError> {
    let found = connection_states().find(|state| state.name() == name);
    found.map(|state| state as u8).ok_or_else(|| {
        let all: Vec<&str> = connection_states().map(State::name).collect();
        QueryError::Invalid(format!("no connection state is called {name:?}; they are: {}", all.join(", ")))
    })
}

fn virtual_server(names: &Names, name: &str) -> Result<u16, QueryError> {
    let found = names.virtual_servers.iter().find(|(_, known)| *known == name);
    found.map(|(id, _)| *id).ok_or_else(|| {
        let known = names.virtual_servers.values().map(String::as_str);
        QueryError::NotFound(format!("there is no virtual server {name:?}; {}", list(known.collect())))
    })
}

fn slots(names: &Names, pool: Option<&str>, node: Option<&str>) -> Result<Option<BTreeSet<(u16, u16)>>, QueryError> {
    if pool.is_none() && node.is_none() {
        return Ok(None);
    }
    let unknown = |kind: &str, name: &str, known: fn(&SlotInfo) -> &str| {
        let known = list(names.slots.values().map(known).collect());
        QueryError::NotFound(format!("no virtual server uses a {kind} {name:?}; {known}"))
    };
    if let Some(name) = pool.filter(|name| names.slots.values().all(|slot| slot.pool != *name)) {
        return Err(unknown("pool", name, |slot| &slot.pool));
    }
    let of_pool = |slot: &SlotInfo| pool.is_none_or(|pool| pool == slot.pool);
    if let Some(name) = node.filter(|name| names.slots.values().all(|slot| !of_pool(slot) || slot.node != *name)) {
        return Err(unknown("node", name, |slot| &slot.node));
    }
    let wanted = |slot: &SlotInfo| of_pool(slot) && node.is_none_or(|node| node == slot.node);
    let found = names.slots.iter().filter(|(_, slot)| wanted(slot)).map(|(number, slot)| (*number, slot.generation));
    Ok(Some(found.collect()))
}

/// The names that there are.
fn list(names: BTreeSet<&str>) -> String {
    if names.is_empty() {
        return "there is none".to_owned();
    }
    let names: Vec<&str> = names.into_iter().collect();
    format!("there are: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use lb_common::flow::flag;

    use super::{
        super::tests::{names, record},
        *,
    };
    use crate::control::plan::Protocol;

    fn filter(change: impl FnOnce(&mut ConnectionFilter)) -> ConnectionFilter {
        let mut filter = ConnectionFilter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn every_part_of_a_filter_must_match() {
        let record = record(flag::NAT, State::Established, 3);
        let rows = [
            ("everything", filter(|_| {}), true),
            ("its state", filter(|f| f.state = Some("established".into())), true),
            ("another state", filter(|f| f.state = Some("fin-wait".into())), false),
            ("its forwarding", filter(|f| f.forwarding = Some(Forwarding::Nat)), true),
            ("another forwarding", filter(|f| f.forwarding = Some(Forwarding::NatSource)), false),
            ("its protocol", filter(|f| f.protocol = Some(Protocol::Tcp)), true),
            ("another protocol", filter(|f| f.protocol = Some(Protocol::Udp)), false),
            ("its client", filter(|f| f.client = Some([192, 0, 2, 9].into())), true),
            ("its client, mapped", filter(|f| f.client = Some("::ffff:192.0.2.9".parse().unwrap())), true),
            ("another client", filter(|f| f.client = Some([192, 0, 2, 8].into())), false),
            ("its virtual server", filter(|f| f.virtual_server = Some("web".into())), true),
            ("its pool", filter(|f| f.pool = Some("p".into())), true),
            ("its node", filter(|f| f.node = Some("n1".into())), true),
            ("another node", filter(|f| f.node = Some("n2".into())), false),
            ("pool and node", filter(|f| (f.pool, f.node) = (Some("p".into()), Some("n1".into()))), true),
        ];
        for (name, filter, expected) in rows {
            assert_eq!(Ask::new(&filter, &names()).unwrap().matches(&record), expected, "{name}");
        }
        let mut stale = record;
        stale.control.generation += 1;
        assert!(!Ask::new(&filter(|f| f.node = Some("n1".into())), &names()).unwrap().matches(&stale));
    }

    #[test]
    fn names_that_do_not_exist_are_named_with_those_that_do() {
        let rows = [
            (
                filter(|f| f.state = Some("claimed".into())),
                "no connection state is called \"claimed\"; they are: syn-sent,",
            ),
            (filter(|f| f.virtual_server = Some("wbe".into())), "there is no virtual server \"wbe\"; there are: web"),
            (filter(|f| f.pool = Some("q".into())), "no virtual server uses a pool \"q\"; there are: p"),
            (filter(|f| f.node = Some("n3".into())), "no virtual server uses a node \"n3\"; there are: n1, n2"),
        ];
        for (filter, expected) in rows {
            let error = Ask::new(&filter, &names()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
