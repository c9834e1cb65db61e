//! The hot path allocates nothing once its buffers have grown: rules, counters, a log line, a recent record.

use std::{hint::black_box, sync::Arc};

use super::*;
use crate::{
    control::proxy::{
        Service,
        rule::{Action, Condition, Fact, Rule, Rules, Test},
    },
    proxy::{
        limit::Limits,
        recent::Recent,
        rules::{Edits, RuleSet, Scope},
        stats::{Counter, Stats},
        testing,
    },
};

/// Everything that is done for a request, at its end and on its way.
struct Hot {
    rules: RuleSet,
    hits: Arc<[Arc<Counter>]>,
    edits: Edits,
    stats: Stats,
    recent: Recent,
    log: AccessLog,
    own: ThreadLog,
}

impl Hot {
    fn new(format: plan::Format) -> Self {
        let path = |prefix: &str| Condition::Is(Fact::Path, Test::Prefix(vec![prefix.to_owned()]));
        let text = str::to_owned;
        let mut plan = testing::http_plan(&[]);
        let Service::Http(http) = &mut plan.virtual_servers.get_mut("test").unwrap().service else {
            panic!("not HTTP")
        };
        let rule = |name: &str, when, actions| Rule { name: text(name), when, actions };
        http.rules = Rules {
            request: vec![
                rule("none", path("/none"), vec![Action::Drop]),
                rule("regex", Condition::Is(Fact::Path, Test::Regex(text("^/z[0-9]+"))), vec![Action::Drop]),
                rule("set", path("/a"), vec![Action::DeleteHeader(text("x-b"))]),
                rule("pool", path("/a"), vec![Action::Pool(text("nodes"))]),
            ],
            ..Rules::default()
        };
        let rules = RuleSet::compile("test", &plan, &Limits::build(&plan, None)).unwrap();
        let stats = Stats::new(1);
        let hits = stats.thread(0).unwrap().rules("test", rules.names());
        // No file is opened: the writer counts what it loses, which is not what is measured.
        let writer = LogWriter::start().unwrap();
        let log = plan::AccessLog { path: PathBuf::from("x"), format, sample: 1 };
        let log = AccessLog::compile(&log, &writer).unwrap();
        let (recent, own) = (Recent::new(1), writer.thread());
        Self { rules, hits, edits: Edits::default(), stats, recent, log, own }
    }

    /// Serves so many requests; allocations of each part in the second half.
    fn run(&mut self, rounds: u32) -> [u64; 4] {
        let thread = self.stats.thread(0).unwrap();
        let server = thread.virtual_server("test");
        let ring = self.recent.ring("test", 0, 32).unwrap();
        let request = Request::get("/a/b?x=1").with("user-agent", "curl/8.5.0").with("referer", "https://example.org/");
        let response = Response::new(200).with("content-type", "text/html");
        let entry = entry(&request, Some(&response));
        let scope = Scope {
            facts: &request,
            response: None,
            virtual_server: "test",
            pool: "",
            node: "",
            request_id: RequestId(1),
            now: Duration::from_secs(1),
            unix_s: 1_795_262_229,
            hits: &self.hits,
        };
        let mut measured = [0; 4];
        for half in 0..2 {
            let mut measure = |part: usize, work: &mut dyn FnMut()| {
                let allocations = allocation_counter::measure(|| (0..rounds).for_each(|_| work())).count_total;
                if half == 1 {
                    measured[part] = allocations;
                }
            };
            measure(0, &mut || {
                self.edits.clear();
                black_box(self.rules.evaluate_request(black_box(&scope), &mut self.edits));
            });
            measure(1, &mut || server.finish(200, black_box(entry.timings.total), 10, 1000));
            measure(2, &mut || self.log.log(black_box(&entry), &self.own));
            measure(3, &mut || ring.remember(black_box(&entry), &thread.own.recent_skipped));
        }
        measured
    }
}

#[test]
fn nothing_is_allocated_for_a_request() {
    for format in [plan::Format::Combined, plan::Format::Json] {
        // Few enough that no batch is handed over: that is one message for hundreds of lines.
        let parts = Hot::new(format.clone()).run(60);
        assert_eq!(parts[0], 0, "rules");
        assert_eq!(parts[1], 0, "counters");
        assert!(parts[2] <= 2, "a log line: {} for 60 lines of {format:?}: the batch doubles, no more", parts[2]);
        assert_eq!(parts[3], 0, "a recent request");
    }
    let counted = allocation_counter::measure(|| drop(black_box(vec![1_u8])));
    assert_eq!(counted.count_total, 1, "the allocator counts");
}
