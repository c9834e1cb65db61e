//! Commands that ask lbd: each a request, how its answer reads, and what to do next.

use super::{
    alerts,
    args::{self, Command, Conn, Map, Named, Node, Pool, Vip},
    backup, capture,
    client::{Client, connections_path, encode, query_path},
    config, edits, events,
    failure::Failure,
    flow,
    output::Output,
    stats, support, top, upgrade, users, views,
};
use crate::control::{
    api::{Empty, Maintenance, Move, NodePatch},
    proxy::{recent::Record, trace::UrlTraceView},
    query::Connections,
    view::{
        Finding, MapDump, MapView, NodeState, NodeView, PoolView, RingShare, Severity, Status, TraceView, VipsView,
        VirtualServerView,
    },
};

/// The name under which `map dump` shows a ring: not a map of its own.
const MAGLEV: &str = "maglev";

pub(super) fn execute(client: &Client, output: &Output, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status => output.answer(&client.get::<Status>("status")?, views::status),
        Command::Vs(Named::Ls) if output.is_raw() => Ok(output.print(&client.raw("virtual_servers")?)?),
        Command::Vs(Named::Ls) => output
            .answer(&client.get::<Vec<VirtualServerView>>(&list(output, "virtual_servers"))?, |list, look| {
                views::virtual_servers(list, look)
            }),
        Command::Vs(Named::Show { name }) => {
            let answer = client.get::<VirtualServerView>(&format!("virtual_servers/{}", encode(&name)))?;
            output.answer(&answer, views::virtual_server)?;
            explain_mark(output, is_set(&answer.value.nodes));
            Ok(())
        }
        Command::Pool(verb) => pool(client, output, verb),
        Command::Node(verb) => node(client, output, verb),
        Command::Conn(Conn::Ls(arguments)) if arguments.is_l7() => {
            let filter = arguments.requests().map_err(Failure::Usage)?;
            let answer = client.get::<Vec<Record>>(&query_path("requests", &filter)?)?;
            output.answer(&answer, |list, look| views::requests(list, look))?;
            if answer.value.is_empty() && !output.is_json() {
                output.note("no request matches; how many are remembered says \"recent\" of the virtual server");
            }
            Ok(())
        }
        Command::Vip(verb) => vip(client, output, verb),
        Command::Conn(Conn::Ls(arguments)) => {
            let answer = client.get::<Connections>(&connections_path(&arguments.filter()))?;
            output.answer(&answer, views::connections)?;
            count_connections(output, &answer.value);
            Ok(())
        }
        Command::Events(verb) => events::run(client, output, &verb),
        Command::Alert(verb) => alerts::run(client, output, verb),
        Command::Backup(arguments) => backup::backup(client, output, &arguments),
        Command::Restore(arguments) => backup::restore(client, output, &arguments),
        Command::User(verb) => users::user(client, output, verb),
        Command::Token(verb) => users::token(client, output, verb),
        Command::Audit(verb) => users::audit(client, output, &verb),
        Command::Map(verb) => map(client, output, verb),
        Command::Top(arguments) => top::run(client, output, &arguments),
        Command::Stats(arguments) => stats::run(client, output, &arguments),
        Command::Trace(arguments) if arguments.flow.len() == 1 && arguments.flow[0].contains("://") => {
            let args::Trace { mut flow, url, .. } = arguments;
            let answer = client.post::<UrlTraceView>("trace_url", &url.request(flow.remove(0)))?;
            output.answer(&answer, views::trace_url)
        }
        Command::Trace(arguments) => {
            let request = flow::request(arguments)?;
            let answer = client.post::<TraceView>("trace", &request)?;
            output.answer(&answer, |view, look| views::trace(&request, view, look))
        }
        Command::Capture(arguments) => capture::run(client, output, &arguments),
        Command::Doctor => doctor(client, output),
        Command::Reload => {
            let answer = client.post::<Status>("reload", &Empty {})?;
            if output.is_json() {
                return output.answer(&answer, views::status);
            }
            let Status { config_file, config_revision, .. } = &answer.value;
            let revision = config_revision.map_or_else(|| "not recorded yet".to_owned(), |n| format!("revision {n}"));
            output.note(&format!("{config_file} is in force: {revision}"));
            Ok(())
        }
        Command::History { verb } => config::history(client, output, verb),
        Command::Diff(arguments) => config::diff(client, output, &arguments),
        Command::Apply(arguments) => config::apply(client, output, arguments),
        Command::Confirm => config::confirm(client, output),
        Command::Rollback(arguments) => config::rollback(client, output, arguments),
        Command::Export { number } => config::export(client, output, number),
        Command::Upgrade(how) => upgrade::run(client, output, &how),
        Command::SupportBundle { file, config } => support::run(client, &config, file, output),
        Command::Cert(_)
        | Command::Import { .. }
        | Command::Check { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => {
            unreachable!("commands without a daemon are carried out before")
        }
    }
}

/// Where a list is asked for: a table has no room for nodes, JSON has all.
fn list(output: &Output, path: &str) -> String {
    if output.is_json() { path.to_owned() } else { format!("{path}?nodes=false") }
}

fn pool(client: &Client, output: &Output, verb: Pool) -> Result<(), Failure> {
    match verb {
        Pool::Ls if output.is_raw() => Ok(output.print(&client.raw("pools")?)?),
        Pool::Ls => {
            let answer = client.get::<Vec<PoolView>>(&list(output, "pools"))?;
            output.answer(&answer, |list, look| views::pools(list, look))?;
            explain_mark(output, answer.value.iter().any(|pool| pool.forwarding_overridden));
            Ok(())
        }
        Pool::Show { name } => {
            let answer = client.get::<PoolView>(&format!("pools/{}", encode(&name)))?;
            output.answer(&answer, views::pool)?;
            explain_mark(output, is_set(&answer.value.nodes));
            Ok(())
        }
        Pool::Set { name, settings, persist } => edits::set_pool(client, output, &name, &settings, persist),
        Pool::Rm { name, change } => edits::remove(client, output, &["pool", &name], change),
    }
}

fn node(client: &Client, output: &Output, verb: Node) -> Result<(), Failure> {
    match verb {
        Node::Ls if output.is_raw() => Ok(output.print(&client.raw("nodes")?)?),
        Node::Ls => {
            let answer = client.get::<Vec<NodeView>>("nodes")?;
            output.answer(&answer, |list, look| views::nodes(list, look))?;
            explain_mark(output, is_set(&answer.value));
            Ok(())
        }
        Node::Show(name) => output.answer(&client.get::<NodeView>(&edits::node_path(&name.node))?, views::node),
        Node::Drain { node, persist } => edits::set_state(client, output, &node, NodeState::Draining, persist),
        Node::Undrain { node, persist } | Node::Enable { node, persist } => {
            edits::set_state(client, output, &node, NodeState::Active, persist)
        }
        Node::Disable { node, persist } => edits::set_state(client, output, &node, NodeState::Disabled, persist),
        Node::Up(name) => {
            edits::patch_node(client, output, &name.node, &NodePatch { up: true, ..NodePatch::default() })
        }
        Node::Set { node, settings, persist } => edits::set_node(client, output, &node.node, &settings, persist),
        Node::Add { node, settings, change } => edits::add_node(client, output, &node, &settings, change),
        Node::Rm { node, change } => {
            let (pool, node) = edits::whole_name(client, &node.node)?;
            edits::remove(client, output, &["pool", &pool, "node", &node], change)
        }
    }
}

fn vip(client: &Client, output: &Output, verb: Vip) -> Result<(), Failure> {
    match verb {
        Vip::Ls => output.answer(&client.get::<VipsView>("vips")?, views::vips),
        Vip::Status => output.answer(&client.get::<VipsView>("vips")?, views::vip_status),
        Vip::Failover { name, to } => {
            let answer = client.post::<VipsView>(&format!("vips/{}/move", encode(&name)), &Move { to: to.clone() })?;
            if output.is_json() {
                return output.answer(&answer, views::vips);
            }
            let whom = to.unwrap_or_else(|| "the best other machine".to_owned());
            output.note(&format!("VIP group {name} moves to {whom}\nnext: lbctl vip ls"));
            Ok(())
        }
        Vip::Maintenance { on } => {
            let answer = client.put::<VipsView>("maintenance", &Maintenance { on })?;
            if output.is_json() {
                return output.answer(&answer, views::vip_status);
            }
            output.note(if on {
                "this machine leaves all VIP groups to the others, also after a restart\nnext: lbctl vip maintenance off"
            } else {
                "this machine takes part again\nnext: lbctl vip status"
            });
            Ok(())
        }
    }
}

fn is_set(nodes: &[NodeView]) -> bool {
    nodes.iter().any(|node| node.state_overridden)
}

/// Says what the asterisk in a table means, when there is one.
fn explain_mark(output: &Output, there: bool) {
    if there && !output.is_json() {
        output.note("* set at run time by lbctl; the configuration says otherwise");
    }
}

fn count_connections(output: &Output, found: &Connections) {
    let shown = found.connections.len();
    if found.total > shown as u64 {
        output.note(&format!("{shown} of {} connections; see more with --limit, or fewer with a filter", found.total));
    } else if shown == 0 && !output.is_json() {
        output.note("no connection matches");
    }
}

fn map(client: &Client, output: &Output, verb: Map) -> Result<(), Failure> {
    match verb {
        Map::Ls => output.answer(&client.get::<Vec<MapView>>("maps")?, |list, look| views::maps(list, look)),
        Map::Dump { name, vs: Some(vs), .. } if name == MAGLEV => output
            .answer(&client.get::<Vec<RingShare>>(&format!("rings/{}", encode(&vs)))?, |shares, look| {
                views::ring(shares, look)
            }),
        Map::Dump { vs: Some(_), name, .. } => {
            Err(Failure::Usage(format!("--vs belongs to \"lbctl map dump {MAGLEV}\", not to {name}")))
        }
        Map::Dump { name, limit, .. } => {
            let answer = client.get::<MapDump>(&format!("maps/{}?limit={limit}", encode(&name)))?;
            output.answer(&answer, views::map_dump)?;
            if answer.value.more > 0 {
                output.note(&format!("{} more elements; see them with --limit", answer.value.more));
            }
            Ok(())
        }
    }
}

fn doctor(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.post::<Vec<Finding>>("doctor", &Empty {})?;
    output.answer(&answer, |findings, look| views::doctor(findings, look))?;
    match answer.value.iter().filter(|finding| finding.severity == Severity::Problem).count() {
        0 => Ok(()),
        problems => Err(Failure::Unhealthy { problems }),
    }
}
