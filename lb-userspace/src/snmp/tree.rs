//! The objects of `LB-MIB` (`packaging/mibs/LB-MIB.txt`), from what the control task shows. Pure.

use std::time::Duration;

use super::{
    answer::Tree,
    pdu::{Oid, Value},
};
use crate::control::{
    plan::Admission,
    view::{Health, NodeState, PoolView, Status, VipState, VipsView, VirtualServerView},
};

/// lbObjects: below netSnmpPlaypen, as the traps.
const OBJECTS: [u32; 11] = [1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 3780, 1];

/// Groups and tables below lbObjects.
const SYSTEM: u32 = 2;
const VIRTUAL_SERVERS: u32 = 3;
const POOLS: u32 = 4;
const NODES: u32 = 5;
const VIPS: u32 = 6;

/// The longest text of an SnmpAdminString.
const MOST_TEXT: usize = 255;

/// What the agent asks lbd for.
pub(super) fn root() -> Oid {
    OBJECTS.to_vec()
}

pub(super) fn system(tree: &mut Tree, status: &Status, up: Duration) {
    let hundredths = u32::try_from((up.as_millis() / 10) & u128::from(u32::MAX)).unwrap_or(u32::MAX);
    let values = [
        text(&status.version),
        Value::Ticks(hundredths),
        Value::Gauge(gauge(status.config_generation)),
        Value::Gauge(gauge(status.warnings.len() as u64)),
    ];
    for (object, value) in (1..).zip(values) {
        tree.insert([&OBJECTS[..], &[SYSTEM, object, 0]].concat(), value);
    }
}

pub(super) fn virtual_servers(tree: &mut Tree, servers: &[VirtualServerView]) {
    for server in servers {
        let (received, sent) = match &server.proxy {
            Some(proxy) => (proxy.bytes_received, proxy.bytes_sent),
            None => (server.forward.bytes, server.reply.bytes),
        };
        let requests = server.proxy.as_ref().map_or(0, |proxy| proxy.requests.total);
        let columns = [
            text(&server.protocol),
            text(&server.pool),
            text(&server.pool_in_use),
            Value::Gauge(gauge(server.nodes_available as u64)),
            Value::Gauge(gauge(server.nodes_total as u64)),
            Value::Gauge(gauge(server.active)),
            Value::Counter(server.connections),
            Value::Counter(received),
            Value::Counter(sent),
            Value::Counter(requests),
        ];
        row(tree, VIRTUAL_SERVERS, 2, &implied(&server.name), columns);
    }
}

/// Pools, and their nodes.
pub(super) fn pools(tree: &mut Tree, pools: &[PoolView]) {
    for pool in pools {
        let available = pool.nodes.iter().filter(|node| node.admission == Admission::All).count();
        let columns = [
            text(&word(&pool.forwarding)),
            text(&pool.scheduler),
            Value::Gauge(gauge(available as u64)),
            Value::Gauge(gauge(pool.nodes.len() as u64)),
        ];
        row(tree, POOLS, 2, &implied(&pool.name), columns);
        for node in &pool.nodes {
            let state = match node.state {
                NodeState::Active => 1,
                NodeState::Draining => 2,
                NodeState::Disabled => 3,
            };
            let health = match node.health {
                Health::Unknown => 1,
                Health::Up => 2,
                Health::Down => 3,
            };
            let columns = [
                text(&node.address),
                Value::Integer(state),
                Value::Integer(health),
                Value::Gauge(node.weight),
                Value::Gauge(gauge(node.active)),
                Value::Counter(node.connections),
            ];
            row(tree, NODES, 3, &[counted(&node.pool), implied(&node.name)].concat(), columns);
        }
    }
}

pub(super) fn vips(tree: &mut Tree, vips: &VipsView) {
    for group in &vips.groups {
        let state = match group.state {
            VipState::External => 1,
            VipState::Static => 2,
            VipState::Active => 3,
            VipState::Backup => 4,
            VipState::Idle => 5,
            VipState::Announced => 6,
            VipState::Withdrawn => 7,
        };
        let addresses: Vec<String> = group.addresses.iter().map(|(address, _)| address.to_string()).collect();
        let owner = group.owner.as_deref().unwrap_or_default();
        row(tree, VIPS, 2, &implied(&group.name), [Value::Integer(state), text(owner), text(&addresses.join(" "))]);
    }
}

/// A row of a table: its columns from `first` on; those before are its index.
fn row<const N: usize>(tree: &mut Tree, table: u32, first: u32, index: &[u32], columns: [Value; N]) {
    for (column, value) in (first..).zip(columns) {
        tree.insert([&OBJECTS[..], &[table, 1, column], index].concat(), value);
    }
}

/// A name as the last part of an index (RFC 2578 §7.7, IMPLIED).
fn implied(name: &str) -> Vec<u32> {
    name.bytes().map(u32::from).collect()
}

/// A name within an index: its length comes first.
fn counted(name: &str) -> Vec<u32> {
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    [vec![length], implied(name)].concat()
}

fn gauge(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn text(text: &str) -> Value {
    Value::Text(text[..text.floor_char_boundary(MOST_TEXT)].to_owned())
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::VipView;

    #[test]
    fn objects_are_where_the_mib_says() {
        let mut tree = Tree::new();
        let status = Status { version: "0.1.0".into(), config_generation: 3, ..Status::default() };
        system(&mut tree, &status, Duration::from_secs(5));
        let group = VipView {
            name: "ab".into(),
            mode: Default::default(),
            addresses: vec![("192.0.2.1".parse().unwrap(), None)],
            state: VipState::Active,
            owner: None,
            since_s: None,
            why: None,
            priority: None,
            transitions: None,
            replaceable: None,
            virtual_mac: None,
        };
        vips(&mut tree, &VipsView { groups: vec![group], ..VipsView::default() });
        let at = |tail: &[u32]| tree.get(&[&OBJECTS[..], tail].concat()).cloned();
        assert_eq!(at(&[2, 1, 0]), Some(Value::Text("0.1.0".into())));
        assert_eq!(at(&[2, 2, 0]), Some(Value::Ticks(500)));
        assert_eq!(at(&[6, 1, 2, 97, 98]), Some(Value::Integer(3)));
        assert_eq!(at(&[6, 1, 4, 97, 98]), Some(Value::Text("192.0.2.1".into())));
        assert_eq!(counted("ab"), [2, 97, 98]);
    }
}
