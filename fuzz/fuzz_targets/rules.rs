//! Rules: whatever their texts and the request are, they compile or say why not, and what they put into heads can stand there.
#![no_main]

use std::time::Duration;

use lb_fuzz::{
    control::proxy::{
        ClientTimeouts, Limits as ServerLimits, ProxyPlan, Service, VirtualServer,
        http::{Http, Strictness},
        rule::{Action, Condition, Fact, Rule, Rules, Test},
    },
    proxy::{
        facts::{RequestFacts, RequestId},
        h1::{Slots, request},
        limit::Limits,
        path::{Policy, normalise},
        rules::{Edits, RuleSet, Scope, Verdict},
    },
};
use libfuzzer_sys::fuzz_target;

// What decides, then a text with macros, a regular expression and a request's head, with a byte between them that no text has.
fuzz_target!(|input: &[u8]| {
    let Some((flags, rest)) = input.split_first() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0xff);
    let mut text = || str::from_utf8(parts.next()?).ok();
    let (Some(text), Some(pattern)) = (text(), text()) else { return };
    let (flags, head) = (*flags, parts.next().unwrap_or_default());
    let mut slots = Slots::new();
    let Ok(Some(head)) = request::parse(head, &Strictness::default(), &mut slots) else { return };
    let plan = plan(flags, text, pattern);
    let Ok(set) = RuleSet::compile("test", &plan, &Limits::build(&plan, None)) else { return };
    let request = RequestFacts::new(head, "1.1", [192, 0, 2, 7].into(), ([10, 1, 1, 1], 80).into(), None);
    let scope = Scope {
        facts: &request,
        response: None,
        virtual_server: "test",
        pool: "",
        node: "",
        request_id: RequestId(1),
        now: Duration::from_secs(1),
        unix_s: 1_795_262_229,
        hits: &[],
    };
    let mut edits = Edits::default();
    let verdict = set.evaluate_request(&scope, &mut edits);
    check(&edits, &verdict, text);
    edits.clear();
    assert_eq!(set.evaluate_request(&scope, &mut edits), verdict, "the same request, the same verdict");
});

/// `text` is the rule's own.
fn check(edits: &Edits, verdict: &Verdict, text: &str) {
    let is_of_another_host = text.starts_with("//");
    let fields = edits.request.added().chain(edits.response.added()).map(|(_, value)| value);
    for text in fields.chain(edits.path()).chain(edits.query().flatten()).chain([edits.location()]) {
        let lower = text.to_ascii_lowercase();
        assert!(!text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "{text:?}");
        assert!(!["%0d", "%0a", "%00"].iter().any(|spelling| lower.contains(spelling)), "{text:?}");
    }
    if let Some(path) = edits.path() {
        let policy = Policy { allow_encoded_slash: false, merge_slashes: false };
        assert_eq!(normalise(path.as_bytes(), policy).as_deref(), Ok(path), "paths are normal");
    }
    for query in edits.query().flatten() {
        assert!(query.bytes().all(|byte| byte > b' ' && byte != b'#'), "{query:?}");
    }
    if matches!(verdict, Verdict::Redirect { .. }) {
        let location = edits.location();
        // To another host only where the rule says so, never by a request's path.
        assert!(
            (is_of_another_host || !location.starts_with("//"))
                && location.bytes().all(|byte| byte > b' ' && byte != 0x7f),
            "{location:?}"
        );
    }
}

fn plan(flags: u8, text: &str, pattern: &str) -> ProxyPlan {
    let [text, pattern] = [text, pattern].map(str::to_owned);
    let test = match flags & 7 {
        0 => Test::Present,
        1 => Test::OneOf(vec![pattern.clone()]),
        2 => Test::Prefix(vec![pattern.clone(), text.clone()]),
        3 => Test::Suffix(vec![pattern.clone()]),
        4 => Test::Contains(vec![pattern.clone()]),
        _ => Test::Regex(pattern.clone()),
    };
    let header = || "x".to_owned();
    let action = match flags >> 3 & 15 {
        0 => Action::SetHeader(header(), text.clone()),
        1 => Action::AddHeader(header(), text.clone()),
        2 => Action::SetPath(text.clone()),
        3 => Action::SetQuery(text.clone()),
        4 => Action::SetCookie { name: "c".to_owned(), value: text.clone(), attributes: pattern.clone() },
        5 => Action::Redirect { status: 302, to: text.clone(), keep_path: true },
        6 => Action::Redirect { status: 302, to: text.clone(), keep_path: false },
        7 => Action::RewritePath { regex: pattern, with: text.clone() },
        8 => Action::SetHeader("host".to_owned(), text.clone()),
        9 => Action::Log(text.clone()),
        _ => Action::CacheControl(text.clone()),
    };
    let when = Condition::Is(if flags & 128 == 0 { Fact::Path } else { Fact::Header("x".to_owned()) }, test);
    let rule = Rule { name: "r".to_owned(), when, actions: vec![action] };
    let rules = Rules { request: vec![rule], ..Rules::default() };
    let server = VirtualServer {
        listen: Vec::new(),
        service: Service::Http(Box::new(Http { rules, ..Http::default() })),
        tls: None,
        proxy_protocol: None,
        pool: None,
        limits: ServerLimits::default(),
        timeouts: ClientTimeouts::default(),
        bandwidth: None,
        access_log: None,
        recent: 0,
    };
    ProxyPlan { virtual_servers: [("test".to_owned(), server)].into(), ..ProxyPlan::default() }
}
