//! What rules cost. `cargo nextest run --release -p lb-userspace speed --run-ignored only --no-capture` prints figures.

use std::{hint::black_box, time::Instant};

use super::*;

#[test]
#[ignore = "a measurement, not a test"]
#[expect(clippy::print_stderr, reason = "that is what it is for")]
fn rules_per_request() {
    let path = |prefix: &str| Condition::Is(Fact::Path, Test::Prefix(texts(&[prefix])));
    let ten: Vec<_> = (0..10).map(|n| rule("r", path(&format!("/none{n}")), vec![respond(500)])).collect();
    let regex = Condition::Is(Fact::Path, Test::Regex(r"^/api/v[0-9]+/users/\d+$".to_owned()));
    let cases = [
        ("no rules", vec![]),
        ("ten prefixes, none matches", ten),
        ("one regex that matches, pool", vec![rule("r", regex, vec![Action::Pool("nodes".to_owned())])]),
        ("set two header fields, constant", vec![rule("r", Condition::Always, vec![set("x-a", "1"), set("x-b", "2")])]),
        ("set one header field, two macros", vec![rule("r", Condition::Always, vec![set("x", "%{host}%{path}")])]),
        ("rate class", vec![rule("r", Condition::Always, vec![Action::Rate("slow".to_owned())])]),
    ];
    let request = Request::get("/api/v2/users/1234?x=1");
    for (name, rules) in cases {
        let bench = Bench::new(Rules { request: rules, ..Rules::default() });
        let hits = bench.stats.thread(0).unwrap().rules("test", bench.set.names());
        let scope = scope(&request, None, &hits);
        let mut edits = Edits::default();
        let rounds = 1_000_000_u32;
        let start = Instant::now();
        for _ in 0..rounds {
            edits.clear();
            black_box(bench.set.evaluate_request(black_box(&scope), &mut edits));
        }
        eprintln!("{name}: {} ns", start.elapsed().as_nanos() / u128::from(rounds));
    }
}
