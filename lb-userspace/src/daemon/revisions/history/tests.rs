//! Revisions on disk: kept, pruned, and found damaged.

use super::*;
use crate::control::revision::Source;

/// Seconds since 1970 of the first revision.
const START: u64 = 1_800_000_000;

fn revision(number: u64) -> Revision {
    let (author, lbd) = ("ada".to_owned(), "1".to_owned());
    Revision { number, time: START + number, author, source: Source::Apply, comment: None, of: None, lbd }
}

fn texts(number: u64) -> Texts {
    Texts { main: format!("version = 1 # {number}\n"), fragments: [("a.toml".to_owned(), "[vip]".to_owned())].into() }
}

fn record(history: &mut History) {
    let number = history.next().unwrap();
    history.prepare(&revision(number), &texts(number)).unwrap().commit().unwrap();
    history.add(revision(number), texts(number));
}

fn numbers(history: &History) -> Vec<u64> {
    history.revisions().iter().map(|revision| revision.number).collect()
}

#[test]
fn revisions_are_there_after_a_restart_and_only_committed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path());
    assert_eq!(history.next().unwrap(), 1);
    assert_eq!(history.newest(), None);
    record(&mut history);
    record(&mut history);
    std::mem::forget(history.prepare(&revision(3), &texts(3)).unwrap());
    let mut again = History::open(dir.path());
    assert_eq!(numbers(&again), [1, 2]);
    assert_eq!(again.newest().unwrap(), (&revision(2), &texts(2)));
    assert_eq!(again.read(1).unwrap(), (revision(1), texts(1)));
    assert_eq!(again.next().unwrap(), 3);
    assert_eq!(fs::read_dir(again.directory()).unwrap().count(), 2);
    assert!(matches!(again.read(9), Err(Unreadable::Io { .. })));
}

#[test]
fn a_damaged_revision_is_put_aside_and_the_one_before_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path());
    record(&mut history);
    record(&mut history);
    let path = history.path(2);
    let good = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    damaged.extend((0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    }));
    damaged.push(vec![0; good.len()]);
    // A good file under another number is no good file.
    damaged.push(fs::read(history.path(1)).unwrap());
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let mut again = History::open(dir.path());
        assert_eq!(again.newest().unwrap(), (&revision(1), &texts(1)), "{bytes:?}");
        assert!(again.problems()[0].contains("damaged"), "{:?}", again.problems());
        assert_eq!(again.next().unwrap(), 3, "a number is never given twice");
        assert!(!path.exists());
    }
}

#[test]
fn what_is_old_or_too_many_goes() {
    let cases: [(&str, usize, u64, u64, &[u64]); 5] = [
        ("nothing", 10, 100, 6, &[1, 2, 3, 4, 5, 6]),
        ("too many", 3, 100, 6, &[4, 5, 6]),
        ("too old", 10, 2, 6, &[4, 5, 6]),
        ("the last two stay, however old", 10, 1, 1000, &[5, 6]),
        ("and however few are to stay", 0, 1000, 6, &[5, 6]),
    ];
    for (name, revisions, seconds, now, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path());
        (0..6).for_each(|_| record(&mut history));
        history.prune(Keep { revisions, age: Duration::from_secs(seconds) }, START + now, None);
        assert_eq!(numbers(&history), expected, "{name}");
        assert_eq!(numbers(&History::open(dir.path())), expected, "{name}: on disk");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path());
    (0..6).for_each(|_| record(&mut history));
    history.prune(Keep { revisions: 2, age: Duration::ZERO }, START, Some(2));
    assert_eq!(numbers(&history), [2, 5, 6], "what a confirmation goes back to stays");
}

#[test]
fn a_directory_that_cannot_be_had_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("state");
    fs::write(&blocked, "not a directory").unwrap();
    let mut history = History::open(&blocked);
    assert!(history.next().is_err());
    fs::remove_file(&blocked).unwrap();
    record(&mut history);
    assert_eq!(numbers(&History::open(&blocked)), [1]);
}
