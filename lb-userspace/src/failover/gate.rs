//! The gate: VIPs that another machine can take are served only while the failover thread goes round. It holds a lease in the
//! data path, which ends by itself.
//!
//! The guard process does the same by taking addresses down and speaking to the others. The gate is what is left when the guard
//! is stopped, too, as by a frozen control group, and it also ends what XDP forwards for neighbours that have not heard of a
//! new owner.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::AbortHandle, time};

use super::announce::Mac;

/// How guard and data path wait for the failover thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Without a sign of life for so long, it counts as gone.
    pub(super) length: Duration,
    /// When it has not gone round for so long, it gives no sign of life.
    pub(super) stuck: Duration,
}

/// Renewals in the length of a lease.
const RENEWALS: u32 = 4;

/// The data path as far as it serves VIPs.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Replaces the VIPs that are served only while the lease lasts.
    ///
    /// # Errors
    /// When the data path refuses one: it is served without a lease.
    fn cover(&self, vips: &BTreeSet<IpAddr>) -> io::Result<()>;

    /// From now on the lease lasts for so long; `None`: for ever.
    fn renew(&self, length: Option<Duration>);

    /// Replaces the virtual MAC addresses at which this machine takes frames.
    fn answer_at(&self, addresses: &BTreeSet<Mac>);
}

/// Holds the lease. When it is dropped the lease ends in its time, unless it lasts for ever.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    gate: Arc<dyn Gate>,
    terms: watch::Receiver<Terms>,
    /// `None`: the data path is as an earlier lbd left it.
    covered: Option<BTreeSet<IpAddr>>,
    /// The same of virtual MAC addresses.
    answers_at: Option<BTreeSet<Mac>>,
    /// Whether the lease ends.
    ends: Arc<AtomicBool>,
    renewals: AbortHandle,
}

impl Gatekeeper {
    /// Renews the lease, once [`Self::cover`] said for what, four times in its length, as long as `progress` is marked in time.
    /// On a runtime.
    pub(super) fn start(
        gate: Arc<dyn Gate>,
        terms: watch::Receiver<Terms>,
        progress: watch::Receiver<Instant>,
    ) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (renewed, leased, current) = (Arc::clone(&gate), Arc::clone(&ends), terms.clone());
        let renewals = tokio::spawn(async move {
            let mut pace = Pace { renewed: Instant::now(), lapsed: None };
            loop {
                let terms = *current.borrow();
                let goes_round = pace.goes_round(terms, *progress.borrow(), Instant::now());
                if goes_round && leased.load(Ordering::Relaxed) {
                    renewed.renew(Some(terms.length));
                }
                time::sleep(terms.length / RENEWALS).await;
            }
        });
        Self { gate, terms, covered: None, answers_at: None, ends, renewals: renewals.abort_handle() }
    }

    /// Replaces the virtual MAC addresses at which frames are taken.
    pub(super) fn answer_at(&mut self, addresses: BTreeSet<Mac>) {
        if self.answers_at.as_ref() != Some(&addresses) {
            self.gate.answer_at(&addresses);
            self.answers_at = Some(addresses);
        }
    }

    /// Replaces the VIPs that another machine can take.
    pub(super) fn cover(&mut self, vips: BTreeSet<IpAddr>) {
        if self.covered.as_ref() == Some(&vips) {
            return;
        }
        let ends = !vips.is_empty();
        self.ends.store(ends, Ordering::Relaxed);
        self.gate.renew(ends.then(|| self.terms.borrow().length));
        if let Err(error) = self.gate.cover(&vips) {
            tracing::warn!(%error, "the data path has no room for the lease of a VIP: it would forward on if lbd stood still");
        }
        self.covered = Some(vips);
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

/// When the lease may be renewed.
#[derive(Debug)]
struct Pace {
    renewed: Instant,
    /// When a lease was found ended: the thread must go round once before there is another, so that it learns first what
    /// others did meanwhile.
    lapsed: Option<Instant>,
}

impl Pace {
    /// Whether the thread, which last went round at `progress`, may have a lease from `now` on.
    fn goes_round(&mut self, terms: Terms, progress: Instant, now: Instant) -> bool {
        if self.lapsed.is_none() && now.saturating_duration_since(self.renewed) > terms.length {
            self.lapsed = Some(now);
        }
        let is_stuck = now.saturating_duration_since(progress) >= terms.stuck;
        if is_stuck || self.lapsed.is_some_and(|at| progress <= at) {
            return false;
        }
        (self.renewed, self.lapsed) = (now, None);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_thread_that_stood_still_goes_round_before_it_has_a_lease_again() {
        let start = Instant::now();
        let terms = Terms { length: 100 * MS, stuck: 325 * MS };
        let mut pace = Pace { renewed: start, lapsed: None };
        let at = |ms: u32| start + ms * MS;
        for (progress, now, expected, what) in [
            (0, 25, true, "it has begun"),
            (100, 110, true, "it goes round"),
            (200, 205, true, "and again"),
            // Stopped for two seconds: what it did last is old, and so is what it does first.
            (200, 2_200, false, "it has just woken"),
            (200, 2_225, false, "it has not gone round"),
            (2_200, 2_230, false, "it went round when it woke, not after"),
            (2_231, 2_250, true, "it has learnt what happened"),
            (2_330, 2_340, true, "it goes round"),
            // Timers run, the loop does not.
            (2_330, 2_430, true, "a wait"),
            (2_330, 2_655, false, "it hangs"),
            (2_330, 2_700, false, "it hangs on"),
            (2_701, 2_780, true, "it goes on"),
        ] {
            assert_eq!(pace.goes_round(terms, at(progress), at(now)), expected, "{now} ms: {what}");
        }
    }

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Gate for Notes {
        fn cover(&self, vips: &BTreeSet<IpAddr>) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("cover {}", vips.len()));
            Ok(())
        }

        fn renew(&self, length: Option<Duration>) {
            let note = length.map_or_else(|| "for ever".to_owned(), |length| format!("{length:?}"));
            let mut notes = self.0.lock().unwrap();
            if notes.last() != Some(&note) {
                notes.push(note);
            }
        }

        fn answer_at(&self, addresses: &BTreeSet<Mac>) {
            self.0.lock().unwrap().push(format!("answer at {}", addresses.len()));
        }
    }

    #[tokio::test]
    async fn the_lease_ends_only_where_somebody_else_can_take_a_vip() {
        let notes = Arc::new(Notes::default());
        let (progress, progressed) = watch::channel(Instant::now());
        let gate: Arc<dyn Gate> = notes.clone();
        let (_terms, current) = watch::channel(Terms { length: 400 * MS, stuck: 1_300 * MS });
        let mut keeper = Gatekeeper::start(gate, current, progressed);
        let taken = || std::mem::take(&mut *notes.0.lock().unwrap());
        time::sleep(200 * MS).await;
        assert!(taken().is_empty(), "nobody has said for what it is");
        keeper.cover(BTreeSet::new());
        assert_eq!(taken(), ["for ever", "cover 0"], "whatever an earlier lbd left");
        progress.send_replace(Instant::now());
        keeper.cover(BTreeSet::from(["192.0.2.10".parse().unwrap()]));
        keeper.cover(BTreeSet::from(["192.0.2.10".parse().unwrap()]));
        time::sleep(200 * MS).await;
        assert_eq!(taken(), ["400ms", "cover 1", "400ms"], "said once, and renewed");
        keeper.cover(BTreeSet::new());
        time::sleep(200 * MS).await;
        assert_eq!(taken(), ["for ever", "cover 0"], "nobody else is there any more");
        for addresses in [vec![], vec![], vec![[0, 0, 0x5e, 0, 1, 42]], vec![[0, 0, 0x5e, 0, 1, 42]], vec![]] {
            keeper.answer_at(addresses.into_iter().collect());
        }
        assert_eq!(taken(), ["answer at 0", "answer at 1", "answer at 0"], "what an earlier lbd left is replaced, too");
    }
}
