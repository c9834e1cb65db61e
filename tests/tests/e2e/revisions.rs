//! The configuration as revisions, while traffic flows: kept, told, taken back, confirmed, and never lost.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb::control::revision::{Applied, Difference, RevisionsView, Source, What};
use lb_tests::harness::{EchoServer, Lb, LiveStreams, Net, Stop, Topology, topology::vip4, wait::until};

use crate::support::{ONE_ARM, SOON, nodes4, one4, service};

fn network() -> Result<Net> {
    Topology::new("revisions").nodes(3).dsr(&[vip4(1)]).build()
}

/// Two of three nodes serve.
fn config(net: &Net) -> String {
    let nodes = nodes4(&net.nodes[..2], 0, &[1, 1]);
    let settings = "forwarding = \"dsr\"\nscheduler = \"round_robin\"";
    [ONE_ARM.to_owned(), service("streams", "one4", "tcp", 7, settings, &nodes)].concat()
}

fn echo(net: &Net) -> Result<Vec<EchoServer>> {
    net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect()
}

fn history(lb: &Lb<'_>) -> Result<RevisionsView> {
    Ok(serde_json::from_value(lb.ctl_json(&["history"])?)?)
}

fn weight(lb: &Lb<'_>) -> Result<u32> {
    Ok(lb.node("streams", &lb.pool("streams")?.nodes[0].name)?.weight)
}

/// Which nodes new connections come to.
fn served_by(lb: &Lb<'_>) -> Result<BTreeSet<String>> {
    let nodes = lb.pool("streams")?.nodes;
    Ok(nodes.into_iter().filter(|node| node.connections > 0).map(|node| node.name).collect())
}

#[test]
fn a_node_is_added_kept_and_taken_back_while_connections_go_on() -> Result<()> {
    let net = network()?;
    let _echo = echo(&net)?;
    let mut lb = net.start_lb(&config(&net))?;
    lb.wait_for_next_hops("streams")?;
    let streams = LiveStreams::start(net.client(), one4(7), 20)?;
    let first = &history(&lb)?.revisions[0];
    ensure!((first.number, first.source) == (1, Source::Start), "{first:?}");

    let third = &net.nodes[2];
    let (name, address) = (format!("streams/{}", third.name), format!("address={}", third.v4));
    let dry = lb.ctl_json(&["node", "add", &name, &address, "--dry-run"])?;
    let dry: Applied = serde_json::from_value(dry)?;
    ensure!(dry.revision == Some(1) && dry.difference.changes[0].what == What::Added, "{dry:?}");
    lb.ctl(&["node", "add", &name, &address, "-m", "more room"])?;
    lb.wait_for_next_hops("streams")?;
    let added = &history(&lb)?.revisions[0];
    ensure!((added.number, added.source) == (2, Source::Edit), "{added:?}");
    ensure!(added.author == "root" && added.comment.as_deref() == Some("more room"), "{added:?}");
    let text = fs::read_to_string(lb.config_file())?;
    ensure!(text.contains(&third.v4.to_string()), "{text}");
    let more = LiveStreams::start(net.client(), one4(7), 20)?;
    ensure!(served_by(&lb)?.contains(&third.name), "the new node serves");

    // What a rollback would touch is told with the connections that go through it.
    let back: Difference = serde_json::from_value(lb.ctl_json(&["diff", "2", "1"])?)?;
    let [change] = back.changes.as_slice() else { anyhow::bail!("{back:?}") };
    ensure!(
        change.what == What::Removed && change.virtual_servers == ["streams"] && change.connections > 0,
        "{change:?}"
    );
    ensure!(lb.lbctl(&["diff", "1", "--exit-code"])?.status.code() == Some(1), "they differ");
    ensure!(lb.lbctl(&["diff", "--exit-code"])?.status.code() == Some(0), "the files are what is in force");

    lb.restart(Stop::Kill)?;
    ensure!(history(&lb)?.in_force == Some(2) && lb.pool("streams")?.nodes.len() == 3, "a crash takes nothing back");
    more.all_go_on(2, SOON)?;
    lb.ctl(&["rollback"])?;
    let view = history(&lb)?;
    ensure!((view.in_force, view.revisions[0].of) == (Some(3), Some(1)), "{view:?}");
    ensure!(lb.pool("streams")?.nodes.len() == 2);
    streams.all_go_on(2, SOON)?;
    ensure!(lb.metrics()?.contains("lb_config_revision 3\n"));
    Ok(())
}

#[test]
fn what_is_not_confirmed_goes_back_also_over_a_restart() -> Result<()> {
    let net = network()?;
    let mut lb = net.start_lb(&config(&net))?;
    let name = lb.pool("streams")?.nodes[0].name.clone();
    let heavier = fs::read_to_string(lb.config_file())?.replacen("weight = 1", "weight = 5", 1);
    let new = lb.directory().join("new.toml");
    fs::write(&new, &heavier)?;
    let file = new.to_str().context("a path in UTF-8")?;
    lb.ctl(&["apply", file, "--confirm", "5s"])?;
    ensure!(weight(&lb)? == 5);
    let set = lb.lbctl(&["node", "set", &format!("streams/{name}"), "weight=7", "--persist"])?;
    ensure!(set.status.code() == Some(5), "{set:?}");
    lb.restart(Stop::Kill)?;
    ensure!(weight(&lb)? == 5 && history(&lb)?.unconfirmed.is_some(), "it waits on");
    // It is in force before it is written down.
    until("the revision goes back", Duration::from_secs(20), || {
        let newest = &history(&lb)?.revisions[0];
        Ok::<_, anyhow::Error>(
            (weight(&lb)? == 1 && (newest.source, newest.of) == (Source::Expiry, Some(1))).then_some(()),
        )
    })?;

    lb.ctl(&["apply", file, "--confirm", "1h"])?;
    lb.ctl(&["confirm"])?;
    ensure!(history(&lb)?.unconfirmed.is_none() && weight(&lb)? == 5);
    ensure!(lb.lbctl(&["confirm"])?.status.code() == Some(5), "there is nothing to confirm");
    Ok(())
}

#[test]
fn a_file_edited_by_hand_is_seen_and_not_overwritten() -> Result<()> {
    let net = network()?;
    let lb = net.start_lb(&config(&net))?;
    let name = format!("streams/{}", lb.pool("streams")?.nodes[0].name);
    let by_hand = fs::read_to_string(lb.config_file())?.replacen("weight = 1", "weight = 9", 1);
    fs::write(lb.config_file(), &by_hand)?;
    ensure!(
        lb.status()?.warnings.iter().any(|warning| warning.contains("lbctl reload")),
        "{:?}",
        lb.status()?.warnings
    );
    let refused = lb.lbctl(&["node", "set", &name, "weight=3", "--persist"])?;
    ensure!(refused.status.code() == Some(5), "{refused:?}");
    ensure!(fs::read_to_string(lb.config_file())? == by_hand);
    lb.ctl(&["reload"])?;
    ensure!(weight(&lb)? == 9 && history(&lb)?.revisions[0].author == "root");
    let wrong = lb.lbctl(&["node", "set", &name, "weight=0", "--persist"])?;
    ensure!(wrong.status.code() == Some(3), "{wrong:?}");
    ensure!(lb.lbctl(&["rollback", "77"])?.status.code() == Some(1));
    Ok(())
}

#[test]
fn what_is_set_for_a_while_is_undone_by_itself() -> Result<()> {
    let net = network()?;
    let lb = net.start_lb(&config(&net))?;
    let name = format!("streams/{}", lb.pool("streams")?.nodes[0].name);
    let set = Instant::now();
    lb.ctl(&["node", "set", &name, "weight=4", "--for", "3s"])?;
    ensure!(weight(&lb)? == 4);
    until("the weight is back", Duration::from_secs(10), || Ok::<_, anyhow::Error>((weight(&lb)? == 1).then_some(())))?;
    ensure!(set.elapsed() > Duration::from_millis(1900), "it held for a while");
    ensure!(history(&lb)?.revisions.len() == 1, "nothing of it is a revision");
    Ok(())
}

#[test]
fn a_start_with_a_damaged_file_goes_on_with_the_last_good_revision() -> Result<()> {
    let net = network()?;
    let mut lb = net.start_lb(&config(&net))?;
    let name = format!("streams/{}", lb.pool("streams")?.nodes[0].name);
    lb.ctl(&["node", "set", &name, "weight=6", "--persist"])?;
    let good = fs::read_to_string(lb.config_file())?;
    lb.stop(Stop::Kill)?;
    fs::write(lb.config_file(), good.replace("[pool.streams]", "[pool.streams"))?;
    lb.launch()?;
    ensure!(weight(&lb)? == 6);
    let status = lb.status()?;
    ensure!(status.config_error.is_some() && status.config_revision == Some(2), "{status:?}");
    fs::write(lb.config_file(), good)?;
    lb.ctl(&["reload"])?;
    ensure!(lb.status()?.config_error.is_none());
    Ok(())
}
