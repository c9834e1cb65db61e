//! A change that is cut short at every system call, by SIGKILL or by an error of the disk: strace(1) injects it into a process
//! that makes one change, [`one_change`] below, and what it leaves is looked at by a start like lbd's.

use std::{
    env,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use super::*;

/// Says where the process finds its configuration.
const DIRECTORY: &str = "LB_TEST_CHANGE_IN";

/// What a change asks of the kernel, as far as a file is concerned.
const CALLS: [&str; 11] =
    ["openat", "write", "fsync", "rename", "unlink", "fchmod", "mkdir", "getdents64", "statx", "close", "read"];

/// More calls of one kind than a change makes.
const MOST: u32 = 200;

/// Makes one change, twice if the disk refuses the first time; not a test by itself.
#[test]
fn one_change() {
    let Some(dir) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let lbd = Lbd::start(&dir);
    let before = file(&dir);
    if lbd.weigh(3, How::default()).is_err() {
        assert_eq!((file(&dir), lbd.in_force().1), (before, 1), "refused, and the old one is in the file and in force");
        lbd.weigh(3, How::default()).unwrap();
    }
    // Not by the harness: it holds back what tests print.
    writeln!(std::io::stdout(), "\nacknowledged").unwrap();
}

/// Runs it with a fault in one call of a kind; what strace saw is in `trace`.
fn run(dir: &Path, trace: &Path, call: &str, fault: &str) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(trace).args(["-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:{fault}")]);
    strace.arg(env::current_exe().unwrap());
    strace.args(["--exact", "daemon::revisions::tests::crash::one_change", "--nocapture", "--test-threads=1"]);
    strace.env(DIRECTORY, dir).stdin(Stdio::null());
    strace.output().expect("strace is installed")
}

/// Makes a change with each fault, one at a time, and checks what is there afterwards: exactly the old or exactly the new, and the
/// new whenever it was acknowledged.
fn at_every_call(fault: &str) {
    let (mut new, mut old) = (0, 0);
    let traces = tempfile::tempdir().unwrap();
    let trace = traces.path().join("trace");
    for call in CALLS {
        for when in 1..=MOST {
            assert!(when < MOST, "{call}: it never ends");
            let dir = directory();
            Lbd::start(dir.path()).stop();
            let output = run(dir.path(), &trace, call, &format!("{fault}:when={when}"));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let acknowledged = said.contains("\nacknowledged");
            let at = format!("{call} {when}, {fault}: {said}{}", String::from_utf8_lossy(&output.stderr));
            assert!(!at.contains("refused, and the old one"), "{at}");
            let lbd = Lbd::start(dir.path());
            let (number, weight) = lbd.in_force();
            assert_eq!(file(dir.path()), lbd.revisions.known().texts.main.as_str(), "{at}");
            assert_eq!(lbd.revisions.read(number).unwrap().texts, *lbd.revisions.known().texts, "{at}");
            assert!(weight == 3 || !acknowledged, "acknowledged, and lost: {at}");
            let expected = if weight == 3 { CONFIG.replace("weight = 1 #", "weight = 3 #") } else { CONFIG.to_owned() };
            assert_eq!(file(dir.path()), config(dir.path(), &expected), "half a change: {at}");
            lbd.weigh(4, How::default()).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something is left over: {at}");
            lbd.stop();
            (new, old) = (new + u32::from(weight == 3), old + u32::from(weight == 1));
            let was_hit =
                output.status.signal().is_some() || fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
            if !was_hit {
                assert!(acknowledged, "{at}");
                break;
            }
        }
    }
    assert!(old > 10 && new > 10, "{old} old, {new} new: the faults hit nothing");
}

#[test]
fn a_kill_at_any_call_leaves_the_old_or_the_new() {
    at_every_call("signal=KILL");
}

#[test]
fn a_full_disk_at_any_call_leaves_the_old_or_the_new() {
    at_every_call("error=ENOSPC");
}

#[test]
fn a_broken_disk_at_any_call_leaves_the_old_or_the_new() {
    at_every_call("error=EIO");
}
