//! DNS names of nodes: looked up by the system's resolvers, again when an answer's time is over. Without an answer the last
//! known addresses stay (THREATS X26); times to live are clamped (X27). A task for each name, on the control task's thread.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{Resolver, TokioResolver};
use tokio::{sync::mpsc, task::AbortHandle, time::sleep};

/// The shortest and the longest time until a name is looked up again.
const SHORTEST: Duration = Duration::from_secs(1);
/// See [`SHORTEST`].
const LONGEST: Duration = Duration::from_secs(300);
/// When there was no answer.
const RETRY: Duration = Duration::from_secs(5);
/// The most addresses of a name that are used.
const MOST: usize = 32;

/// What a name stands for now; sent when that changes.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) name: String,
    /// In order; not empty.
    pub(super) addresses: Vec<IpAddr>,
}

/// The names that are looked up.
#[derive(Debug)]
pub(super) struct Names {
    tasks: Mutex<BTreeMap<String, AbortHandle>>,
    failures: Failures,
    changes: mpsc::Sender<Resolved>,
}

/// Why names have no answer, by name.
type Failures = Arc<Mutex<BTreeMap<String, String>>>;

impl Names {
    pub(super) fn new(changes: mpsc::Sender<Resolved>) -> Self {
        Self { tasks: Mutex::default(), failures: Failures::default(), changes }
    }

    /// Looks up these names from now on, and no others. Must be called on the runtime.
    pub(super) fn set(&self, names: &[&str]) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|name, task| {
            let stays = names.contains(&name.as_str());
            if !stays {
                task.abort();
                lock(&self.failures).remove(name);
            }
            stays
        });
        for name in names {
            if !tasks.contains_key(*name) {
                let follow = follow((*name).to_owned(), Arc::clone(&self.failures), self.changes.clone());
                tasks.insert((*name).to_owned(), tokio::spawn(follow).abort_handle());
            }
        }
    }

    /// Names without an answer.
    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.failures).values().cloned().collect()
    }
}

async fn follow(name: String, failures: Failures, changes: mpsc::Sender<Resolved>) {
    let mut known = Vec::new();
    loop {
        let wait = match look_up(&name).await {
            Ok((addresses, wait)) => {
                lock(&failures).remove(&name);
                if addresses != known {
                    known.clone_from(&addresses);
                    if changes.send(Resolved { name: name.clone(), addresses }).await.is_err() {
                        return;
                    }
                }
                wait
            }
            Err(error) => {
                let kept =
                    if known.is_empty() { "its nodes take nothing" } else { "the last known addresses are kept" };
                let problem = format!("node name {name:?} has no answer, {kept}: {error}");
                if lock(&failures).insert(name.clone(), problem).is_none() {
                    tracing::warn!(name, %error, kept, "a node's name has no answer");
                }
                RETRY
            }
        };
        sleep(wait).await;
    }
}

/// The addresses of a name, in order, and how long they hold.
async fn look_up(name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    // Read anew each time: the system's resolvers may have changed.
    let resolver: TokioResolver =
        Resolver::builder_tokio().and_then(|builder| builder.build()).map_err(|error| error.to_string())?;
    // With the dot at its end it is not tried within the system's search domains.
    let found = resolver.lookup_ip(format!("{name}.")).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.iter().filter(usable).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST);
    if addresses.is_empty() {
        return Err("no usable address".to_owned());
    }
    Ok((addresses, clamp(found.valid_until().saturating_duration_since(Instant::now()))))
}

fn clamp(time_to_live: Duration) -> Duration {
    time_to_live.clamp(SHORTEST, LONGEST)
}

/// An answer must not lead to this machine's own services, nor to many hosts at once.
fn usable(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_clamped_and_answers_filtered() {
        let seconds = Duration::from_secs;
        assert_eq!([0, 60, 86_400].map(|ttl| clamp(seconds(ttl))), [seconds(1), seconds(60), seconds(300)]);
        let cases =
            [("10.0.0.1", true), ("2001:db8::1", true), ("127.0.0.1", false), ("::", false), ("ff02::1", false)];
        for (address, expected) in cases {
            assert_eq!(usable(&address.parse().unwrap()), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn names_that_are_no_longer_wanted_are_forgotten() {
        let (changes, _answers) = mpsc::channel(1);
        let names = Names::new(changes);
        names.set(&["a.invalid", "b.invalid"]);
        names.set(&["b.invalid"]);
        assert_eq!(lock(&names.tasks).keys().collect::<Vec<_>>(), ["b.invalid"]);
    }
}
