//! Limits keep what they promise, over threads, plans and time.

use std::thread;

use proptest::prelude::*;

use super::{rate::CLOCK_STEP, *};
use crate::{
    control::proxy::{BandwidthClass, RateClass},
    proxy::{facts::sample::Request, testing},
};

const START: Duration = Duration::from_secs(100);

fn client(n: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + n).into())
}

#[test]
fn a_rate_lets_through_its_burst_and_then_its_rate() {
    let rate = Rate::new(10, 5, None);
    let taken = (0..20).filter(|_| rate.take_address(client(1), START).is_ok()).count();
    assert_eq!(taken, 6);
    let over = rate.take_address(client(1), START).unwrap_err();
    assert_eq!(over.retry_after, Duration::from_millis(100));
    assert!(rate.take_address(client(1), START + Duration::from_millis(99)).is_err());
    assert!(rate.take_address(client(1), START + Duration::from_millis(100)).is_ok());
    assert!(rate.take_address(client(2), START).is_ok(), "another key has its own");
}

proptest! {
    /// Whatever the arrivals: never more than burst + 1 + what the time gives; and whoever keeps to the rate is never refused.
    #[test]
    fn a_rate_is_a_rate(rate in 1_u32..20_000, burst in 0_u32..50, gaps in prop::collection::vec(0_u64..200_000, 1..300)) {
        let limit = Rate::new(rate, burst, None);
        let mut now = START;
        let mut let_in = 0_u32;
        for gap in gaps {
            now += Duration::from_micros(gap);
            if limit.take_address(client(1), now).is_ok() {
                let_in += 1;
            }
            let forgiven = f64::from(burst).max(CLOCK_STEP.as_secs_f64() * f64::from(rate));
            let most = forgiven + 1.0 + (now - START).as_secs_f64() * f64::from(rate) * 1.001;
            prop_assert!(f64::from(let_in) <= most + 1.0, "{let_in} of at most {most}");
        }
        let limit = Rate::new(rate, burst, None);
        for n in 0..200 {
            let at = START + Duration::from_nanos(n * 1_000_000_000_u64.div_ceil(u64::from(rate)));
            prop_assert!(limit.take_address(client(1), at).is_ok());
        }
    }
}

#[test]
fn a_coarse_clock_does_not_lower_a_rate() {
    let rate = Rate::new(1000, 0, None);
    let mut taken = 0;
    for ms in 0..1000_u64 {
        let coarse = START + Duration::from_millis(ms / 4 * 4);
        taken += u32::from(rate.take_address(client(1), coarse).is_ok());
    }
    assert!(taken >= 990, "{taken} of 1000");
}

#[test]
fn threads_share_a_rate() {
    let rate = Rate::new(1, 999, None);
    let taken: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..1000).filter(|_| rate.take_address(client(1), START).is_ok()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
}

#[test]
fn a_flood_of_keys_costs_no_memory_and_spares_the_limited() {
    let rate = Rate::new(1, 0, None);
    assert!(rate.take_address(client(0), START).is_ok());
    let attackers = 200_000;
    let taken = (1..attackers).filter(|n| rate.take_address(client(*n), START).is_ok()).count();
    assert_eq!(taken, attackers as usize - 1, "a key that is new is let in");
    // A key that is idle gives way to one that is not.
    let rate = Rate::new(1, 0, None);
    assert!(rate.take_address(client(0), START + Duration::from_secs(3000)).is_ok());
    for n in 1..20_000 {
        let _ = rate.take_address(client(n), START);
    }
    assert!(rate.take_address(client(0), START + Duration::from_secs(3000)).is_err(), "was forgotten for idle keys");
}

#[test]
fn leaving_the_key_out_is_no_way_around_a_limit() {
    let rate = Rate::new(1, 0, Some(Key::Header("x-key".to_owned())));
    let with = |key: &str| Request::get("/").with("x-key", key);
    assert!(rate.take(&with("a"), START).is_ok());
    assert!(rate.take(&with("a"), START).is_err());
    assert!(rate.take(&with("b"), START).is_ok());
    assert!(rate.take(&Request::get("/"), START).is_ok());
    assert!(rate.take(&Request::get("/"), START).is_err());
}

#[test]
fn keys_are_what_they_say() {
    let request = |url: &str| Request::get(url).with("cookie", "id=7");
    let cases = [
        (Key::Path, request("/a?x=1"), request("/a?x=2"), true),
        (Key::Path, request("/a"), request("/b"), false),
        (Key::Query("x".to_owned()), request("/a?x=1"), request("/b?x=1"), true),
        (Key::Query("x".to_owned()), request("/a?x=1"), request("/a?x=2"), false),
        (Key::Cookie("id".to_owned()), request("/"), Request::get("/").with("cookie", "a=b; id=7"), true),
        (Key::Cookie("id".to_owned()), request("/"), Request::get("/").with("cookie", "id=8"), false),
        (Key::Host, request("/"), Request { host: "other".to_owned(), ..request("/") }, false),
        (
            Key::ClientAddress { prefix4: 24, prefix6: 64 },
            Request { client: client(1), ..request("/") },
            Request { client: client(200), ..request("/") },
            true,
        ),
        (
            Key::ClientAddress { prefix4: 32, prefix6: 64 },
            Request { client: client(1), ..request("/") },
            Request { client: client(2), ..request("/") },
            false,
        ),
    ];
    for (key, first, second, same) in cases {
        let rate = Rate::new(1, 0, Some(key.clone()));
        assert!(rate.take(&first, START).is_ok());
        assert_eq!(rate.take(&second, START).is_err(), same, "{key:?}");
    }
}

#[test]
fn an_ipv6_client_is_its_network() {
    let bits = |text: &str| client_bits(text.parse().unwrap());
    assert_eq!(bits("2001:db8::1"), bits("2001:db8::ffff:2"));
    assert_ne!(bits("2001:db8::1"), bits("2001:db8:0:1::1"));
    assert_eq!(bits("::ffff:10.0.0.1"), bits("10.0.0.1"));
    assert_ne!(bits("10.0.0.1"), bits("10.0.0.2"));
    assert_eq!(address_bits("10.1.2.3".parse().unwrap(), 0, 0), address_bits("11.1.2.3".parse().unwrap(), 0, 0));
}

#[test]
fn connections_are_counted_until_they_end() {
    let limits = plan::Limits { connections: 3, connections_per_client: 2, ..plan::Limits::default() };
    let server = ServerLimits::new(&limits);
    let first = server.connect(client(1)).unwrap();
    let second = server.connect(client(1)).unwrap();
    assert_eq!(server.connect(client(1)).unwrap_err(), ConnectionLimit::ConnectionsPerClient);
    let third = server.connect(client(2)).unwrap();
    assert_eq!(server.connect(client(3)).unwrap_err(), ConnectionLimit::Connections);
    drop((first, second));
    let again = [server.connect(client(1)).unwrap(), server.connect(client(3)).unwrap()];
    drop((again, third));
    let (_, gate) = server.connections.as_ref().unwrap();
    assert_eq!(gate.open(), 0);
}

#[test]
fn nothing_is_limited_by_default() {
    let server = ServerLimits::new(&plan::Limits::default());
    let _all: Vec<_> = (0..1000).map(|_| server.connect(client(1)).unwrap()).collect();
    for _ in 0..1000 {
        server.request(client(1), START).unwrap();
        server.handshake(client(1), START).unwrap();
    }
}

#[test]
fn bandwidth_is_granted_at_its_rate() {
    for bytes_per_s in [1_000_u64, 100_000, 10_000_000, 12_500_000_000] {
        let class = Bandwidth::new(bytes_per_s);
        let mut now = START;
        let mut sent = 0_u64;
        let end = START + Duration::from_secs(200);
        // Sixteen transfers' worth of tries, each waiting as told.
        for _ in 0..2000 {
            match class.take(16 * 1024, now) {
                Take::Now(n) => {
                    assert!((1..=16 * 1024).contains(&n));
                    sent += n as u64;
                }
                Take::Until(then) => {
                    assert!(then > now);
                    now = then;
                }
            }
            if now >= end {
                break;
            }
        }
        let elapsed = (now - START).as_secs_f64();
        let burst = (bytes_per_s as f64 * 0.25).max(16384.0);
        let most = burst + elapsed * bytes_per_s as f64 + 1.0;
        let least = elapsed * bytes_per_s as f64 - 16384.0;
        assert!(sent as f64 <= most && sent as f64 >= least, "{bytes_per_s}/s: {sent} in {elapsed} s");
    }
}

#[test]
fn what_did_not_go_is_given_back() {
    let class = Bandwidth::new(1_000_000);
    let Take::Now(n) = class.take(1_000_000, START) else { panic!("a fresh class grants") };
    assert!(matches!(class.take(1, START), Take::Until(_)));
    class.give_back(n);
    assert_eq!(class.take(1_000_000, START), Take::Now(n));
}

#[test]
fn a_new_plan_keeps_what_it_does_not_change() {
    let key = Key::ClientAddress { prefix4: 32, prefix6: 128 };
    let mut plan = testing::http_plan(&[]);
    plan.rate_classes.insert("slow".to_owned(), RateClass { rate: 1, burst: 0, key });
    plan.bandwidth_classes.insert("thin".to_owned(), BandwidthClass { bytes_per_s: 1000 });
    plan.virtual_servers.get_mut("test").unwrap().limits.connections = 1;
    let first = Limits::build(&plan, None);
    let request = Request::get("/");
    first.rate("slow").unwrap().take(&request, START).unwrap();
    let _open = first.server("test").connect(client(1)).unwrap();
    let _in = first.gate("test", "r", 0).enter(1).unwrap();
    let Take::Now(_) = first.bandwidth("thin").unwrap().take(100_000, START) else { panic!("a fresh class grants") };

    let second = Limits::build(&plan, Some(&first));
    assert!(second.rate("slow").unwrap().take(&request, START).is_err());
    assert!(second.server("test").connect(client(1)).is_err());
    assert!(second.gate("test", "r", 0).enter(1).is_none());
    assert!(matches!(second.bandwidth("thin").unwrap().take(1, START), Take::Until(_)));

    plan.rate_classes.get_mut("slow").unwrap().burst = 1;
    let third = Limits::build(&plan, Some(&second));
    assert!(third.rate("slow").unwrap().take(&request, START).is_ok(), "changed figures count anew");
    assert!(third.rate("none").is_none());
}
