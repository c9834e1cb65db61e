//! `lbctl top` drawn on terminals of many sizes.

use ratatui::{Terminal, backend::TestBackend};

use super::{draw, model::*, sample::Sample};
use crate::control::{
    plan::{Admission, Forwarding},
    view::{
        Health, InterfaceView, NodeState, NodeView, Status, TableUse, Traffic, VipState, VipView, VipsView,
        VirtualServerView,
    },
};

fn node(name: &str, health: Health, connections: u64) -> NodeView {
    let traffic = Traffic { packets: connections, bytes: connections * 1000 };
    NodeView {
        pool: "web".into(),
        name: name.into(),
        address: "10.0.0.1:80".into(),
        weight: 1,
        state: NodeState::Active,
        state_overridden: false,
        health,
        health_reason: None,
        admission: if health == Health::Down { Admission::Nothing } else { Admission::All },
        mac: None,
        interface: None,
        active: 5,
        connections,
        rescheduled: 0,
        evicted: 0,
        forward: traffic,
        reply: traffic,
        proxy: None,
    }
}

fn server(name: &str, connections: u64) -> VirtualServerView {
    VirtualServerView {
        name: name.into(),
        addresses: Vec::new(),
        protocol: "tcp".into(),
        ports: vec![(80, 80)],
        pool: "web".into(),
        pool_in_use: "web".into(),
        forwarding: Forwarding::Nat.into(),
        scheduler: "maglev".into(),
        nodes_available: 1,
        nodes_total: 2,
        active: 10,
        connections,
        forward: Traffic { packets: connections, bytes: connections * 1000 },
        reply: Traffic { packets: connections, bytes: connections * 5000 },
        flood_limited: 0,
        nodes: vec![node("n1", Health::Up, connections), node("n2", Health::Down, 0)],
        proxy: None,
    }
}

/// Two servers; each has so many connections.
fn sample(at: std::time::Instant, quiet: u64, busy: u64) -> Sample {
    let reasons = [("forwarded_nat".to_owned(), Traffic { packets: busy * 10, bytes: busy * 1000 })].into();
    let status = Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_s: 3700,
        config_generation: 3,
        interfaces: vec![InterfaceView { name: "eth0".into(), ifindex: 2, mode: "native".into(), reasons }],
        tables: [("FLOWS".to_owned(), TableUse { used: 50, capacity: 200 })].into(),
        warnings: vec!["node web/n2 is down: refused".into(), "another".into()],
        ..Status::default()
    };
    let group = VipView {
        name: "public".into(),
        mode: Default::default(),
        addresses: vec![("192.0.2.10".parse().unwrap(), None)],
        state: VipState::Active,
        owner: Some("lb1".into()),
        since_s: None,
        why: None,
        priority: None,
        transitions: None,
        replaceable: None,
        virtual_mac: None,
    };
    let servers = vec![server("alpha", quiet), server("beta", busy)];
    Sample { at, status, servers, vips: VipsView { groups: vec![group], ..VipsView::default() } }
}

fn model() -> Model {
    let start = std::time::Instant::now();
    let mut model = Model::new(sample(start, 100, 100));
    model.take(Ok(sample(start + std::time::Duration::from_secs(2), 102, 300)));
    model
}

fn picture(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::all(frame, model)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    buffer.content.chunks(usize::from(width)).map(|row| line(row).trim_end().to_owned()).collect()
}

#[test]
fn virtual_servers_fit_eighty_columns_and_the_busiest_is_first() {
    let lines = picture(&model(), 80, 12);
    assert_eq!(lines[0], "lb 0.1.0  up 1h 1m  configuration 3  FLOWS 25%");
    assert_eq!(lines[1], "node web/n2 is down: refused (and 1 more: lbctl status)");
    assert!(lines[2].starts_with(" 1 Virtual servers  2 Nodes  3 Packets  4 VIPs"), "{lines:#?}");
    assert!(lines[4].starts_with("VIRTUAL SERVER") && lines[4].ends_with("P99"), "{lines:#?}");
    let words: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(words, ["beta", "tcp", "1/2", "10", "100", "-", "800k", "4.0M", "-"], "{lines:#?}");
    let words: Vec<&str> = lines[6].split_whitespace().collect();
    assert_eq!(words[..5], ["alpha", "tcp", "1/2", "10", "1"]);
    assert!(lines[11].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn other_panes_show_nodes_packets_and_vips() {
    let mut model = model();
    model.press(Key::Next);
    let lines = picture(&model, 80, 12);
    let words: Vec<&str> = lines[5].split_whitespace().collect();
    // Both virtual servers use it: 101 new connections in a second together.
    assert_eq!(words[..6], ["web/n1", "active", "up", "10", "101", "-"], "{lines:#?}");
    assert!(lines[6].contains("web/n2") && lines[6].contains("down"), "{lines:#?}");
    model.press(Key::Pane(2));
    let words = picture(&model, 80, 12)[5].clone();
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(words, ["eth0", "send", "forwarded_nat", "1.0k", "800k", "3000"]);
    model.press(Key::Pane(3));
    assert!(picture(&model, 80, 12)[5].contains("192.0.2.10"));
    model.press(Key::Next);
    assert_eq!(model.pane(), Pane::Servers, "the first follows the last");
    model.press(Key::Previous);
    assert_eq!(model.pane(), Pane::Vips);
    model.press(Key::Pane(8));
    assert_eq!(model.pane(), Pane::Vips, "there is no such pane");
}

#[test]
fn keys_sort_scroll_pause_and_end() {
    let mut model = model();
    assert_eq!(model.rows()[0].cells[0], "beta");
    model.press(Key::Sort);
    assert_eq!(model.rows()[0].cells[0], "alpha");
    model.press(Key::Scroll(10));
    assert_eq!(model.offset(), 1, "the last row stays");
    model.press(Key::Scroll(isize::MIN));
    assert_eq!(model.offset(), 0);
    model.press(Key::Pause);
    model.take(Ok(sample(std::time::Instant::now() + std::time::Duration::from_secs(60), 0, 0)));
    assert_eq!(model.rows()[0].cells[4], "1", "it stands still");
    model.press(Key::Help);
    assert!(picture(&model, 80, 24).iter().any(|line| line.contains("sort by name")));
    assert!(!model.press(Key::Quit), "closes the help");
    assert!(model.press(Key::Quit));
}

#[test]
fn it_is_drawn_at_any_size_and_without_lbd() {
    let mut model = model();
    model.take(Err("lbd does not answer\nmore".into()));
    assert_eq!(picture(&model, 80, 12)[1], "lbd does not answer");
    for (width, height) in [(1, 1), (10, 3), (40, 5), (300, 100)] {
        for pane in Pane::ALL {
            model.show(pane);
            picture(&model, width, height);
            model.press(Key::Help);
            picture(&model, width, height);
            model.press(Key::Help);
        }
    }
}

#[test]
fn another_lbd_has_no_rates() {
    let start = std::time::Instant::now();
    let mut model = Model::new(sample(start, 100, 100));
    assert_eq!(model.rows()[0].cells[4], "-", "one look");
    let mut other = sample(start + std::time::Duration::from_secs(1), 0, 0);
    other.status.pid = 8;
    model.take(Ok(other));
    assert_eq!(model.rows()[0].cells[4], "-");
}
