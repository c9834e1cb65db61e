//! What is told of requests that nobody sent.

use super::*;
use crate::{
    control::{
        plan::Admission,
        proxy::{
            pool::{Failure, Key, Scheduler},
            rule::{Action, Condition, Fact, Rule, Test},
            trace::Outcome,
        },
    },
    proxy::testing,
};

/// One virtual server of HTTP on 10.1.1.1:80 before three nodes, with a rule that answers `/closed`.
fn plan() -> ProxyPlan {
    let nodes: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
    let mut plan = testing::http_plan(&nodes);
    let server = plan.virtual_servers.get_mut("test").unwrap();
    server.listen = vec!["10.1.1.1:80".parse().unwrap()];
    let Service::Http(http) = &mut server.service else { unreachable!("it speaks HTTP") };
    http.rules.request.push(Rule {
        name: "closed".into(),
        when: Condition::Is(Fact::Path, Test::Prefix(vec!["/closed".into()])),
        actions: vec![Action::Respond { status: 410, content_type: "text/plain".into(), body: "gone".into() }],
    });
    plan
}

fn ask(url: &str) -> UrlTraceRequest {
    UrlTraceRequest { url: url.into(), ..UrlTraceRequest::default() }
}

fn told(plan: &ProxyPlan, out: &Out, request: &UrlTraceRequest) -> UrlTraceView {
    trace(plan, out, request, 0).unwrap()
}

fn serving(view: &UrlTraceView) -> Vec<&str> {
    view.nodes.iter().filter(|node| node.may_serve).map(|node| node.node.as_str()).collect()
}

#[test]
fn rules_and_nodes_are_told() {
    let view = told(&plan(), &Out::new(), &ask("http://10.1.1.1/a/../b"));
    assert_eq!((view.virtual_server.as_str(), view.local.to_string().as_str()), ("test", "10.1.1.1:80"));
    assert_eq!(view.path, "/b");
    assert_eq!(view.rules[0].outcome, Outcome::NotMatched);
    assert_eq!((view.pool.as_deref(), serving(&view)), (Some("nodes"), vec!["node0", "node1", "node2"]));

    let view = told(&plan(), &Out::new(), &ask("http://www.example/closed/x"));
    assert_eq!((view.verdict.as_str(), view.pool), ("answered with 410 by a rule", None));
    assert_eq!(view.rules[0].outcome, Outcome::Ended);
}

#[test]
fn nodes_that_take_nothing_are_told_why() {
    let mut plan = plan();
    let pool = plan.pools.get_mut("nodes").unwrap();
    pool.nodes.get_mut("node0").unwrap().admission = Admission::Tracked;
    let out = Out::from([(
        ("nodes".to_owned(), "node1".to_owned()),
        NodeChange::Out { reason: Failure::Connect, in_a_row: 3 },
    )]);
    let view = told(&plan, &out, &ask("http://10.1.1.1/"));
    assert_eq!(serving(&view), ["node2"]);
    assert!(view.nodes[0].why.starts_with("draining"), "{view:?}");
    assert_eq!(view.nodes[1].why, "out by passive monitoring: 3 failed connects in a row");
}

#[test]
fn a_failure_pool_is_followed() {
    let mut plan = plan();
    let mut other = plan.pools["nodes"].clone();
    other.nodes.retain(|name, _| name == "node2");
    plan.pools.insert("spare".into(), other);
    let pool = plan.pools.get_mut("nodes").unwrap();
    pool.failure_pool = Some("spare".into());
    pool.nodes.values_mut().for_each(|node| node.admission = Admission::Nothing);
    let view = told(&plan, &Out::new(), &ask("http://10.1.1.1/"));
    assert_eq!((view.pool.as_deref(), view.pool_in_use.as_deref()), (Some("nodes"), Some("spare")));
    assert_eq!(serving(&view), ["node2"]);

    plan.pools.get_mut("spare").unwrap().nodes.values_mut().for_each(|node| node.admission = Admission::Nothing);
    let view = told(&plan, &Out::new(), &ask("http://10.1.1.1/"));
    assert!(view.verdict.ends_with("the error page is sent") && serving(&view).is_empty(), "{view:?}");
}

#[test]
fn a_hash_decides_on_one_node() {
    let mut plan = plan();
    plan.pools.get_mut("nodes").unwrap().scheduler = Scheduler::ConsistentHash(Key::Path);
    let chosen = |path: &str| {
        let view = told(&plan, &Out::new(), &ask(&format!("http://10.1.1.1{path}")));
        let serving = serving(&view);
        assert_eq!(serving.len(), 1, "{view:?}");
        serving[0].to_owned()
    };
    let paths: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    let nodes: std::collections::BTreeSet<String> = paths.iter().map(|path| chosen(path)).collect();
    assert_eq!(nodes.len(), 3, "twenty paths reach all nodes");
    assert!(paths.iter().all(|path| chosen(path) == chosen(path)));
}

#[test]
fn what_the_parser_refuses_is_told() {
    let plan = plan();
    let two_hosts = UrlTraceRequest {
        headers: vec![("Host".into(), "a".into()), ("host".into(), "b".into())],
        ..ask("http://10.1.1.1/")
    };
    assert!(told(&plan, &Out::new(), &two_hosts).verdict.starts_with("refused with 400"), "two hosts");
    let smuggled =
        UrlTraceRequest { method: Some("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET".into()), ..ask("http://10.1.1.1/") };
    assert!(matches!(trace(&plan, &Out::new(), &smuggled, 0), Err(TraceError::Invalid(_))));
}

#[test]
fn no_virtual_server_or_several() {
    let mut plan = plan();
    for url in ["https://10.1.1.1/", "http://10.1.1.1:81/", "http://10.1.1.2/"] {
        assert!(matches!(trace(&plan, &Out::new(), &ask(url), 0), Err(TraceError::NotFound(_))), "{url}");
    }
    let mut other = plan.virtual_servers["test"].clone();
    other.listen = vec!["10.1.1.2:80".parse().unwrap()];
    plan.virtual_servers.insert("other".into(), other);
    let several = trace(&plan, &Out::new(), &ask("http://www.example/"), 0).unwrap_err();
    assert!(several.to_string().contains("other, test"), "{several}");
    let named = UrlTraceRequest { virtual_server: Some("other".into()), ..ask("http://www.example/") };
    assert_eq!(told(&plan, &Out::new(), &named).virtual_server, "other");
    assert_eq!(told(&plan, &Out::new(), &ask("http://10.1.1.2/")).virtual_server, "other");
}
