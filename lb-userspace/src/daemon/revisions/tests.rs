//! Changes of the configuration, with the control task played by a thread that can refuse.

mod crash;

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
};

use serde_json::json;

use super::*;
use crate::{
    control::revision::{Action, Edit, Whole},
    daemon::handle,
};

const CONFIG: &str = r#"version = 1
# Ours.
[interface.eth0]
[vip.web]
addresses = ["192.0.2.10"]
[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = 80
pool = "web"
[pool.web]
forwarding = "nat"
[pool.web.node.n1] # weak
address = "10.0.0.11:80"
weight = 1 # for now
"#;

/// lbd's configuration in a directory, and its control task.
struct Lbd {
    revisions: Arc<Revisions>,
    /// How many of the next configurations the data path refuses.
    refusals: Arc<AtomicU32>,
    /// The weights of n1 that were taken into force.
    taken: Arc<Mutex<Vec<u32>>>,
    control: Option<JoinHandle<()>>,
}

/// A directory with lb.toml, whose state is beside it.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lb.toml"), config(dir.path(), CONFIG)).unwrap();
    dir
}

fn config(dir: &Path, text: &str) -> String {
    format!("{text}[daemon]\nstate_dir = \"{}\"\n", dir.join("state").display())
}

impl Lbd {
    fn start(dir: &Path) -> Self {
        let path = dir.join("lb.toml");
        let found = find(&path).unwrap();
        let config = found.config.clone();
        let (requests, mut asked) = handle::requests();
        let revisions = Arc::new(Revisions::new(path, found, &config, requests));
        let (refusals, taken) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (refuse, take) = (Arc::clone(&refusals), Arc::clone(&taken));
        let control = thread::spawn(move || {
            while let Some(Request::Configure(read, answer)) = asked.blocking_recv() {
                let refused =
                    refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                let outcome = match read {
                    Ok(_) if refused => Err(QueryError::Failed("the kernel says no".to_owned())),
                    Ok(config) => {
                        let weight = config.pools["web"].nodes["n1"].weight;
                        lock(&take).push(weight);
                        Ok(())
                    }
                    Err(why) => Err(why),
                };
                answer.send(outcome).unwrap();
            }
        });
        Self { revisions, refusals, taken, control: Some(control) }
    }

    fn propose(&self, content: Content, how: How) -> Result<Applied, QueryError> {
        self.revisions.propose(Proposal::new(content, None, how), "ada", Source::Edit, &|_| Ok(()))
    }

    fn weigh(&self, weight: u32, how: How) -> Result<Applied, QueryError> {
        self.propose(Content::Edits(vec![weight_of_n1(weight)]), how)
    }

    fn in_force(&self) -> (Option<u64>, u32) {
        let text = self.revisions.known().texts.main.clone();
        let config = Config::parse("lb.toml", &text).unwrap();
        (self.revisions.known().in_force, config.pools["web"].nodes["n1"].weight)
    }

    fn stop(mut self) {
        drop(Arc::into_inner(self.revisions).unwrap());
        self.control.take().unwrap().join().unwrap();
    }
}

fn weight_of_n1(weight: u32) -> Edit {
    let path = ["pool", "web", "node", "n1", "weight"].map(str::to_owned).to_vec();
    Edit { path, action: Action::Set(json!(weight)) }
}

fn file(dir: &Path) -> String {
    fs::read_to_string(dir.join("lb.toml")).unwrap()
}

#[test]
fn a_change_is_in_force_in_the_file_and_in_the_history() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    assert_eq!(lbd.in_force(), (Some(1), 1), "what lbd starts with is a revision");
    let why = How { comment: Some("stronger".to_owned()), ..How::default() };
    let applied = lbd.weigh(3, why).unwrap();
    assert_eq!((applied.revision, applied.changed), (Some(2), true));
    assert_eq!(applied.difference.changes[0].details, ["weight: 1 → 3"]);
    assert_eq!(file(dir.path()), config(dir.path(), &CONFIG.replace("weight = 1 #", "weight = 3 #")));
    assert_eq!(*lock(&lbd.taken), [3]);
    let view = lbd.revisions.view();
    let newest = &view.revisions[0];
    assert_eq!((newest.number, newest.author.as_str(), newest.source), (2, "ada", Source::Edit));
    assert_eq!((newest.comment.as_deref(), view.edited.len()), (Some("stronger"), 0));
    assert_eq!(lbd.revisions.read(Some(1)).unwrap().texts.main, config(dir.path(), CONFIG));
    lbd.stop();
    assert_eq!(Lbd::start(dir.path()).in_force(), (Some(2), 3), "and after a restart");
}

#[test]
fn what_may_not_be_changed_is_not() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    let before = file(dir.path());
    let dry = lbd.weigh(3, How { dry_run: true, ..How::default() }).unwrap();
    assert_eq!((dry.revision, dry.difference.changes.len()), (Some(1), 1));
    let stale = Proposal::new(Content::Edits(vec![weight_of_n1(3)]), Some(7), How::default());
    assert!(matches!(lbd.revisions.propose(stale, "ada", Source::Edit, &|_| Ok(())), Err(QueryError::Stale(_))));
    assert!(matches!(lbd.weigh(0, How::default()), Err(QueryError::ConfigInvalid(_))));
    assert!(matches!(lbd.propose(Content::Revision(9), How::default()), Err(QueryError::NotFound(_))));
    lbd.refusals.store(1, Ordering::SeqCst);
    assert!(matches!(lbd.weigh(3, How::default()), Err(QueryError::Failed(_))), "the data path refuses");
    for name in ["../x.toml", ".x.toml", "x.conf", "a/b.toml", "x\n.toml"] {
        let fragments = Some([(name.to_owned(), String::new())].into());
        let whole = Content::Whole(Whole { main: before.clone(), fragments });
        assert!(matches!(lbd.propose(whole, How::default()), Err(QueryError::Invalid(_))), "{name}");
    }
    let comment = How { comment: Some("two\nlines".to_owned()), ..How::default() };
    assert!(matches!(lbd.weigh(3, comment), Err(QueryError::Invalid(_))));
    assert_eq!((file(dir.path()), lbd.in_force()), (before, (Some(1), 1)));
    assert!(lock(&lbd.taken).is_empty());
    let left =
        fs::read_dir(dir.path()).unwrap().count() + fs::read_dir(dir.path().join("state/history")).unwrap().count();
    assert_eq!(left, 3, "lb.toml, state and one revision; nothing is left over");
}

#[test]
fn a_file_that_was_edited_is_not_overwritten_unless_told_so() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    let by_hand = file(dir.path()).replace("weight = 1", "weight = 9");
    fs::write(dir.path().join("lb.toml"), &by_hand).unwrap();
    assert_eq!(lbd.revisions.view().edited.len(), 1);
    let mut status = Status::default();
    lbd.revisions.annotate(&mut status);
    assert!(status.warnings[0].contains("lbctl reload"), "{:?}", status.warnings);
    assert!(matches!(lbd.weigh(3, How::default()), Err(QueryError::Conflict(_))));
    let difference = lbd.revisions.compare(Side::InForce, Side::Files).unwrap();
    assert_eq!(difference.changes[0].details, ["weight: 1 → 9"]);
    lbd.weigh(3, How { force: true, ..How::default() }).unwrap();
    assert_eq!(lbd.in_force(), (Some(2), 3));
    fs::write(dir.path().join("lb.toml"), &by_hand).unwrap();
    let read = lbd.revisions.read_again(Source::Reload, "bob").unwrap();
    assert_eq!((read.revision, lbd.in_force()), (Some(3), (Some(3), 9)));
    let again = lbd.revisions.read_again(Source::Signal, "").unwrap();
    assert_eq!((again.changed, lbd.revisions.view().revisions.len()), (false, 3), "the same text is no new revision");
    assert_eq!(*lock(&lbd.taken), [3, 9, 9], "but is taken again: certificates may be others");
}

#[test]
fn a_revision_that_nobody_confirms_goes_back() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    let for_a_minute = || How { confirm_s: Some(60), ..How::default() };
    lbd.weigh(3, for_a_minute()).unwrap();
    assert!(matches!(lbd.weigh(4, How::default()), Err(QueryError::Conflict(_))), "one at a time");
    assert!(matches!(lbd.revisions.read_again(Source::Reload, "ada"), Err(QueryError::Conflict(_))));
    lbd.revisions.look_after();
    assert_eq!(lbd.in_force(), (Some(2), 3), "not yet");
    lbd.stop();

    let lbd = Lbd::start(dir.path());
    let waits = lbd.revisions.view().unconfirmed.expect("it waits over a restart");
    assert_eq!((waits.revision, waits.back_to), (2, 1));
    assert!((50..=60).contains(&waits.seconds_left));
    lock(&lbd.revisions.known).waiting.as_mut().unwrap().until = Instant::now();
    lbd.revisions.look_after();
    assert_eq!(lbd.in_force(), (Some(3), 1));
    let newest = lbd.revisions.view().revisions[0].clone();
    assert_eq!((newest.source, newest.of), (Source::Expiry, Some(1)));
    assert_eq!(file(dir.path()), config(dir.path(), CONFIG));
    lbd.stop();

    let lbd = Lbd::start(dir.path());
    assert_eq!(lbd.revisions.view().unconfirmed, None);
    assert!(matches!(lbd.revisions.confirm(), Err(QueryError::Conflict(_))));
    lbd.weigh(5, for_a_minute()).unwrap();
    assert_eq!(lbd.revisions.confirm(), Ok(4));
    lbd.stop();
    let lbd = Lbd::start(dir.path());
    assert_eq!((lbd.in_force(), lbd.revisions.view().unconfirmed), ((Some(4), 5), None));
    lbd.weigh(6, for_a_minute()).unwrap();
    lbd.propose(Content::Revision(4), How::default()).unwrap();
    assert_eq!((lbd.in_force(), lbd.revisions.view().unconfirmed), ((Some(6), 5), None), "a rollback ends the waiting");
}

#[test]
fn a_disk_that_refuses_changes_nothing_and_heals() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    let before = file(dir.path());
    // Nothing can get the journal's name: the control task has taken the change already then.
    let journal = dir.path().join(".lb.toml.journal");
    fs::create_dir(&journal).unwrap();
    let QueryError::Failed(why) = lbd.weigh(3, How::default()).unwrap_err() else { panic!("another kind") };
    assert!(why.contains("nothing was changed"), "{why}");
    assert_eq!(*lock(&lbd.taken), [3, 1], "taken and given back");
    fs::remove_dir(&journal).unwrap();
    // Nor can a revision be written.
    let history = dir.path().join("state/history");
    let aside = dir.path().join("aside");
    fs::rename(&history, &aside).unwrap();
    fs::write(&history, "not a directory").unwrap();
    assert!(matches!(lbd.weigh(3, How::default()), Err(QueryError::Failed(_))));
    assert_eq!((file(dir.path()), lbd.in_force()), (before.clone(), (Some(1), 1)));
    // What is in the file already is taken all the same, and written down later.
    fs::write(dir.path().join("lb.toml"), before.replace("weight = 1", "weight = 9")).unwrap();
    assert_eq!(lbd.revisions.read_again(Source::Reload, "ada").unwrap().revision, None);
    let mut status = Status::default();
    lbd.revisions.annotate(&mut status);
    assert!(status.warnings[0].contains("tried again"), "{:?}", status.warnings);
    fs::remove_file(&history).unwrap();
    fs::rename(&aside, &history).unwrap();
    lbd.revisions.look_after();
    assert_eq!(lbd.in_force(), (Some(2), 9));
    assert_eq!(lbd.weigh(3, How::default()).unwrap().revision, Some(3));
    assert!(lbd.revisions.view().problems.is_empty());
}

#[test]
fn lbd_starts_with_the_last_good_revision_when_the_file_is_not_valid() {
    let dir = directory();
    let path = dir.path().join("lb.toml");
    let lbd = Lbd::start(dir.path());
    lbd.weigh(3, How::default()).unwrap();
    lbd.stop();
    let good = file(dir.path());
    for damaged in ["", &good[..good.len() / 2], &good.replace("nat", "cat")] {
        // The line that says where lbd's state is was not hit.
        let state = good.lines().last().unwrap();
        fs::write(&path, format!("[daemon]\n{state}\n{damaged}")).unwrap();
        let found = find(&path).unwrap();
        assert!(found.refused.is_some());
        assert_eq!(found.config.pools["web"].nodes["n1"].weight, 3);
        let lbd = Lbd::start(dir.path());
        assert_eq!((lbd.in_force(), lbd.revisions.view().edited.len()), ((Some(2), 3), 1));
        lbd.stop();
    }
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert!(find(&path).is_err(), "without a history there is nothing to go on with");
}

#[test]
fn a_damaged_newest_revision_does_not_hide_what_is_in_the_file() {
    let dir = directory();
    let lbd = Lbd::start(dir.path());
    lbd.weigh(3, How::default()).unwrap();
    lbd.stop();
    fs::write(dir.path().join("state/history/00000002.rev"), "nonsense").unwrap();
    let lbd = Lbd::start(dir.path());
    assert_eq!(lbd.in_force(), (Some(3), 3), "it is recorded anew, under a number of its own");
    assert!(lbd.revisions.view().problems[0].contains("revision 2 is damaged"));
}
