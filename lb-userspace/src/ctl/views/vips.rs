//! `lbctl vip`.

use std::fmt::Write;

use super::{
    super::output::{Cell, Look, Tone, left, paint, right, table},
    facts, seconds, word,
};
use crate::control::view::{
    ClusterView, MachineView, NeighborState, NeighborView, RouterCounters, SharingMachine, SharingView, VipState,
    VipView, VipsView,
};

/// Where the column of interfaces is.
const INTERFACES: usize = 2;

/// `lbctl vip ls`.
pub(in crate::ctl) fn vips(view: &VipsView, look: Look) -> String {
    let addresses = |group: &VipView| {
        let one = |(address, _): &(std::net::IpAddr, _)| address.to_string();
        group.addresses.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let interfaces = |group: &VipView| {
        let mut names: Vec<&str> = group.addresses.iter().filter_map(|(_, name)| name.as_deref()).collect();
        names.dedup();
        names.join(",")
    };
    let mut columns = vec![
        left("NAME", |group: &VipView| Cell::new(&group.name)),
        left("ADDRESSES", move |group: &VipView| Cell::new(addresses(group))),
        left("INTERFACES", move |group: &VipView| Cell::new(interfaces(group))).spare(3),
        left("STATE", |group: &VipView| Cell::toned(word(&group.state), tone(group.state))),
        left("OWNER", |group: &VipView| Cell::optional(group.owner.as_ref())),
        right("PRIORITY", |group: &VipView| Cell::optional(group.priority)).spare(2),
        left("SINCE", |group: &VipView| Cell::optional(group.since_s.map(seconds))).spare(1),
        left("REPLACEABLE", |group: &VipView| {
            Cell::optional(group.replaceable.map(|is_replaceable| if is_replaceable { "yes" } else { "no" }))
        })
        .wide(),
        right("TRANSITIONS", |group: &VipView| Cell::optional(group.transitions)).wide(),
        left("WHY", |group: &VipView| Cell::optional(group.why.as_ref())).wraps(),
    ];
    if view.groups.iter().any(|group| group.virtual_mac.is_some()) {
        let mac = left("VIRTUAL MAC", |group: &VipView| Cell::optional(group.virtual_mac.as_ref()));
        columns.insert(INTERFACES + 1, mac);
    }
    table(columns, &view.groups, look)
}

/// `lbctl vip status`.
pub(in crate::ctl) fn vip_status(view: &VipsView, look: Look) -> String {
    let mut text = view.cluster.as_ref().map_or_else(
        || "there is no [cluster]: VIP groups do not move between machines\n".to_owned(),
        |cluster| cluster_status(cluster, look),
    );
    // Writing to a String cannot fail.
    if !view.neighbors.is_empty() {
        let _ = write!(text, "\n{}", neighbors(&view.neighbors, look));
    }
    let _ = write!(text, "\n{}", vips(view, look));
    text
}

/// One line for each machine that is told of connections, and one of what came.
fn shared(sharing: &SharingView) -> String {
    let mut text = String::new();
    for machine in &sharing.machines {
        let SharingMachine { name, told, sent, received, .. } = machine;
        // Writing to a String cannot fail.
        let _ = match machine.is_connected {
            true => writeln!(text, "connections: {name} knows {told}; {sent} messages sent, {received} received"),
            false => writeln!(
                text,
                "connections: {name} is not told ({}); {sent} messages sent, {received} received",
                machine.why.as_deref().unwrap_or("not connected yet")
            ),
        };
    }
    let fates: Vec<String> =
        sharing.fates.iter().filter(|(_, count)| **count > 0).map(|(word, count)| format!("{count} {word}")).collect();
    if !fates.is_empty() || sharing.refused > 0 {
        let _ = writeln!(text, "heard from others: {}; {} callers refused", fates.join(", "), sharing.refused);
    }
    text
}

fn neighbors(neighbors: &[NeighborView], look: Look) -> String {
    let tone = |state| match state {
        NeighborState::Established => Tone::Good,
        NeighborState::Connecting | NeighborState::Opening => Tone::Bad,
    };
    let columns = vec![
        left("BGP NEIGHBOR", |neighbor: &NeighborView| Cell::new(&neighbor.name)),
        left("ADDRESS", |neighbor: &NeighborView| Cell::new(neighbor.address)),
        right("AS", |neighbor: &NeighborView| Cell::new(neighbor.asn)),
        left("STATE", move |neighbor: &NeighborView| Cell::toned(word(&neighbor.state), tone(neighbor.state))),
        left("SINCE", |neighbor: &NeighborView| Cell::new(seconds(neighbor.since_s))),
        right("ANNOUNCED", |neighbor: &NeighborView| Cell::new(neighbor.announced)),
        left("WHY", |neighbor: &NeighborView| Cell::optional(neighbor.why.as_ref())).wraps(),
    ];
    table(columns, neighbors, look)
}

fn cluster_status(cluster: &ClusterView, look: Look) -> String {
    let counters = &cluster.counters;
    let fields = [
        ("machine", cluster.machine.clone()),
        ("maintenance", if cluster.in_maintenance { "on".to_owned() } else { "off".to_owned() }),
        ("claims", format!("{} of others to addresses that were owned here", cluster.claims)),
        ("heartbeats", format!("{} heard, {} copies by other paths", counters.heard, counters.copies)),
        (
            "refused",
            format!(
                "{} own that came back, {} stale, {} unproven, {} forged, {} malformed",
                counters.looped_back, counters.stale, counters.unproven, counters.forged, counters.malformed
            ),
        ),
    ];
    let mut text = facts(&fields);
    let routers = &cluster.router_counters;
    if *routers != RouterCounters::default() {
        let _ = writeln!(
            text,
            "VRRP and CARP: {} heard; {} own that came back, {} of other groups, {} of strangers, {} malformed, {} forged, \
             {} with other addresses",
            routers.heard,
            routers.looped_back,
            routers.foreign,
            routers.strangers,
            routers.malformed,
            routers.forged,
            routers.other_addresses
        );
    }
    if let Some(sharing) = &cluster.sharing {
        text.push_str(&shared(sharing));
    }
    if let Some(fault) = &cluster.fault {
        let _ = writeln!(text, "{} {fault}", paint("fault:", Tone::Bad, look));
    }
    let columns = vec![
        left("MACHINE", |machine: &MachineView| Cell::new(&machine.name)),
        left("STATE", |machine: &MachineView| match machine.alive {
            true => Cell::toned("alive", Tone::Good),
            false => Cell::toned("not heard", Tone::Bad),
        }),
        left("HEARS US", |machine: &MachineView| match machine.hears_us {
            true => Cell::toned("yes", Tone::Good),
            false => Cell::toned("no", Tone::Attention),
        }),
        left("LAST HEARD", |machine: &MachineView| {
            Cell::optional(machine.silent_ms.map(|silent| match silent {
                0..1000 => format!("{silent} ms ago"),
                longer => format!("{} ago", seconds(longer / 1000)),
            }))
        }),
    ];
    let _ = write!(text, "\n{}", table(columns, &cluster.machines, look));
    text
}

fn tone(state: VipState) -> Tone {
    match state {
        VipState::Active | VipState::Static | VipState::Announced => Tone::Good,
        VipState::Backup | VipState::External => Tone::Neutral,
        VipState::Idle | VipState::Withdrawn => Tone::Attention,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::cluster::VipMode, control::view::HeartbeatCounters};

    fn view() -> VipsView {
        let group = VipView {
            name: "web".into(),
            mode: VipMode::Failover,
            addresses: vec![
                ("192.0.2.10".parse().unwrap(), Some("eth0".into())),
                ("2001:db8::10".parse().unwrap(), Some("eth0".into())),
            ],
            state: VipState::Backup,
            owner: Some("lb2".into()),
            since_s: Some(62),
            why: Some("started".into()),
            priority: Some(100),
            transitions: Some(0),
            replaceable: Some(false),
            virtual_mac: None,
        };
        let counters = HeartbeatCounters { heard: 9, copies: 27, looped_back: 1, ..HeartbeatCounters::default() };
        let other = MachineView { name: "lb2".into(), silent_ms: Some(40), alive: true, hears_us: false };
        let cluster = ClusterView {
            machine: "lb1".into(),
            fault: Some("front end: no answer".into()),
            machines: vec![other],
            counters,
            sharing: Some(SharingView {
                machines: vec![SharingMachine {
                    name: "lb2".into(),
                    is_connected: true,
                    told: 17,
                    ..SharingMachine::default()
                }],
                fates: [("installed".to_owned(), 3), ("no_room".to_owned(), 0)].into(),
                refused: 1,
            }),
            ..ClusterView::default()
        };
        let neighbor = NeighborView {
            name: "tor1".into(),
            address: "192.0.2.254".parse().unwrap(),
            asn: 65_000,
            state: NeighborState::Connecting,
            since_s: 5,
            announced: 0,
            why: Some("the neighbour says: bad peer AS".into()),
        };
        VipsView { cluster: Some(cluster), neighbors: vec![neighbor], groups: vec![group] }
    }

    #[test]
    fn groups_say_who_owns_them_and_why() {
        let text = vips(&view(), Look::default());
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = ["web", "192.0.2.10,2001:db8::10", "eth0", "backup", "lb2", "100", "1m", "2s", "started"];
        assert_eq!(row, expected, "{text}");
    }

    #[test]
    fn a_virtual_mac_address_is_shown_where_there_is_one() {
        let mut view = view();
        assert!(!vips(&view, Look::default()).contains("VIRTUAL MAC"));
        view.groups[0].virtual_mac = Some("00:00:5e:00:01:2a".into());
        let text = vip_status(&view, Look::default());
        let row = text.lines().find(|line| line.starts_with("web")).unwrap();
        assert!(text.contains("VIRTUAL MAC") && row.contains("eth0        00:00:5e:00:01:2a"), "{text}");
    }

    #[test]
    fn the_status_shows_machines_and_what_is_wrong() {
        let text = vip_status(&view(), Look::default());
        for part in [
            "lb1",
            "fault: front end: no answer",
            "9 heard, 27 copies by other paths",
            "1 own that came back",
            "40 ms ago",
            "alive",
            "192.0.2.10",
            "tor1",
            "bad peer AS",
            "lb2 knows 17;",
            "heard from others: 3 installed; 1 callers refused",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(vip_status(&VipsView::default(), Look::default()).contains("there is no [cluster]"));
    }
}
