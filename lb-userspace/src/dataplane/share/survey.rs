//! What has changed in the flow tables since a machine was told last.
//!
//! There is no queue: each pass over the tables says what is so now, as fast as the other side takes it. What is remembered is one
//! small entry for each connection that it was told of.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use lb_common::{
    conntrack::State,
    flow::{FlowKey, FlowRecord, flag},
};

use super::{Owned, address, ends_of};
use crate::{
    control::shared::{Client, Connection, Shared},
    dataplane::{
        clock::{age, now},
        inspect::Context,
        maps::Maps,
        names::{Names, SharedNames, SlotInfo},
        table::Table,
    },
};

/// Which table is being walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Flows,
    Affinity,
}

/// What was said of a place.
#[derive(Clone, Copy, Debug)]
struct Said {
    key: FlowKey,
    created: u32,
    seen: u32,
    state: u8,
    flags: u8,
}

/// A walk over the flow tables, again and again.
#[derive(Debug)]
pub struct Survey {
    maps: Arc<Maps>,
    names: SharedNames,
    /// By place in `FLOWS` and `AFFINITY`.
    said: [HashMap<u32, Said>; 2],
    stage: Stage,
    place: u32,
    /// The first pass tells of connections in use alone: they are missed most.
    is_first: bool,
}

impl Survey {
    /// Of this data plane; nothing was said yet.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            maps: Arc::clone(&context.maps),
            names: context.names.clone(),
            said: [HashMap::new(), HashMap::new()],
            stage: Stage::Flows,
            place: 0,
            is_first: true,
        }
    }

    /// Whoever listens knows nothing any more.
    pub fn restart(&mut self) {
        self.said = [HashMap::new(), HashMap::new()];
        (self.stage, self.place, self.is_first) = (Stage::Flows, 0, true);
    }

    /// How many entries were said and not ended since.
    #[must_use]
    pub fn told(&self) -> usize {
        self.said.iter().map(HashMap::len).sum()
    }

    /// Walks on by so many places at most, and adds what has changed of the connections to these VIPs. Says whether a pass is over.
    pub fn advance(&mut self, places: u32, owned: &Owned, out: &mut Vec<Shared>) -> bool {
        let (maps, names, now) = (Arc::clone(&self.maps), self.names.snapshot(), now());
        let table = if self.stage == Stage::Flows { &maps.flows } else { &maps.affinity };
        let end = table.len().min(self.place.saturating_add(places));
        for index in self.place..end {
            match self.stage {
                Stage::Flows => self.connection(table, index, &names, owned, now, out),
                Stage::Affinity => self.client(table, index, &names, owned, now, out),
            }
        }
        self.place = end;
        if end < table.len() {
            return false;
        }
        self.place = 0;
        match self.stage {
            Stage::Flows if !self.is_first => {
                self.stage = Stage::Affinity;
                false
            }
            Stage::Flows | Stage::Affinity => {
                (self.stage, self.is_first) = (Stage::Flows, false);
                true
            }
        }
    }

    fn connection(
        &mut self,
        table: &Table<FlowRecord>,
        index: u32,
        names: &Names,
        owned: &Owned,
        now: u32,
        out: &mut Vec<Shared>,
    ) {
        let control = table.control(index);
        let is_wanted = control.state > State::Claimed as u8
            && control.flags & (flag::NAT | flag::REPLY) == flag::NAT
            && (!self.is_first || State::from_number(control.state).is_active());
        let said = &mut self.said[0];
        if !is_wanted && (said.is_empty() || !said.contains_key(&index)) {
            return;
        }
        let record = table
            .snapshot(index)
            .filter(|record| record.control.flags & (flag::NAT | flag::REPLY) == flag::NAT && !record.is_expired(now));
        // A place that has gone to another connection: the one before is over.
        let before = said.get(&index).copied();
        let same = |said: &Said| record.as_ref().is_some_and(|r| r.key == said.key && r.created == said.created);
        if let Some(before) = before.filter(|said| !same(said)) {
            said.remove(&index);
            let ends = ends_of(&before.key);
            if owned.contains(&ends.vip.ip()) {
                out.push(Shared::Ended(ends));
            }
        }
        let Some(record) = record else { return };
        let ends = ends_of(&record.key);
        if !owned.contains(&ends.vip.ip()) {
            said.remove(&index);
            return;
        }
        if !is_news(before.filter(same), &record) {
            return;
        }
        let Some(info) = owner(names, &record) else { return };
        said.insert(index, Said::of(&record));
        let source_nat = record.control.flags & flag::SOURCE_NAT != 0;
        let answers =
            record.peer.checked_sub(1).filter(|peer| *peer < table.len()).and_then(|peer| table.snapshot(peer));
        let hop =
            answers.filter(|answers| answers.control.flags & flag::REPLY != 0).map(|answers| answers.client_hop());
        out.push(Shared::Connection(Connection {
            ends,
            node: info.address,
            source: info.source.filter(|_| source_nat),
            port: u16::from_be(record.nat_port),
            state: record.control.state,
            fins: record.control.flags & (flag::FIN_CLIENT | flag::FIN_NODE),
            idle: age(record.control.seen, now),
            age: age(record.created, now),
            client_mac: hop.map(|hop| hop.mac()).unwrap_or_default(),
            client_vlan: hop.map_or(0, |hop| hop.vlan()),
        }));
    }

    fn client(
        &mut self,
        table: &Table<FlowRecord>,
        index: u32,
        names: &Names,
        owned: &Owned,
        now: u32,
        out: &mut Vec<Shared>,
    ) {
        let said = &mut self.said[1];
        let live = table.control(index).state == State::Affinity as u8;
        let record = live.then(|| table.snapshot(index)).flatten().filter(|record| !record.is_expired(now));
        let Some(record) = record else {
            // What is over here is over there as soon: it has the same timeout.
            said.remove(&index);
            return;
        };
        let before = said.get(&index).copied().filter(|said| said.key == record.key && said.created == record.created);
        if !is_news(before, &record) {
            return;
        }
        let Some(info) = owner(names, &record) else { return };
        let serves_owned = names.plan.virtual_servers.get(&info.virtual_server);
        if !serves_owned.is_some_and(|server| server.addresses.iter().any(|vip| owned.contains(vip))) {
            return;
        }
        said.insert(index, Said::of(&record));
        out.push(Shared::Client(Client {
            virtual_server: info.virtual_server.clone(),
            client: address(record.key.family(), record.key.source()),
            node: SocketAddr::new(info.address.ip(), info.address.port()),
            idle: age(record.control.seen, now),
        }));
    }
}

/// Whether the other side should hear of a record: it is new, its state is another one, or a quarter of its time has passed.
fn is_news(before: Option<Said>, record: &FlowRecord) -> bool {
    before.is_none_or(|said| {
        let changed = (said.state, said.flags) != (record.control.state, record.control.flags);
        changed || age(said.seen, record.control.seen) > u32::from(record.timeout / 4)
    })
}

impl Said {
    fn of(record: &FlowRecord) -> Self {
        let &FlowRecord { key, created, control, .. } = record;
        Self { key, created, seen: control.seen, state: control.state, flags: control.flags }
    }
}

/// Whose slot a record names.
fn owner<'n>(names: &'n Names, record: &FlowRecord) -> Option<&'n SlotInfo> {
    names.slots.get(&record.node).filter(|info| info.generation == record.control.generation)
}
