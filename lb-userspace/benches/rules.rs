//! What a request costs beside its forwarding: rules, counters, a log line, a recent record, compression.
//! `cargo bench -p lb-userspace --bench rules`. Each row is the best of several rounds.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    borrow::Cow,
    hint::black_box,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use lb::{
    control::proxy::{
        ClientTimeouts, ProxyPlan, RateClass, Service, VirtualServer,
        http::{Coding, Http},
        log,
        pool::Key,
        rule::{Action, Condition, Fact, Rule, Rules, Test},
    },
    proxy::{
        access_log::{AccessLog, Ended, Entry, LogWriter, Timings},
        compress::Encoder,
        facts::{Facts, RequestId, TlsFacts},
        limit::Limits,
        recent::Recent,
        rules::{Edits, RuleSet, Scope},
        stats::Stats,
    },
};

const ROUNDS: u32 = 20;
const TIMES: u32 = 20_000;

/// `GET /api/v2/users/1234?x=1` with three header fields.
struct Request;

impl Facts for Request {
    fn client(&self) -> IpAddr {
        [198, 51, 100, 7].into()
    }
    fn local(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 80))
    }
    fn method(&self) -> &str {
        "GET"
    }
    fn host(&self) -> &str {
        "example.org"
    }
    fn path(&self) -> &str {
        "/api/v2/users/1234"
    }
    fn raw_url(&self) -> &str {
        "/api/v2/users/1234?x=1"
    }
    fn query(&self) -> Option<&str> {
        Some("x=1")
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "user-agent" => {
                Some(Cow::Borrowed("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"))
            }
            "referer" => Some(Cow::Borrowed("https://example.org/index.html")),
            "accept" => Some(Cow::Borrowed("*/*")),
            _ => None,
        }
    }
    fn version(&self) -> &str {
        "1.1"
    }
    fn tls(&self) -> Option<&TlsFacts> {
        None
    }
}

fn main() {
    rules();
    endings();
    codings();
}

fn measure(name: &str, mut work: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..TIMES {
            work();
        }
        best = best.min(start.elapsed());
    }
    println!("{name:<40} {:>8.1} ns", best.as_nanos() as f64 / f64::from(TIMES));
}

fn rules() {
    let text = str::to_owned;
    let path = |prefix: &str| Condition::Is(Fact::Path, Test::Prefix(vec![text(prefix)]));
    let rule = |when, action| Rule { name: text("r"), when, actions: vec![action] };
    let ten = (0..10).map(|n| rule(path(&format!("/none{n}")), Action::Drop)).collect();
    let regex = Condition::Is(Fact::Path, Test::Regex(text(r"^/api/v[0-9]+/users/\d+$")));
    let set = |value: &str| Action::SetHeader(text("x-a"), text(value));
    let cases = [
        ("no rules", vec![]),
        ("ten prefixes, none matches", ten),
        ("one regex that matches", vec![rule(regex, Action::DeleteHeader(text("x-b")))]),
        ("set a header field, constant", vec![rule(Condition::Always, set("1"))]),
        ("set a header field, two macros", vec![rule(Condition::Always, set("%{host}%{path}"))]),
        ("rate class", vec![rule(Condition::Always, Action::Rate(text("fast")))]),
    ];
    for (name, request) in cases {
        let plan = plan(Rules { request, ..Rules::default() });
        let set = RuleSet::compile("web", &plan, &Limits::build(&plan, None)).unwrap_or_default();
        let stats = Stats::new(1);
        let hits = stats.thread(0).map_or_else(|| Arc::from([]), |thread| thread.rules("web", set.names()));
        let mut edits = Edits::default();
        let mut now = Duration::from_secs(1);
        measure(name, || {
            now += Duration::from_micros(10);
            let scope = Scope {
                facts: &Request,
                response: None,
                virtual_server: "web",
                pool: "",
                node: "",
                request_id: RequestId(1),
                now,
                unix_s: 1_795_262_229,
                hits: &hits,
            };
            edits.clear();
            black_box(set.evaluate_request(black_box(&scope), &mut edits));
        });
    }
}

fn plan(rules: Rules) -> ProxyPlan {
    let http = Http { rules, ..Http::default() };
    let server = VirtualServer {
        listen: Vec::new(),
        service: Service::Http(Box::new(http)),
        tls: None,
        proxy_protocol: None,
        pool: None,
        limits: lb::control::proxy::Limits::default(),
        timeouts: ClientTimeouts::default(),
        bandwidth: None,
        access_log: None,
        recent: 0,
    };
    let mut plan = ProxyPlan::default();
    plan.virtual_servers.insert("web".to_owned(), server);
    let key = Key::ClientAddress { prefix4: 32, prefix6: 64 };
    plan.rate_classes.insert("fast".to_owned(), RateClass { rate: 1_000_000, burst: 1000, key });
    plan
}

fn endings() {
    let entry = Entry {
        facts: &Request,
        response: None,
        virtual_server: "web",
        pool: "app",
        node: "a",
        rule: "",
        reason: "",
        request_id: RequestId(7),
        at: Duration::from_millis(1_795_262_229_123),
        status: 200,
        bytes_received: 0,
        bytes_sent: 1234,
        body_bytes_sent: 1024,
        timings: Timings { total: Duration::from_micros(1234), ..Timings::default() },
        retries: 0,
        ended: Ended::default(),
    };
    let stats = Stats::new(1);
    let Some(thread) = stats.thread(0) else { return };
    let server = thread.virtual_server("web");
    measure("counters and histogram", || server.finish(200, black_box(entry.timings.total), 10, 1000));
    let recent = Recent::new(1);
    if let Some(ring) = recent.ring("web", 0, 100) {
        measure("recent request", || ring.remember(black_box(&entry), &thread.own.recent_skipped));
    }
    let Ok(writer) = LogWriter::start() else { return };
    for (name, format) in [("log line, combined", log::Format::Combined), ("log line, JSON", log::Format::Json)] {
        let plan = log::AccessLog { path: name.into(), format, sample: 1 };
        let Ok(compiled) = AccessLog::compile(&plan, &writer) else { return };
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            writer.open(writer.sink(&plan.path), null.into());
        }
        let own = writer.thread();
        measure(name, || compiled.log(black_box(&entry), &own));
    }
    println!("lines dropped: {}", writer.dropped());
}

fn codings() {
    let text = include_str!("../src/config/schema.rs").repeat(8);
    for coding in [Coding::Gzip, Coding::Br, Coding::Zstd] {
        let (mut best, mut size) = (Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut out = Vec::new();
            let Ok(mut encoder) = Encoder::new(coding) else { return };
            for piece in text.as_bytes().chunks(16 * 1024) {
                if encoder.push(piece, false, &mut out).is_err() {
                    return;
                }
            }
            if encoder.finish(&mut out).is_err() {
                return;
            }
            best = best.min(start.elapsed());
            size = out.len();
        }
        let rate = text.len() as f64 / best.as_secs_f64() / 1e6;
        println!("{:<40} {rate:>8.0} MB/s, {} KiB to {} KiB", coding.name(), text.len() / 1024, size / 1024);
    }
}
