//! Whether memory is short: of the machine, or of a control group that lbd and its worker are in. The worker, which can open no
//! file, is told, and answers new requests by 503 until there is room again (THREATS X20): better than to be killed with all that
//! it serves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Memory is short when less is left than this, or than a sixteenth of all, and no longer when twice as much is.
const LEAST_LEFT: u64 = 256 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Pressure {
    /// `/`, but for tests.
    root: PathBuf,
    next: Option<Instant>,
    is_short: bool,
}

/// Memory of the machine or of a group, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    total: u64,
    left: u64,
}

impl Pressure {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), next: None, is_short: false }
    }

    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Looks when it is time to; says what has changed.
    pub(super) fn look(&mut self, now: Instant) -> Option<bool> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + PERIOD);
        let before = self.is_short;
        self.is_short = is_short(before, &self.rooms());
        match (before, self.is_short) {
            (false, true) => tracing::warn!("memory is short: new requests are answered by 503 until there is more"),
            (true, false) => tracing::info!("there is memory again: requests are served"),
            (false, false) | (true, true) => {}
        }
        (self.is_short != before).then_some(self.is_short)
    }

    /// The machine's, and that of each group up to the root. What cannot be read has no limit.
    fn rooms(&self) -> Vec<Room> {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let machine = of_machine(&read(self.root.join("proc/meminfo")));
        let own = read(self.root.join("proc/self/cgroup"));
        // Version 2 of control groups has one tree, "0".
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
        let groups = Path::new(&path).ancestors().map(|path| self.root.join("sys/fs/cgroup").join(path));
        let groups = groups.filter_map(|group| {
            let file = |name: &str| read(group.join(name));
            of_group(&file("memory.max"), &file("memory.current"), &file("memory.stat"))
        });
        machine.into_iter().chain(groups).collect()
    }
}

fn is_short(before: bool, rooms: &[Room]) -> bool {
    rooms.iter().any(|room| {
        let least = LEAST_LEFT.min(room.total / 16);
        room.left < if before { 2 * least } else { least }
    })
}

/// From `/proc/meminfo`.
fn of_machine(text: &str) -> Option<Room> {
    let kib =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok();
    let (total, left): (u64, u64) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    Some(Room { total: total << 10, left: left << 10 })
}

/// From a group's files: what is cached of files can be given back, and counts as left. `None`: it has no limit.
fn of_group(max: &str, current: &str, stat: &str) -> Option<Room> {
    let total: u64 = max.trim().parse().ok()?;
    let used: u64 = current.trim().parse().ok()?;
    let of = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
        value.unwrap_or(0)
    };
    let cached = of("file").saturating_sub(of("shmem"));
    Some(Room { total, left: total.saturating_sub(used.saturating_sub(cached)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn x20_short_is_below_a_sixteenth_until_there_is_twice_as_much() {
        let of = |total, left| [Room { total: total * MIB, left: left * MIB }];
        assert!(!is_short(false, &of(1024, 64)));
        assert!(is_short(false, &of(1024, 63)));
        assert!(is_short(true, &of(1024, 127)), "it does not go on and off");
        assert!(!is_short(true, &of(1024, 128)));
        assert!(!is_short(false, &of(256 * 1024, 256)), "of much memory a sixteenth is plenty");
        assert!(is_short(false, &of(256 * 1024, 255)));
        let machine = Room { total: 4096 * MIB, left: 4000 * MIB };
        assert!(is_short(false, &[machine, Room { total: 160 * MIB, left: 9 * MIB }]), "one of several");
        assert!(!is_short(false, &[]));
    }

    #[test]
    fn x20_the_machine_and_all_groups_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let group = |path: &str, max: &str, current: u64, file: u64| {
            write(&format!("{path}/memory.max"), format!("{max}\n"));
            write(&format!("{path}/memory.current"), format!("{}\n", current * MIB));
            write(
                &format!("{path}/memory.stat"),
                format!("anon 1\nfile {}\nshmem {}\nfile_mapped 7\n", file * MIB, MIB),
            );
        };
        let mut pressure = Pressure::new(folder.path());
        let begin = Instant::now();
        assert_eq!(pressure.look(begin), None, "nothing can be read: nothing is short");
        write("proc/meminfo", "MemTotal:       4194304 kB\nMemFree: 1 kB\nMemAvailable:   3000000 kB\n".to_owned());
        write("proc/self/cgroup", "0::/system.slice/lbd.service\n".to_owned());
        group("sys/fs/cgroup/system.slice", "max", 5000, 0);
        group("sys/fs/cgroup/system.slice/lbd.service", &(512 * MIB).to_string(), 500, 100);
        assert_eq!(pressure.look(begin + PERIOD), None, "files are given back");
        group("sys/fs/cgroup/system.slice/lbd.service", &(512 * MIB).to_string(), 500, 2);
        assert_eq!(pressure.look(begin + PERIOD), None, "not yet");
        assert_eq!(pressure.look(begin + 2 * PERIOD), Some(true));
        assert!(pressure.is_short());
        group("sys/fs/cgroup/system.slice/lbd.service", &(512 * MIB).to_string(), 400, 2);
        assert_eq!(pressure.look(begin + 3 * PERIOD), Some(false));
        group("sys/fs/cgroup/system.slice", &(600 * MIB).to_string(), 590, 1);
        assert_eq!(pressure.look(begin + 4 * PERIOD), Some(true), "the group around ours");
        assert_eq!(pressure.look(begin + 5 * PERIOD), None);
    }
}
