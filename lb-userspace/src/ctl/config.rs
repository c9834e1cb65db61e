//! Commands about the configuration as a document: its history, what sets two revisions apart, changes that are kept.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use serde_json::{Map, Value};

use super::{
    args::{Apply, Diff, History, Rollback},
    client::{Answer, Client, query_path},
    failure::Failure,
    output::Output,
    views,
};
use crate::{
    config::{Config, ConfigErrors},
    control::{
        api::Empty,
        revision::{Action, Applied, Compared, Difference, Edit, How, RevisionDocument, RevisionsView, Whole},
    },
};

pub(super) fn history(client: &Client, output: &Output, verb: Option<History>) -> Result<(), Failure> {
    match verb {
        None | Some(History::Ls) => {
            let answer = client.get::<RevisionsView>("revisions")?;
            output.answer(&answer, views::revisions)?;
            if !output.is_json() {
                output.note("next: lbctl history show N, lbctl diff N, lbctl rollback N");
            }
            Ok(())
        }
        Some(History::Show { number }) => {
            output.lines(&client.get::<RevisionDocument>(&format!("revisions/{number}"))?, views::revision)
        }
    }
}

/// The text of a revision, ready to be a file.
pub(super) fn export(client: &Client, output: &Output, number: Option<u64>) -> Result<(), Failure> {
    let path = number.map_or_else(|| "config".to_owned(), |number| format!("revisions/{number}"));
    output.document(&client.get::<RevisionDocument>(&path)?, |document| views::texts(&document.texts))
}

pub(super) fn diff(client: &Client, output: &Output, arguments: &Diff) -> Result<(), Failure> {
    let &Diff { from, to, exit_code } = arguments;
    let to = match (from, to) {
        // Of one revision: how it came to what is in force.
        (Some(_), None) => client.get::<RevisionsView>("revisions")?.value.in_force,
        (_, to) => to,
    };
    let answer = client.get::<Difference>(&query_path("config/diff", &Compared { from, to })?)?;
    let is_same = answer.value.text.is_empty();
    if is_same && !output.is_json() {
        output.note(if from.is_none() { "the files are what is in force" } else { "no difference" });
        return Ok(());
    }
    output.lines(&answer, views::difference)?;
    if exit_code && !is_same { Err(Failure::Differs) } else { Ok(()) }
}

pub(super) fn apply(client: &Client, output: &Output, Apply { file, change }: Apply) -> Result<(), Failure> {
    let whole = read(&file)?;
    let how = change.how();
    let answer = client.put::<Applied>(&query_path("config", &how)?, &whole)?;
    tell(output, &answer, &how)
}

pub(super) fn rollback(client: &Client, output: &Output, Rollback { number, change }: Rollback) -> Result<(), Failure> {
    let number = match number {
        Some(number) => number,
        None => before(client)?,
    };
    let how = change.how();
    let answer = client.post::<Applied>(&query_path(&format!("revisions/{number}/rollback"), &how)?, &Empty {})?;
    tell(output, &answer, &how)
}

/// What a rollback without a number takes: what a revision that is not confirmed would go back to, or the one before.
fn before(client: &Client) -> Result<u64, Failure> {
    let RevisionsView { revisions, in_force, unconfirmed, .. } = client.get::<RevisionsView>("revisions")?.value;
    let older = revisions.iter().find(|revision| in_force.is_none_or(|number| revision.number < number));
    let number = unconfirmed.map(|waiting| waiting.back_to).or(older.map(|revision| revision.number));
    number.ok_or_else(|| Failure::Usage("there is no earlier revision; see lbctl history".to_owned()))
}

pub(super) fn confirm(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.post::<RevisionsView>("config/confirm", &Empty {})?;
    if output.is_json() {
        return output.answer(&answer, views::revisions);
    }
    let number = answer.value.in_force.map_or_else(String::new, |number| format!(" {number}"));
    output.note(&format!("revision{number} is confirmed: it stays"));
    Ok(())
}

/// Merges keys into a part of the configuration, as a new revision.
pub(super) fn merge(
    client: &Client,
    output: &Output,
    path: &[&str],
    settings: Map<String, Value>,
    how: &How,
) -> Result<(), Failure> {
    edit(client, output, path, Action::Merge(Value::Object(settings)), how)
}

/// Edits a part of the configuration, as a new revision.
pub(super) fn edit(client: &Client, output: &Output, path: &[&str], action: Action, how: &How) -> Result<(), Failure> {
    let edits = [Edit { path: path.iter().map(|key| (*key).to_owned()).collect(), action }];
    let answer = client.patch::<Applied>(&query_path("config", how)?, &edits)?;
    tell(output, &answer, how)
}

/// What became of a change.
fn tell(output: &Output, answer: &Answer<Applied>, how: &How) -> Result<(), Failure> {
    if output.is_json() {
        return output.answer(answer, |_, _| String::new());
    }
    let Applied { revision, changed, difference, unconfirmed, warnings } = &answer.value;
    for warning in warnings {
        output.note(&format!("warning: {warning}"));
    }
    if !changed {
        output.note("nothing to change");
        return Ok(());
    }
    if how.dry_run {
        return Ok(output.print(&views::difference(difference, output.look()))?);
    }
    output.print(&views::changes(difference, output.look()))?;
    match revision {
        Some(number) => output.note(&format!("revision {number} is in force")),
        None => output.note("it is in force; it could not be written to the history yet: see lbctl status"),
    }
    if let Some(waiting) = unconfirmed {
        let (back_to, seconds) = (waiting.back_to, how.confirm_s.unwrap_or(waiting.seconds_left));
        output.note(&format!("it goes back to revision {back_to} after {seconds} s\nnext: lbctl confirm"));
    }
    Ok(())
}

/// A file with the files of `conf.d` beside it; without such a directory, those of lbd stay.
fn read(file: &Path) -> Result<Whole, Failure> {
    if file == Path::new("-") {
        let mut main = String::new();
        let read = io::stdin().read_to_string(&mut main);
        read.map_err(|source| Failure::File { path: "standard input".into(), source })?;
        return Ok(Whole { main, fragments: None });
    }
    let texts = Config::texts(file).map_err(|errors: ConfigErrors| Failure::ConfigInvalid(errors.to_string()))?;
    let has_fragments = fs::exists(crate::config::fragments_of(file)).unwrap_or(false);
    Ok(Whole { main: texts.main, fragments: has_fragments.then_some(texts.fragments) })
}
