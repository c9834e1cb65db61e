//! Conditions, actions and their order, on sample requests.

mod actions;
mod explained;
mod unsafe_texts;

use super::*;
use crate::{
    control::proxy::{
        BandwidthClass, Network, RateClass, Service,
        pool::Key,
        rule::{Action, Condition, Fact, Rule, Test},
    },
    proxy::{
        facts::sample::{Request, Response},
        stats::Stats,
        testing,
    },
};

/// Rules of the virtual server `test`, with pool `nodes`, and classes `slow` (1/s) and `thin`.
struct Bench {
    set: RuleSet,
    stats: Stats,
    now: Duration,
    unix_s: u64,
    edits: Edits,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let plan = plan_of(rules);
        let set = RuleSet::compile("test", &plan, &Limits::build(&plan, None)).unwrap();
        // A Saturday, 11:57:09.
        let unix_s = 1_795_262_229;
        Self { set, stats: Stats::new(1), now: Duration::from_secs(1000), unix_s, edits: Edits::default() }
    }

    fn on_request(actions: Vec<Action>) -> Self {
        Self::new(Rules { request: vec![rule("r", Condition::Always, actions)], ..Rules::default() })
    }

    fn request(&mut self, request: &Request) -> Verdict {
        self.edits.clear();
        let hits = self.stats.thread(0).unwrap().rules("test", self.set.names());
        let mut scope = scope(request, None, &hits);
        (scope.now, scope.unix_s) = (self.now, self.unix_s);
        self.set.evaluate_request(&scope, &mut self.edits)
    }

    fn response(&mut self, request: &Request, response: &Response) -> Verdict {
        let scope = scope(request, Some(response), &[]);
        self.set.evaluate_response(&scope, &mut self.edits)
    }

    fn added(&self) -> Vec<(&str, &str)> {
        self.edits.request.added().collect()
    }
}

fn plan_of(rules: Rules) -> ProxyPlan {
    let mut plan = testing::http_plan(&[]);
    let key = Key::ClientAddress { prefix4: 32, prefix6: 64 };
    plan.rate_classes.insert("slow".to_owned(), RateClass { rate: 1, burst: 0, key });
    plan.bandwidth_classes.insert("thin".to_owned(), BandwidthClass { bytes_per_s: 1000 });
    let Service::Http(http) = &mut plan.virtual_servers.get_mut("test").unwrap().service else { panic!("not HTTP") };
    http.rules = rules;
    plan
}

fn scope<'a>(request: &'a Request, response: Option<&'a Response>, hits: &'a [Arc<Counter>]) -> Scope<'a> {
    Scope {
        facts: request,
        response: response.map(|response| response as &dyn ResponseFacts),
        virtual_server: "test",
        pool: if response.is_some() { "nodes" } else { "" },
        node: if response.is_some() { "node0" } else { "" },
        request_id: RequestId(0x1234),
        now: Duration::from_secs(1000),
        unix_s: 1_795_262_229,
        hits,
    }
}

fn rule(name: &str, when: Condition, actions: Vec<Action>) -> Rule {
    Rule { name: name.to_owned(), when, actions }
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn set(name: &str, value: &str) -> Action {
    Action::SetHeader(name.to_owned(), value.to_owned())
}

fn respond(status: u16) -> Action {
    Action::Respond { status, content_type: "text/plain".to_owned(), body: String::new() }
}

/// Whether a condition holds.
fn holds(when: &Condition, request: &Request) -> bool {
    let rules = Rules { request: vec![rule("r", when.clone(), vec![respond(403)])], ..Rules::default() };
    Bench::new(rules).request(request) == Verdict::Respond { status: 403 }
}

#[test]
fn facts_are_compared() {
    let is = Condition::Is;
    let net = |address: [u8; 4], prefix| Test::Within(vec![Network { address: address.into(), prefix }]);
    let header = |name: &str| Fact::Header(name.to_owned());
    let many: Vec<String> = (0..50).map(|n| format!("/many{n}/")).collect();
    let request = Request::get("/app/x.php?q=a%20b&n=17&empty=")
        .with("user-agent", "Bot/1.0")
        .with("x-ip", " 10.1.1.1")
        .with("cookie", "a=1; id=\"z\"")
        .with("content-length", "1000");
    let cases = [
        (is(Fact::ClientAddress, net([192, 0, 2, 0], 24)), true),
        (is(Fact::ClientAddress, net([10, 0, 0, 0], 8)), false),
        (is(Fact::ClientAddress, Test::OneOf(texts(&["::1", "192.0.2.7"]))), true),
        (is(Fact::ClientAddress, Test::OneOf(texts(&["::ffff:192.0.2.7"]))), true),
        (is(Fact::ClientAddress, Test::Present), true),
        (is(Fact::LocalAddress, Test::OneOf(texts(&["198.51.100.1"]))), true),
        (is(Fact::LocalPort, Test::OneOf(texts(&["80", "8080"]))), true),
        (is(Fact::LocalPort, Test::Range(8000, 8079)), false),
        (is(Fact::LocalPort, Test::Range(8080, 8080)), true),
        (is(Fact::Method, Test::OneOf(texts(&["GET", "HEAD"]))), true),
        (is(Fact::Method, Test::OneOf(texts(&["get"]))), false),
        (is(Fact::Host, Test::OneOf(texts(&["EXAMPLE.org"]))), true),
        (is(Fact::Host, Test::Suffix(texts(&[".Org"]))), true),
        (is(Fact::Path, Test::Prefix(texts(&["/api", "/app"]))), true),
        (is(Fact::Path, Test::Prefix(texts(&["/APP"]))), false),
        (is(Fact::Path, Test::Prefix(many.clone())), false),
        (is(Fact::Path, Test::Prefix(many.iter().cloned().chain(texts(&["/app"])).collect())), true),
        (is(Fact::Path, Test::Suffix(many.iter().cloned().chain(texts(&[".php"])).collect())), true),
        (is(Fact::Path, Test::OneOf(many.iter().cloned().chain(texts(&["/app/x.php"])).collect())), true),
        (is(Fact::Path, Test::Suffix(texts(&[".php", ".asp"]))), true),
        (is(Fact::Path, Test::Contains(texts(&["pp/", "zzz"]))), true),
        (is(Fact::Path, Test::Contains(texts(&["q="]))), false),
        (is(Fact::Path, Test::Regex(r"^/app/\w+\.php$".to_owned())), true),
        (is(Fact::Path, Test::Regex("^x".to_owned())), false),
        (is(Fact::RawUrl, Test::Contains(texts(&["?q="]))), true),
        (is(Fact::Query, Test::Present), true),
        (is(Fact::QueryParameter("q".to_owned()), Test::OneOf(texts(&["a b"]))), true),
        (is(Fact::QueryParameter("n".to_owned()), Test::Range(10, 20)), true),
        (is(Fact::QueryParameter("empty".to_owned()), Test::Present), true),
        (is(Fact::QueryParameter("none".to_owned()), Test::Present), false),
        (is(header("User-Agent"), Test::Contains(texts(&["Bot"]))), true),
        (is(header("x-ip"), net([10, 0, 0, 0], 8)), true),
        (is(header("user-agent"), net([10, 0, 0, 0], 8)), false),
        (is(header("content-length"), Test::Range(0, 999)), false),
        (is(header("user-agent"), Test::Range(0, u64::MAX)), false),
        (is(header("host"), Test::OneOf(texts(&["example.org"]))), true),
        (is(Fact::Cookie("id".to_owned()), Test::OneOf(texts(&["z"]))), true),
        (is(Fact::Cookie("i".to_owned()), Test::Present), false),
        (is(Fact::Version, Test::OneOf(texts(&["1.1"]))), true),
        (is(Fact::Tls, Test::OneOf(texts(&["false"]))), true),
        (is(Fact::TlsVersion, Test::Present), false),
        (is(Fact::TlsServerName, Test::Present), false),
        (is(Fact::TlsClientSubject, Test::Present), false),
        (is(Fact::Weekday, Test::OneOf(texts(&["sat", "sun"]))), true),
        (is(Fact::Weekday, Test::OneOf(texts(&["fri"]))), false),
        (is(Fact::TimeOfDay, Test::Range(11 * 3600, 12 * 3600)), true),
        (is(Fact::TimeOfDay, Test::Range(12 * 3600, 13 * 3600)), false),
    ];
    for (when, expected) in &cases {
        assert_eq!(holds(when, &request), *expected, "{when:?}");
    }
    // A fact that is not there fails every test, so that its negation holds.
    let absent = header("absent");
    for test in [Test::Present, Test::OneOf(texts(&[""])), Test::Regex(String::new()), Test::Range(0, 1)] {
        let when = Condition::Is(absent.clone(), test);
        assert!(!holds(&when, &request), "{when:?}");
        assert!(holds(&Condition::Not(Box::new(when.clone())), &request), "not {when:?}");
    }
}

#[test]
fn conditions_combine() {
    let (yes, no) = (Condition::Always, Condition::Not(Box::new(Condition::Always)));
    let all = |parts: &[&Condition]| Condition::All(parts.iter().copied().cloned().collect());
    let any = |parts: &[&Condition]| Condition::Any(parts.iter().copied().cloned().collect());
    let cases = [
        (all(&[&yes, &yes]), true),
        (all(&[&yes, &no]), false),
        (any(&[&no, &yes]), true),
        (any(&[&no, &no]), false),
        (all(&[&any(&[&no, &yes]), &Condition::Not(Box::new(no.clone()))]), true),
    ];
    for (when, expected) in cases {
        assert_eq!(holds(&when, &Request::default()), expected, "{when:?}");
    }
}

#[test]
fn rules_run_in_order_until_one_ends_the_list() {
    let mut bench = Bench::new(Rules {
        request: vec![
            rule("first", Condition::Always, vec![set("x-a", "1")]),
            rule("other", Condition::Is(Fact::Path, Test::Prefix(texts(&["/other"]))), vec![respond(500)]),
            rule("second", Condition::Always, vec![set("x-a", "2"), Action::Pool("nodes".to_owned())]),
            rule("never", Condition::Always, vec![set("x-a", "3")]),
        ],
        ..Rules::default()
    });
    assert_eq!(bench.request(&Request::default()), Verdict::Pool(PoolId::at(0)));
    assert_eq!(bench.added(), [("x-a", "2")]);
    assert_eq!(bench.edits.rule.map(|id| bench.set.name(id)), Some("second"));
    let hits = &bench.stats.snapshot().rules["test"];
    let counts: Vec<_> = ["first", "other", "second", "never"].map(|name| hits[name]).into();
    assert_eq!(counts, [1, 0, 1, 0]);
}

#[test]
fn later_rules_see_what_earlier_ones_changed() {
    let is = |fact, value: &str| Condition::Is(fact, Test::OneOf(texts(&[value])));
    let cases = [
        (Action::SetPath("/new".to_owned()), is(Fact::Path, "/new")),
        (Action::SetQuery("a=9".to_owned()), is(Fact::QueryParameter("a".to_owned()), "9")),
        (Action::SetQuery(String::new()), Condition::Not(Box::new(Condition::Is(Fact::Query, Test::Present)))),
        (set("X-New", "v"), is(Fact::Header("x-new".to_owned()), "v")),
        (set("Host", "Other.example"), is(Fact::Host, "other.example")),
        (Action::AddHeader("X-Old".to_owned(), "b".to_owned()), is(Fact::Header("x-old".to_owned()), "a, b")),
        (
            Action::DeleteHeader("X-Old".to_owned()),
            Condition::Not(Box::new(Condition::Is(Fact::Header("x-old".to_owned()), Test::Present))),
        ),
        (
            Action::AllowHeaders(vec![]),
            Condition::Not(Box::new(Condition::Is(Fact::Header("x-old".to_owned()), Test::Present))),
        ),
        (
            Action::DeleteCookie("id".to_owned()),
            Condition::Not(Box::new(Condition::Is(Fact::Cookie("id".to_owned()), Test::Present))),
        ),
        (Action::DeleteCookie("id".to_owned()), is(Fact::Cookie("keep".to_owned()), "1")),
    ];
    let request = Request::get("/old?a=1").with("x-old", "a").with("cookie", "id=7; keep=1");
    for (action, when) in cases {
        let rules = vec![
            rule("change", Condition::Always, vec![action.clone()]),
            rule("see", when.clone(), vec![respond(299)]),
        ];
        let mut bench = Bench::new(Rules { request: rules, ..Rules::default() });
        assert_eq!(bench.request(&request), Verdict::Respond { status: 299 }, "{action:?} then {when:?}");
    }
}

#[test]
fn names_that_lead_nowhere_are_mistakes() {
    for (action, expected) in [
        (Action::Pool("none".to_owned()), "there is no pool \"none\""),
        (Action::Rate("none".to_owned()), "there is no rate class \"none\""),
        (Action::Bandwidth("none".to_owned()), "there is no bandwidth class \"none\""),
        (Action::SetPath("none".to_owned()), "begins with `/`"),
    ] {
        let plan = plan_of(Rules { request: vec![rule("r", Condition::Always, vec![action])], ..Rules::default() });
        let mistakes = RuleSet::compile("test", &plan, &Limits::build(&plan, None)).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].what.contains(expected), "{mistakes:?}");
    }
}
