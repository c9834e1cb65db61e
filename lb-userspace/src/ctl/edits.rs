//! Changes of pools and nodes: at run time, for a while or until the configuration says something else, or written to the
//! configuration as a new revision.

use serde_json::{Map, Value, json};

use super::{
    args::{Change, Lasting, NodeName, Setting, object},
    client::{Client, encode},
    config,
    failure::Failure,
    output::Output,
    views,
};
use crate::control::{
    api::{NodePatch, PoolPatch},
    plan::Forwarding,
    revision::Action,
    view::{NodeState, NodeView, PoolView},
};

pub(super) fn set_pool(
    client: &Client,
    output: &Output,
    name: &str,
    settings: &[Setting],
    lasting: Lasting,
) -> Result<(), Failure> {
    let forwarding = match settings {
        [Setting { path, value: Value::String(word) }] if path == &["forwarding"] => forwarding(word),
        _ => None,
    };
    match forwarding {
        Some(forwarding) if !lasting.is_written() => {
            let patch = PoolPatch { forwarding: Some(forwarding), for_s: lasting.for_s() };
            set_forwarding(client, output, name, &patch)
        }
        _ => {
            let how = lasting.written("pool", settings)?;
            // The configuration says nat with source_nat where an order says nat_source.
            let mut settings = object(settings);
            if settings.get("forwarding") == Some(&json!("nat_source")) {
                settings.insert("forwarding".to_owned(), json!("nat"));
                settings.insert("source_nat".to_owned(), json!(true));
            }
            config::merge(client, output, &["pool", name], settings, &how)
        }
    }
}

fn set_forwarding(client: &Client, output: &Output, name: &str, patch: &PoolPatch) -> Result<(), Failure> {
    let answer = client.patch::<PoolView>(&format!("pools/{}", encode(name)), patch)?;
    if output.is_json() {
        return output.answer(&answer, views::pool);
    }
    let other = if answer.value.forwarding == Forwarding::Dsr { "nat" } else { "dsr" };
    output.note(&format!(
        "pool {name} forwards new connections by {}{}; tracked ones finish as they began\n\
         next: lbctl conn ls --pool {name} --forwarding {other}",
        views::word(&answer.value.forwarding),
        for_a_while(patch.for_s)
    ));
    Ok(())
}

fn forwarding(word: &str) -> Option<Forwarding> {
    match word {
        "dsr" => Some(Forwarding::Dsr),
        "nat" => Some(Forwarding::Nat),
        "nat_source" => Some(Forwarding::NatSource),
        _ => None,
    }
}

pub(super) fn set_state(
    client: &Client,
    output: &Output,
    node: &NodeName,
    state: NodeState,
    lasting: Lasting,
) -> Result<(), Failure> {
    let patch = NodePatch { state: Some(state), for_s: lasting.for_s(), ..NodePatch::default() };
    if lasting.is_written() {
        let settings = [Setting { path: vec!["state".to_owned()], value: Value::String(views::word(&state)) }];
        return write_node(client, output, &node.node, &settings, &lasting, &patch);
    }
    patch_node(client, output, &node.node, &patch)
}

pub(super) fn set_node(
    client: &Client,
    output: &Output,
    name: &str,
    settings: &[Setting],
    lasting: Lasting,
) -> Result<(), Failure> {
    let weight = match settings {
        [Setting { path, value: Value::Number(weight) }] if path == &["weight"] => {
            weight.as_u64().and_then(|weight| u32::try_from(weight).ok())
        }
        _ => None,
    };
    let patch = NodePatch { weight, for_s: lasting.for_s(), ..NodePatch::default() };
    if weight.is_some() && !lasting.is_written() {
        return patch_node(client, output, name, &patch);
    }
    write_node(client, output, name, settings, &lasting, &patch)
}

/// Writes keys of a node to the configuration; what covers them at run time goes.
fn write_node(
    client: &Client,
    output: &Output,
    name: &str,
    settings: &[Setting],
    lasting: &Lasting,
    patch: &NodePatch,
) -> Result<(), Failure> {
    let how = lasting.written("node", settings)?;
    let (pool, node) = whole_name(client, name)?;
    config::merge(client, output, &["pool", &pool, "node", &node], object(settings), &how)?;
    if patch.state.is_none() && patch.weight.is_none() {
        return Ok(());
    }
    // What was set at run time goes by itself, unless the configuration said the same before.
    let path = node_path(&format!("{pool}/{node}"));
    let now = client.get::<NodeView>(&path)?.value;
    if patch.state.is_some_and(|state| state != now.state) || patch.weight.is_some_and(|weight| weight != now.weight) {
        client.patch::<NodeView>(&path, &NodePatch { for_s: None, ..patch.clone() })?;
    }
    Ok(())
}

pub(super) fn patch_node(client: &Client, output: &Output, name: &str, patch: &NodePatch) -> Result<(), Failure> {
    let answer = client.patch::<NodeView>(&node_path(name), patch)?;
    if output.is_json() {
        return output.answer(&answer, views::node);
    }
    output.note(&changed(&answer.value, patch));
    Ok(())
}

pub(super) fn add_node(
    client: &Client,
    output: &Output,
    name: &str,
    settings: &[Setting],
    change: Change,
) -> Result<(), Failure> {
    let Some((pool, node)) = name.split_once('/') else {
        return Err(Failure::Usage(format!("say which pool: lbctl node add POOL/{name} address=ADDRESS:PORT")));
    };
    let known = client.get::<PoolView>(&format!("pools/{}", encode(pool)))?.value;
    if known.nodes.iter().any(|known| known.name == node) {
        return Err(Failure::Usage(format!("pool {pool} has a node {node}; to change it: lbctl node set {name} …")));
    }
    let settings: Map<String, Value> = object(settings);
    config::edit(client, output, &["pool", pool, "node", node], Action::Set(Value::Object(settings)), &change.how())
}

pub(super) fn remove(client: &Client, output: &Output, path: &[&str], change: Change) -> Result<(), Failure> {
    config::edit(client, output, path, Action::Remove, &change.how())
}

/// Pool and node of a name that may leave the pool out.
pub(super) fn whole_name(client: &Client, name: &str) -> Result<(String, String), Failure> {
    if let Some((pool, node)) = name.split_once('/') {
        return Ok((pool.to_owned(), node.to_owned()));
    }
    let node = client.get::<NodeView>(&node_path(name))?.value;
    Ok((node.pool, node.name))
}

/// What a change of a node did, and what to do next.
fn changed(node: &NodeView, patch: &NodePatch) -> String {
    let name = format!("{}/{}", node.pool, node.name);
    let next = format!("next: lbctl node show {name}");
    let lasts = for_a_while(patch.for_s);
    match patch.state {
        None if patch.up => format!("node {name} is taken in again; health: {}\n{next}", views::word(&node.health)),
        None => format!("node {name} has weight {}{lasts}; tracked connections stay\n{next}", node.weight),
        Some(NodeState::Active) => {
            format!("node {name} is active{lasts}; health: {}\n{next}", views::word(&node.health))
        }
        Some(NodeState::Draining) => format!(
            "node {name} takes no new connections{lasts}; {} active ones go on\nnext: lbctl conn ls --node {name}",
            node.active
        ),
        Some(NodeState::Disabled) => format!("node {name} gets no packets any more{lasts}\n{next}"),
    }
}

/// `pools/POOL/nodes/NODE` for `POOL/NODE`, `nodes/NODE` without a pool.
pub(super) fn node_path(name: &str) -> String {
    match name.split_once('/') {
        Some((pool, node)) => format!("pools/{}/nodes/{}", encode(pool), encode(node)),
        None => format!("nodes/{}", encode(name)),
    }
}

fn for_a_while(for_s: Option<u64>) -> String {
    for_s.map_or_else(String::new, |seconds| format!(" for {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_addressed_with_or_without_their_pool() {
        assert_eq!(node_path("web/n1"), "pools/web/nodes/n1");
        assert_eq!(node_path("n1"), "nodes/n1");
        assert_eq!(node_path("we b/n/1"), "pools/we%20b/nodes/n%2F1");
    }
}
