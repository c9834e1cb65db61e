//! Persistence: clients keep their nodes, by every kind.

use super::*;
use crate::control::proxy::pool::{NodeGone, Persistence, PersistenceKind};

const TIMEOUT: Duration = Duration::from_secs(600);

fn pool(kind: PersistenceKind, nodes: u8) -> PlanPool {
    let mut pool = plan_pool(Scheduler::RoundRobin, nodes);
    pool.persistence = Some(Persistence { kind, timeout: TIMEOUT, max_entries: 1000, node_gone: NodeGone::ChooseAnew });
    pool
}

fn cookie_kind() -> PersistenceKind {
    PersistenceKind::Cookie { name: "lb".to_owned(), attributes: "Path=/; HttpOnly".to_owned() }
}

fn by_address() -> PersistenceKind {
    PersistenceKind::SourceAddress { prefix4: 24, prefix6: 48 }
}

fn tls(session: u8) -> TestRequest {
    let tls = TlsFacts { session: Some([session; 16]), ..TlsFacts::default() };
    TestRequest { tls: Some(tls), ..TestRequest::from([198, 51, 100, 1]) }
}

fn at(path: &'static str) -> TestRequest {
    TestRequest { path, ..TestRequest::from([198, 51, 100, 1]) }
}

fn query(query: &str) -> TestRequest {
    TestRequest { query: Some(query.to_owned()), ..TestRequest::from([198, 51, 100, 1]) }
}

fn cookie(value: &str) -> TestRequest {
    TestRequest::from([198, 51, 100, 1]).with("cookie", value)
}

/// The node of a request that ends at once; the response begins no session.
fn node(bench: &mut Bench, request: &TestRequest) -> String {
    bench.request = request.clone();
    let lease = bench.choose().unwrap();
    assert_eq!(lease.learn([], None, bench.now).filter(|_| !lease.watches_response()), None);
    lease.node().name().to_owned()
}

/// The node of a request whose response has these `Set-Cookie` values and this `Location`.
fn begin(bench: &mut Bench, request: &TestRequest, set: &[&str], location: Option<&str>) -> String {
    bench.request = request.clone();
    let lease = bench.choose().unwrap();
    assert!(lease.watches_response());
    assert_eq!(lease.learn(set.iter().copied(), location, bench.now), None);
    lease.node().name().to_owned()
}

/// The client's cookie for the node it gets now.
fn our_cookie(bench: &mut Bench) -> (String, String) {
    bench.request = TestRequest::from([198, 51, 100, 1]);
    let lease = bench.choose().unwrap();
    assert!(lease.watches_response());
    let set = lease.learn([], None, bench.now).unwrap().to_owned();
    let value = set.strip_suffix("; Path=/; HttpOnly").unwrap();
    (lease.node().name().to_owned(), value.to_owned())
}

/// Whether every one of several requests goes to `expected`.
fn stays(bench: &mut Bench, request: &TestRequest, expected: &str) -> bool {
    (0..5).all(|_| node(bench, request) == expected)
}

#[test]
fn what_clients_bring_with_them_is_learnt_at_first_use() {
    let cases = [
        (
            by_address(),
            [TestRequest::from([10, 1, 2, 3]), TestRequest::from([10, 1, 2, 200]), TestRequest::from([10, 1, 3, 3])],
        ),
        (
            PersistenceKind::Header("x-user".to_owned()),
            ["anna", "anna", "bert"].map(|user| TestRequest::from([1, 1, 1, 1]).with("x-user", user)),
        ),
        (PersistenceKind::Query("s".to_owned()), ["a=1&s=7", "s=7&b=2", "s=77"].map(query)),
        (PersistenceKind::TlsSession, [tls(1), tls(1), tls(2)]),
    ];
    for (kind, [client, same, other]) in cases {
        let mut bench = Bench::new(pool(kind.clone(), 3));
        let first = node(&mut bench, &client);
        assert!(stays(&mut bench, &same, &first), "{kind:?}");
        let second = node(&mut bench, &other);
        assert_ne!(first, second, "{kind:?}: round robin went on");
        let mut sibling = bench.sibling(1);
        assert!(stays(&mut sibling, &client, &first) && stays(&mut sibling, &other, &second), "{kind:?}: every thread");
        let kind = TableKind::of(&kind).unwrap();
        assert_eq!(bench.pools.shared().table(kind).len(), 2, "{kind:?}");
        let mut nodes: Vec<_> =
            bench.pools.sessions(kind, 10, START).into_iter().map(|s| (s.pool, s.node, s.left)).collect();
        nodes.sort();
        assert_eq!(nodes, [("web".into(), Some(first), TIMEOUT), ("web".into(), Some(second), TIMEOUT)]);
    }
}

#[test]
fn requests_without_a_session_go_in_turn() {
    let cases = [
        (PersistenceKind::Header("x-user".to_owned()), TestRequest::from([1, 1, 1, 1]).with("x-user", "")),
        (PersistenceKind::Query("s".to_owned()), query("s=&ss=1&as=2")),
        (PersistenceKind::TlsSession, TestRequest::from([1, 1, 1, 1])),
        (PersistenceKind::ApplicationCookie("sid".to_owned()), cookie("sid=; xsid=1")),
        (PersistenceKind::ApplicationCookie("sid".to_owned()), cookie("sid=unknown")),
        (PersistenceKind::Jsession, at("/a;jsessionid=/b")),
        (PersistenceKind::Jsession, at("/a;jsessionid=1.unknown")),
        (PersistenceKind::AspNet, at("/(S(unknown))/b")),
    ];
    for (kind, request) in cases {
        let mut bench = Bench::new(pool(kind.clone(), 3));
        let names: Vec<_> = (0..3).map(|_| node(&mut bench, &request)).collect();
        assert_eq!(names, ["n01", "n02", "n03"], "{kind:?}");
        assert!(
            bench.pools.shared().table(TableKind::of(&kind).unwrap()).is_empty(),
            "{kind:?}: clients teach nothing"
        );
    }
}

#[test]
fn sessions_of_applications_are_learnt_from_responses() {
    type Case = (PersistenceKind, &'static [&'static str], Option<&'static str>, [TestRequest; 2]);
    let cases: [Case; 5] = [
        (
            PersistenceKind::ApplicationCookie("sid".to_owned()),
            &["theme=dark", "sid=abc; Path=/"],
            None,
            [cookie("theme=dark; sid=abc"), cookie("sid=\"abc\"")],
        ),
        (
            PersistenceKind::Jsession,
            &["JSESSIONID=AB12.other; Path=/"],
            None,
            [cookie("JSESSIONID=AB12"), at("/a/b;jsessionid=AB12.third")],
        ),
        (
            PersistenceKind::Jsession,
            &[],
            Some("/a;jsessionid=CD?x"),
            [at("/a;jsessionid=CD"), cookie("JSESSIONID=CD.n9")],
        ),
        (
            PersistenceKind::AspNet,
            &["ASP.NET_SessionId=xyz"],
            None,
            [cookie("ASP.NET_SessionId=xyz"), at("/(S(xyz))/p.aspx")],
        ),
        (PersistenceKind::AspNet, &[], Some("/app/(S(xyz))/p.aspx"), [at("/app/(S(xyz))/q.aspx"), at("/(S(xyz))/")]),
    ];
    for (kind, set, location, requests) in cases {
        let mut bench = Bench::new(pool(kind.clone(), 3));
        node(&mut bench, &TestRequest::from([9, 9, 9, 9]));
        let first = begin(&mut bench, &TestRequest::from([9, 9, 9, 9]), set, location);
        assert_eq!(first, "n02");
        for request in &requests {
            assert!(stays(&mut bench, request, &first), "{kind:?} {request:?}");
            assert!(stays(&mut bench.sibling(1), request, &first), "{kind:?}: every thread");
        }
    }
}

#[test]
fn a_route_in_the_session_names_its_node_when_the_table_does_not() {
    let mut bench = Bench::new(pool(PersistenceKind::Jsession, 3));
    assert!(stays(&mut bench, &cookie("JSESSIONID=AB.n03"), "n03"));
    assert!(stays(&mut bench, &at("/x;jsessionid=AB.n02"), "n02"));
    begin(&mut bench, &cookie("JSESSIONID=AB.n03"), &["JSESSIONID=AB.n01"], None);
    assert!(stays(&mut bench, &cookie("JSESSIONID=AB.n01"), "n03"), "the node that answered counts");
}

#[test]
fn our_cookie_leads_back_and_tells_nothing() {
    let mut bench = Bench::new(pool(cookie_kind(), 3));
    let (first, value) = our_cookie(&mut bench);
    let (second, other) = our_cookie(&mut bench);
    assert_ne!((&first, &value), (&second, &other));
    assert!(!value.contains("n01") && !value.contains("10.0") && value.len() == "lb=".len() + 48, "{value}");
    for bench in [&mut bench.sibling(1), &mut Bench::new(pool(cookie_kind(), 3)), &mut bench] {
        assert!(stays(bench, &cookie(&format!("a=b; {value}")), &first));
        assert!(stays(bench, &cookie(&other), &second));
    }
    bench.request = cookie(&value);
    assert!(!bench.choose().unwrap().watches_response(), "who has it needs no other");
}

#[test]
fn cookies_that_we_did_not_make_are_nobodys() {
    let mut bench = Bench::new(pool(cookie_kind(), 2));
    bench.change(|pool| pool.persistence.as_mut().unwrap().node_gone = NodeGone::Close);
    let (_, value) = our_cookie(&mut bench);
    let mut strange = plan_of([("web", pool(cookie_kind(), 2)), ("api", pool(cookie_kind(), 2))]);
    let api = Pools::compile(&strange, &Shared::new(), None, ONE_THREAD, START);
    let lease = api.choose(api.id("api").unwrap(), &bench.request, &NodeSet::default(), START, 0).unwrap();
    let of_api = lease.learn([], None, START).unwrap().split(';').next().unwrap().to_owned();
    strange.secret = Secret([9; 32]);
    let (_, of_others) = our_cookie(&mut Bench::of(strange));
    let mut flipped = value.clone();
    flipped.pop();
    flipped.push(if value.ends_with('0') { '1' } else { '0' });
    let upper = format!("lb={}", value["lb=".len()..].to_uppercase());
    for forged in ["lb=", "lb=n01", "lb=10.0.0.1:80", "lb=\u{e9}", &of_api, &of_others, &flipped, &upper, &value[..50]]
    {
        bench.request = cookie(forged);
        let lease = bench.choose().expect(forged);
        assert!(lease.watches_response(), "{forged}: gets a good one");
    }
}

#[test]
fn what_happens_when_the_node_is_gone() {
    let kinds = [by_address(), cookie_kind()];
    for kind in kinds {
        for action in [NodeGone::ChooseAnew, NodeGone::Close, NodeGone::Page] {
            for way in ["removed", "disabled", "out"] {
                let mut bench = Bench::new(pool(kind.clone(), 3));
                bench.change(|pool| pool.persistence.as_mut().unwrap().node_gone = action);
                let request = if kind == cookie_kind() {
                    cookie(&our_cookie(&mut bench).1)
                } else {
                    TestRequest::from([10, 0, 0, 1])
                };
                let first = node(&mut bench, &request);
                match way {
                    "removed" => bench.change(|pool| drop(pool.nodes.remove(&first))),
                    "disabled" => {
                        bench.change(|pool| pool.nodes.get_mut(&first).unwrap().admission = Admission::Nothing)
                    }
                    _ => bench.choose().unwrap().connect_failed(ms(1), START),
                }
                bench.request = request.clone();
                match (action, bench.choose()) {
                    (NodeGone::ChooseAnew, Ok(lease)) => {
                        let second = lease.node().name().to_owned();
                        assert_ne!(first, second);
                        let request = match lease.learn([], None, START) {
                            Some(set) => cookie(set.split(';').next().unwrap()),
                            None => request,
                        };
                        drop(lease);
                        assert!(stays(&mut bench, &request, &second), "{kind:?} {way}: remembered");
                    }
                    (_, Err(NoNode::Gone(said))) => assert_eq!(said, action),
                    (_, other) => panic!("{kind:?} {action:?} {way}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn draining_keeps_the_clients_a_node_has() {
    for kind in [by_address(), cookie_kind()] {
        let mut bench = Bench::new(pool(kind.clone(), 2));
        let (first, value) = if kind == cookie_kind() {
            our_cookie(&mut bench)
        } else {
            (node(&mut bench, &TestRequest::from([198, 51, 100, 1])), "none=1".to_owned())
        };
        bench.change(|pool| pool.nodes.get_mut(&first).unwrap().admission = Admission::Tracked);
        assert!(stays(&mut bench, &cookie(&value), &first), "{kind:?}");
        let stranger = TestRequest::from([203, 0, 113, 7]);
        assert!(!stays(&mut bench, &stranger, &first), "{kind:?}: nobody new");
    }
}

#[test]
fn a_failed_attempt_goes_elsewhere_and_the_client_keeps_its_node() {
    let mut bench = Bench::new(pool(by_address(), 2));
    let request = bench.request.clone();
    let first = node(&mut bench, &request);
    let mut tried = NodeSet::default();
    tried.insert(bench.choose().unwrap().node().id());
    assert_ne!(bench.choose_but(&tried).unwrap().node().name(), first);
    assert!(stays(&mut bench, &request, &first));
    bench.change(|pool| pool.persistence.as_mut().unwrap().node_gone = NodeGone::Page);
    assert!(matches!(bench.choose_but(&tried), Err(NoNode::AllTried)), "it is to have this node or none");
}

#[test]
fn the_table_is_bounded_and_the_oldest_gives_way() {
    let mut bench = Bench::new(pool(by_address(), 3));
    let table = Arc::clone(bench.pools.shared().table(TableKind::SourceAddress));
    let client = |i: u32| TestRequest::from((0x0a00_0000 + (i << 8)).to_be_bytes());
    let faithful = client(0);
    let first = node(&mut bench, &faithful);
    for i in 1..5000 {
        node(&mut bench, &client(i));
        if i % 20 == 0 {
            assert_eq!(node(&mut bench, &faithful), first, "who comes again is not forgotten: {i}");
        }
    }
    let size = table.len();
    assert!((900..=1008).contains(&size), "{size}");
    bench.change(|pool| pool.persistence.as_mut().unwrap().max_entries = 160);
    assert!(table.len() <= 160, "a smaller table");
    assert!(stays(&mut bench, &faithful, &first), "the newest stay");
    bench.change(|pool| pool.persistence = None);
    assert!(table.is_empty(), "no pool needs it");
}

#[test]
fn a_thread_that_is_late_with_an_older_plan_takes_no_session_away() {
    let mut bench = Bench::new(pool(by_address(), 3));
    let request = bench.request.clone();
    let first = node(&mut bench, &request);
    let _late = Pools::compile(&ProxyPlan::default(), bench.pools.shared(), None, ONE_THREAD, START);
    assert!(stays(&mut bench, &request, &first));
}

#[test]
fn sessions_end_after_their_time() {
    let mut bench = Bench::new(pool(by_address(), 3));
    let request = bench.request.clone();
    let first = node(&mut bench, &request);
    for _ in 0..3 {
        bench.after(TIMEOUT - ms(1));
        assert_eq!(node(&mut bench, &request), first, "each use counts");
    }
    bench.after(TIMEOUT);
    assert_eq!(bench.pools.sessions(TableKind::SourceAddress, 10, bench.now), []);
    assert_ne!(node(&mut bench, &request), first);
}

#[test]
fn tables_are_cleared_exported_and_imported() {
    let mut bench = Bench::new(pool(by_address(), 3));
    let clients: Vec<_> = (0..30u8).map(|i| TestRequest::from([10, 0, i, 1])).collect();
    let nodes: Vec<_> = clients.iter().map(|client| node(&mut bench, client)).collect();
    bench.after(ms(100_000));
    let table = Arc::clone(bench.pools.shared().table(TableKind::SourceAddress));
    let records = table.export(usize::MAX, bench.now);
    assert_eq!((records.len(), table.export(7, bench.now).len()), (30, 7));
    let json = serde_json::to_string(&records).unwrap();
    let mut peer = Bench::new(pool(by_address(), 3));
    peer.now = ms(5);
    let peers = Arc::clone(peer.pools.shared().table(TableKind::SourceAddress));
    peers.import(&serde_json::from_str::<Vec<Record>>(&json).unwrap(), peer.now);
    for (client, expected) in clients.iter().zip(&nodes) {
        assert_eq!(node(&mut peer, client), *expected, "a peer with another clock");
    }
    assert_eq!(peers.export(1, peer.now)[0].left, TIMEOUT, "used: it starts again");
    assert!(records.iter().all(|record| record.left == TIMEOUT - ms(100_000)));
    let shown = bench.pools.sessions(TableKind::SourceAddress, 100, bench.now);
    assert!(shown.iter().any(|session| session.id == "10.0.7.0"), "{shown:?}");
    table.clear();
    assert!(table.is_empty());
}

#[test]
fn pools_of_a_kind_share_a_table_and_not_their_sessions() {
    let plan = plan_of([("web", pool(by_address(), 3)), ("api", pool(by_address(), 3))]);
    let mut bench = Bench::of(plan);
    let request = bench.request.clone();
    let first = node(&mut bench, &request);
    bench.change(|pool| drop(pool.nodes.remove(&first)));
    let api = bench.pools.id("api").unwrap();
    let choose = |bench: &Bench| {
        let lease = bench.pools.choose(api, &request, &NodeSet::default(), START, 0).unwrap();
        lease.node().name().to_owned()
    };
    let of_api = choose(&bench);
    let of_web = node(&mut bench, &request);
    assert_ne!(of_web, first);
    assert_eq!(choose(&bench), of_api);
    assert_eq!(bench.pools.shared().table(TableKind::SourceAddress).len(), 2);
}

#[test]
fn a_client_keeps_its_address_of_a_node_with_several() {
    let addresses =
        |ports: &[u16]| ports.iter().map(|port| SocketAddr::from(([10, 9, 9, 9], *port))).collect::<Vec<_>>();
    let mut bench = Bench::new(pool(by_address(), 1));
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().addresses = addresses(&[1, 2, 3, 4]));
    let of = |bench: &mut Bench, i: u8| {
        bench.request = TestRequest::from([10, 0, i, 1]);
        bench.choose().unwrap().address()
    };
    let before: Vec<_> = (0..100).map(|i| of(&mut bench, i)).collect();
    assert_eq!(before, (0..100).map(|i| of(&mut bench, i)).collect::<Vec<_>>());
    assert_eq!(before.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "all are used");
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().addresses = addresses(&[1, 2, 4]));
    let gone = addresses(&[3])[0];
    for (i, before) in before.iter().enumerate() {
        let after = of(&mut bench, i as u8);
        assert!(after != gone && (after == *before || *before == gone), "client {i}: only who had it moves");
    }
    let node = &bench.pools.pool(bench.web()).unwrap().nodes()[0];
    assert!(!node.serves(gone) && node.serves(addresses(&[2])[0]), "idle connections to it are left");
    bench.change(|pool| pool.persistence = None);
    let used: std::collections::BTreeSet<_> = (0..3).map(|_| bench.choose().unwrap().address()).collect();
    assert_eq!(used.len(), 3, "without persistence in turn");
}
