//! Ten thousand checks over real sockets: none is late (THREATS X29).

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use tokio::{net::TcpListener, sync::mpsc, task::LocalSet};

use super::target;
use crate::{
    control::{probe::Kind, view::Health},
    health::{Monitors, Outside, Settings},
};

const CHECKS: u16 = 10_000;
const DELAY: Duration = Duration::from_secs(5);
/// Measured after the first rounds, which are closer together.
const SETTLE: Duration = Duration::from_secs(11);
const MEASURE: Duration = Duration::from_secs(16);

/// When each node was asked.
type Asked = Rc<RefCell<HashMap<Ipv4Addr, Vec<Instant>>>>;

fn node(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 99, high, low)
}

async fn serve(listener: TcpListener, asked: Asked) {
    while let Ok((stream, _)) = listener.accept().await {
        let now = Instant::now();
        // The address that was asked tells the node.
        if let Ok(SocketAddr::V4(own)) = stream.local_addr() {
            asked.borrow_mut().entry(*own.ip()).or_default().push(now);
        }
    }
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

/// The longest that the machine kept a thread waiting that was to run: what others take of it is not the monitors' doing.
fn longest_stall(over: Duration) -> Duration {
    const NAP: Duration = Duration::from_millis(5);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < over {
        let slept = Instant::now();
        std::thread::sleep(NAP);
        longest = longest.max(slept.elapsed() - NAP);
    }
    longest
}

/// The gaps between two checks of each node, the part of a processor that the monitors' thread took, and how long the
/// machine itself stood still.
fn measure() -> (HashMap<Ipv4Addr, Vec<Duration>>, f64, Duration) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (ready, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    // The nodes have a thread of their own: theirs is not the monitors' time.
    let nodes = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = Asked::default();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
            ready.send(listener.local_addr().unwrap().port()).unwrap();
            tokio::task::spawn_local(serve(listener, Rc::clone(&asked)));
            let _ = stopped.await;
        });
        asked.take()
    });
    let port: u16 = address.recv().unwrap();
    let settings =
        Settings { kind: Kind::Tcp, delay: DELAY, timeout: Duration::from_secs(2), failures: 1, successes: 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (begun, spent, stall) = runtime.block_on(async {
        let (sender, mut reports) = mpsc::channel(usize::from(CHECKS));
        let monitors = Monitors::spawn(sender, Outside::default());
        let all = (0..CHECKS).map(|n| target(&n.to_string(), (node(n), port).into(), settings.clone()));
        monitors.set(all.collect());
        for _ in 0..CHECKS {
            assert_eq!(reports.recv().await.map(|report| report.health), Some(Health::Up));
        }
        tokio::time::sleep(SETTLE).await;
        let (begun, before) = (Instant::now(), processor_time());
        let stall = std::thread::spawn(|| longest_stall(MEASURE));
        tokio::time::sleep(MEASURE).await;
        let spent = (processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        assert!(reports.try_recv().is_err(), "a node that answers was reported");
        (begun, spent, stall.join().unwrap())
    });
    stop.send(()).unwrap();
    let asked = nodes.join().unwrap();
    let gaps = asked.into_iter().map(|(node, times)| {
        let times: Vec<Instant> = times.into_iter().filter(|at| *at >= begun).collect();
        (node, times.windows(2).map(|pair| pair[1] - pair[0]).collect())
    });
    (gaps.collect(), spent, stall)
}

#[test]
#[ignore = "takes half a minute and many descriptors: needs root"]
fn ten_thousand_connections_every_five_seconds_are_never_late() {
    let (gaps, spent, stall) = measure();
    assert_eq!(gaps.len(), usize::from(CHECKS));
    let mut all: Vec<Duration> = gaps
        .into_values()
        .flat_map(|gaps| {
            assert!(gaps.len() >= 2, "a node was hardly asked");
            gaps
        })
        .collect();
    all.sort_unstable();
    let (least, median, most) = (all[0], all[all.len() / 2], all[all.len() - 1]);
    println!("{} gaps: {least:?} to {most:?}, median {median:?}; {:.0} % of a processor", all.len(), spent * 100.0);
    // Two threads are kept waiting: the one that asks, and the one that notes it.
    let late = DELAY / 10 + 2 * stall;
    assert!(
        least + late >= DELAY && most <= DELAY + late,
        "{least:?} to {most:?}, the machine stood still for {stall:?}"
    );
    let usual = all.iter().filter(|gap| gap.abs_diff(DELAY) <= DELAY / 10).count();
    assert!(usual * 100 >= all.len() * 90, "{usual} of {} within a tenth", all.len());
}
