//! Two configurations, and what their difference touches.

use super::*;

const BEFORE: &str = r#"version = 1
[daemon]
on_stop = "keep"
[vip.web]
addresses = ["192.0.2.10"]
[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = 80
pool = "web"
[virtual_server.shop]
protocol = "https"
rule = [{ name = "api", if = { path = "/api" }, then = [{ pool = "api" }] }]
server_names = { "a.example" = "spare" }
tls = { certificates = ["site"] }
[certificate.site]
chain = "/a.pem"
[pool.web]
forwarding = "nat"
failure_pool = "spare"
[pool.web.node.n1]
address = "10.0.0.1:80"
[pool.web.node.n2]
address = "10.0.0.2:80"
weight = 2
[pool.spare]
forwarding = "nat"
[pool.api]
forwarding = "proxy"
"#;

fn texts(main: &str) -> Texts {
    Texts { main: main.to_owned(), fragments: BTreeMap::new() }
}

fn between(from: &str, to: &str) -> Difference {
    of_texts(&texts(from), &texts(to))
}

fn of_texts(from: &Texts, to: &Texts) -> Difference {
    difference("lb.toml", (from, &Parts::of(from)), (to, &Parts::of(to)), deadline(Instant::now()))
}

/// `kind name what [details] @ virtual servers`.
fn lines(difference: &Difference) -> Vec<String> {
    let line = |change: &Change| {
        let what = format!("{:?}", change.what).to_lowercase();
        let Change { kind, name, details, virtual_servers, .. } = change;
        format!("{kind} {name} {what} [{}] @ {}", details.join("; "), virtual_servers.join(","))
    };
    difference.changes.iter().map(line).collect()
}

#[test]
fn each_part_is_told_with_the_virtual_servers_that_it_serves() {
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        ("a weight", "weight = 2", "weight = 3", &["node web/n2 changed [weight: 2 → 3] @ web"]),
        ("a key is left out", "weight = 2\n", "", &["node web/n2 changed [weight: 2 → default] @ web"]),
        (
            "a node less",
            "[pool.web.node.n1]\naddress = \"10.0.0.1:80\"\n",
            "",
            &["node web/n1 removed [address: \"10.0.0.1:80\"] @ web"],
        ),
        (
            "a node more",
            "[pool.spare]\n",
            "[pool.web.node.n3]\naddress = \"10.0.0.3:80\"\n[pool.spare]\n",
            &["node web/n3 added [address: \"10.0.0.3:80\"] @ web"],
        ),
        (
            "a pool that stands in, by name and by failure",
            "[pool.spare]\nforwarding = \"nat\"",
            "[pool.spare]\nforwarding = \"dsr\"",
            &["pool spare changed [forwarding: \"nat\" → \"dsr\"] @ shop,web"],
        ),
        (
            "a pool of a rule",
            "forwarding = \"proxy\"",
            "forwarding = \"nat\"",
            &["pool api changed [forwarding: \"proxy\" → \"nat\"] @ shop"],
        ),
        ("a certificate", "/a.pem", "/b.pem", &["certificate site changed [chain: \"/a.pem\" → \"/b.pem\"] @ shop"]),
        (
            "a section without names",
            "\"keep\"",
            "\"withdraw\"",
            &["daemon  changed [on_stop: \"keep\" → \"withdraw\"] @ "],
        ),
    ];
    for (name, old, new, expected) in cases {
        assert!(BEFORE.contains(old), "{name}");
        assert_eq!(lines(&between(BEFORE, &BEFORE.replace(old, new))), expected, "{name}");
    }
}

#[test]
fn comments_and_order_change_the_text_alone() {
    let commented = BEFORE.replace("weight = 2", "weight = 2 # the big one");
    let difference = between(BEFORE, &commented);
    assert!(difference.changes.is_empty());
    assert!(difference.text.contains("--- a/lb.toml\n+++ b/lb.toml\n"), "{}", difference.text);
    assert!(difference.text.contains("-weight = 2\n+weight = 2 # the big one\n"), "{}", difference.text);
    assert_eq!(between(BEFORE, BEFORE), Difference::default());
}

#[test]
fn a_part_that_moves_to_another_file_is_the_same_part() {
    let (rest, spare) = BEFORE.split_once("[pool.spare]").unwrap();
    let moved =
        Texts { main: rest.to_owned(), fragments: [("spare.toml".to_owned(), format!("[pool.spare]{spare}"))].into() };
    let found = of_texts(&texts(BEFORE), &moved);
    assert!(found.changes.is_empty(), "{found:?}");
    assert!(found.text.contains("--- /dev/null\n+++ b/conf.d/spare.toml"), "{}", found.text);
}

#[test]
fn long_values_are_cut() {
    let long = format!("\"{}\"", "ä".repeat(200));
    let difference = between(BEFORE, &BEFORE.replace("\"/a.pem\"", &long));
    assert!(difference.changes[0].details[0].ends_with('…') && difference.changes[0].details[0].len() < 200);
}
