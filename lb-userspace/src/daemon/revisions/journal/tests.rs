//! A change that was cut short: completed or dropped at the next start.

use super::*;
use crate::control::revision::Source;

fn texts(main: &str, fragments: &[(&str, &str)]) -> Texts {
    let fragments = fragments.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Texts { main: main.to_owned(), fragments: fragments.collect() }
}

fn revision() -> Revision {
    let (author, lbd) = (String::new(), String::new());
    Revision { number: 7, time: 0, author, source: Source::Apply, comment: None, of: None, lbd }
}

/// A directory with these files, and the path of the main one.
fn laid_out(texts: &Texts) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    for (which, bytes) in Files::of(texts).0 {
        fs::write(place(&dir.path().join("lb.toml"), &which), bytes).unwrap();
    }
    let path = dir.path().join("lb.toml");
    (dir, path)
}

fn all_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = ["", "conf.d"]
        .iter()
        .flat_map(|sub| fs::read_dir(dir.join(sub)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn two() -> (Texts, Texts) {
    let before = texts("old", &[("a.toml", "stays"), ("b.toml", "old b"), ("gone.toml", "x")]);
    (before, texts("new", &[("a.toml", "stays"), ("b.toml", "new b"), ("fresh.toml", "y")]))
}

#[test]
fn a_change_of_several_files_is_made_or_not() {
    let (before, after) = two();
    let (dir, path) = laid_out(&before);
    let now = Files::read(&path).unwrap();
    assert_eq!(now, Files::of(&before));
    assert_eq!(now.differing(&Files::of(&after), &path).len(), 4);
    drop(prepare(&path, &now, &after, &revision()).unwrap());
    assert_eq!(Files::read(&path).unwrap(), Files::of(&before));
    assert_eq!(all_names(dir.path()), ["a.toml", "b.toml", "conf.d", "gone.toml", "lb.toml"]);
    prepare(&path, &now, &after, &revision()).unwrap().commit().unwrap().finish().unwrap();
    assert_eq!(Files::read(&path).unwrap(), Files::of(&after));
    assert_eq!(all_names(dir.path()), ["a.toml", "b.toml", "conf.d", "fresh.toml", "lb.toml"]);
    assert_eq!(recover(&path).unwrap(), None);
}

#[test]
fn what_was_begun_is_completed_at_the_next_start() {
    let (before, after) = two();
    let (dir, path) = laid_out(&before);
    let now = Files::read(&path).unwrap();
    // Ended before it was made: nothing happened.
    std::mem::forget(prepare(&path, &now, &after, &revision()).unwrap());
    assert_eq!(recover(&path).unwrap(), None);
    assert_eq!(Files::read(&path).unwrap(), Files::of(&before));
    // Ended right after.
    std::mem::forget(prepare(&path, &now, &after, &revision()).unwrap().commit().unwrap());
    assert_eq!(Files::read(&path).unwrap(), Files::of(&before));
    // And with one file moved already.
    fs::write(dir.path().join("conf.d/b.toml"), "new b").unwrap();
    assert_eq!(recover(&path).unwrap(), Some(revision()));
    assert_eq!(Files::read(&path).unwrap(), Files::of(&after));
    assert_eq!(all_names(dir.path()), ["a.toml", "b.toml", "conf.d", "fresh.toml", "lb.toml"]);
}

#[test]
fn a_file_that_somebody_edited_meanwhile_is_not_overwritten() {
    let (before, after) = two();
    let (_dir, path) = laid_out(&before);
    let now = Files::read(&path).unwrap();
    std::mem::forget(prepare(&path, &now, &after, &revision()).unwrap().commit().unwrap());
    fs::write(&path, "by hand").unwrap();
    assert_eq!(recover(&path).unwrap(), None);
    assert_eq!(fs::read(&path).unwrap(), b"by hand");
    assert_eq!(recover(&path).unwrap(), None);
}

#[test]
fn a_damaged_journal_changes_nothing() {
    let (before, after) = two();
    let (dir, path) = laid_out(&before);
    let now = Files::read(&path).unwrap();
    std::mem::forget(prepare(&path, &now, &after, &revision()).unwrap().commit().unwrap());
    let journal = journal_path(&path);
    let mut bytes = fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&journal, bytes).unwrap();
    assert_eq!(recover(&path).unwrap(), None);
    assert_eq!(Files::read(&path).unwrap(), Files::of(&before));
    assert!(dir.path().join(".lb.toml.journal.damaged").exists());
}

#[test]
fn what_a_link_leads_to_is_replaced_and_not_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.toml"), dir.path().join("lb.toml"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let now = Files::read(&link).unwrap();
    prepare(&link, &now, &texts("new", &[]), &revision()).unwrap().commit().unwrap().finish().unwrap();
    assert_eq!(fs::read(&real).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}
