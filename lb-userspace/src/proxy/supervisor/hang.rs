//! Whether a worker hangs. Time in which a thread of it could have run, and there was no CPU for it, is not held against it: to
//! replace a worker because the machine is busy would cut all its connections, and make the machine busier (THREATS X21).

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::proxy::message::ThreadBeat;

/// A worker that says nothing for so long is replaced.
const SILENCE: Duration = Duration::from_secs(3);
/// A thread that does not turn for so long has its worker replaced.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long a worker may take until it is ready.
const START: Duration = Duration::from_secs(10);

/// What is known of a worker's threads. Its main thread speaks for all of them.
#[derive(Debug)]
pub(super) struct Watch {
    heard: Seen,
    threads: Vec<Thread>,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    id: Option<u32>,
    beats: u64,
    turned: Seen,
}

/// When a thread was last known to go on, and what it had had of the CPUs by then.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    cpu: Cpu,
}

/// What a thread had of the CPUs so far. All zero where nothing is known: then time is all that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpu {
    ran: Duration,
    /// For a CPU, while it could have run.
    waited: Duration,
    /// It runs, or waits for a CPU.
    is_runnable: bool,
}

impl Watch {
    /// Of a worker that is started now.
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: Seen { at: now, cpu: Cpu::default() }, threads: Vec::new() }
    }

    /// The worker said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard.at = now;
    }

    /// The worker, which is this process, said how far each thread is.
    pub(super) fn beat(&mut self, now: Instant, pid: Option<u32>, beats: &[ThreadBeat]) {
        self.heard.cpu = Cpu::of(pid, pid);
        let unseen = Thread { id: None, beats: u64::MAX, turned: Seen { at: now, cpu: Cpu::default() } };
        self.threads.resize(beats.len(), unseen);
        for (at, (thread, beat)) in self.threads.iter_mut().zip(beats).enumerate() {
            if thread.beats != beat.beats {
                thread.id = thread.id.or_else(|| thread_id(pid, at));
                thread.beats = beat.beats;
                thread.turned = Seen { at: now, cpu: Cpu::of(pid, thread.id) };
            }
        }
    }

    /// For so long nobody could have heard it.
    pub(super) fn forgive(&mut self, pause: Duration) {
        self.heard.at += pause;
        self.threads.iter_mut().for_each(|thread| thread.turned.at += pause);
    }

    /// Why the worker is to be replaced, if it is; `is_ready`: it served before.
    pub(super) fn hangs(&self, now: Instant, pid: Option<u32>, is_ready: bool) -> Option<&'static str> {
        let silence = if is_ready { SILENCE } else { START };
        if self.heard.is_longer_ago(silence, now, || Cpu::of(pid, pid)) {
            return Some("the worker said nothing for too long");
        }
        let stands = |thread: &Thread| thread.turned.is_longer_ago(STANDSTILL, now, || Cpu::of(pid, thread.id));
        self.threads.iter().any(stands).then_some("a thread of the worker hangs")
    }
}

impl Seen {
    fn is_longer_ago(&self, limit: Duration, now: Instant, cpu: impl FnOnce() -> Cpu) -> bool {
        let elapsed = now.saturating_duration_since(self.at);
        elapsed > limit && own(elapsed, self.cpu, cpu()) > limit
    }
}

/// How much of the time that elapsed a thread had to itself: to run, or to wait for something else than a CPU.
fn own(elapsed: Duration, then: Cpu, now: Cpu) -> Duration {
    if now.is_runnable {
        // The kernel tells of a wait only when it is over.
        now.ran.saturating_sub(then.ran)
    } else {
        elapsed.saturating_sub(now.waited.saturating_sub(then.waited))
    }
}

impl Cpu {
    fn of(pid: Option<u32>, thread: Option<u32>) -> Self {
        let read = || {
            let folder = format!("/proc/{}/task/{}", pid?, thread?);
            let file = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).ok();
            Self::parse(&file("schedstat")?, &file("stat")?)
        };
        read().unwrap_or_default()
    }

    /// From what proc(5) says of a thread: `schedstat` has nanoseconds on a CPU and in wait for one, `stat` the state.
    fn parse(schedstat: &str, stat: &str) -> Option<Self> {
        let mut numbers = schedstat.split_whitespace().map(|number| number.parse().map(Duration::from_nanos).ok());
        let (ran, waited) = (numbers.next()??, numbers.next()??);
        // The name stands in brackets, and may have any byte in it.
        let state = stat.rsplit_once(')')?.1.split_whitespace().next()?;
        Some(Self { ran, waited, is_runnable: state == "R" })
    }
}

/// The thread that serves at this place, by its name.
fn thread_id(pid: Option<u32>, at: usize) -> Option<u32> {
    let name = format!("lb-worker-{at}");
    let threads = fs::read_dir(format!("/proc/{}/task", pid?)).ok()?;
    let mut threads = threads.flatten();
    let thread =
        threads.find(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|c| c.trim_end() == name))?;
    thread.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cpu(ran: u64, waited: u64, is_runnable: bool) -> Cpu {
        Cpu { ran: s(ran), waited: s(waited), is_runnable }
    }

    #[test]
    fn x21_only_its_own_time_is_held_against_a_thread() {
        let begin = Instant::now();
        let seen = Seen { at: begin, cpu: cpu(100, 10, true) };
        for (what, elapsed, now, hangs) in [
            ("nothing is known", 6, Cpu::default(), true),
            ("it sleeps, or is stopped", 6, cpu(100, 10, false), true),
            ("it turns in circles, alone", 6, cpu(106, 10, true), true),
            ("it turns in circles among others", 12, cpu(106, 16, true), true),
            ("it gets a twentieth of a CPU", 60, cpu(103, 57, true), false),
            ("it waits for a CPU since then", 60, cpu(100, 10, true), false),
            ("it waited, and sleeps at the moment", 8, cpu(101, 15, false), false),
            ("it waited, and sleeps for long", 12, cpu(101, 15, false), true),
            ("it is not late", 5, cpu(105, 10, true), false),
        ] {
            assert_eq!(seen.is_longer_ago(STANDSTILL, begin + s(elapsed), || now), hangs, "{what}");
        }
    }

    #[test]
    fn x21_a_worker_is_silent_or_one_of_its_threads_stands() {
        let begin = Instant::now();
        let beat = |beats| ThreadBeat { beats, connections: 0, generation: 1 };
        let mut watch = Watch::new(begin);
        assert_eq!(watch.hangs(begin + s(9), None, false), None, "it starts");
        assert!(watch.hangs(begin + s(11), None, false).is_some());
        for second in 0..5 {
            watch.heard(begin + s(second));
            watch.beat(begin + s(second), None, &[beat(second), beat(7)]);
            assert_eq!(watch.hangs(begin + s(second), None, true), None);
        }
        assert_eq!(watch.hangs(begin + s(6), None, true), Some("a thread of the worker hangs"));
        watch.forgive(s(4));
        assert_eq!(watch.hangs(begin + s(9), None, true), None);
        watch.beat(begin + s(9), None, &[beat(9), beat(8)]);
        assert_eq!(watch.hangs(begin + s(12), None, true), Some("the worker said nothing for too long"));
    }

    #[test]
    fn the_kernel_tells_what_a_thread_had() {
        let text = Cpu::parse("721857 1542632 2\n", "7 (a) R (b)) S 1 2 3\n").unwrap();
        assert_eq!((text.ran.as_nanos(), text.waited.as_nanos(), text.is_runnable), (721_857, 1_542_632, false));
        assert_eq!(Cpu::parse("", "7 (a) R"), None);
        let (own, pid) = (|at| thread_id(Some(std::process::id()), at), Some(std::process::id()));
        assert_eq!(own(77), None);
        let (say, said) = mpsc::channel::<()>();
        let named = std::thread::Builder::new().name("lb-worker-77".to_owned());
        let thread = named.spawn(move || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(20) {}
            let _ = said.recv();
        });
        crate::proxy::testing::wait(|| own(77).is_some_and(|id| Cpu::of(pid, Some(id)).ran > Duration::ZERO));
        crate::proxy::testing::wait(|| !Cpu::of(pid, own(77)).is_runnable);
        drop(say);
        thread.unwrap().join().unwrap();
    }
}
