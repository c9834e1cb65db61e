//! `lbctl history`, `lbctl diff`: revisions of the configuration and what sets them apart.

use std::fmt::Write;

use super::{
    super::output::{Cell, Look, Tone, left, paint, right, table},
    word,
};
use crate::control::revision::{Change, Difference, Revision, RevisionDocument, RevisionsView, Source, Texts, What};

/// The history.
pub(in crate::ctl) fn revisions(view: &RevisionsView, look: Look) -> String {
    let in_force = view.in_force;
    let waits = view.unconfirmed;
    let columns = vec![
        right("REVISION", |revision: &Revision| Cell::new(revision.number)),
        left("", move |revision: &Revision| match waits {
            Some(waits) if waits.revision == revision.number => Cell::toned("in force, unconfirmed", Tone::Attention),
            _ if in_force == Some(revision.number) => Cell::toned("in force", Tone::Good),
            _ => Cell::new(""),
        }),
        left("TIME", |revision: &Revision| Cell::new(time(revision.time))),
        left("AUTHOR", |revision: &Revision| Cell::new(&revision.author)).spare(1),
        left("SOURCE", |revision: &Revision| Cell::new(source(revision))).spare(2),
        left("LBD", |revision: &Revision| Cell::new(&revision.lbd)).wide(),
        left("COMMENT", |revision: &Revision| Cell::optional(revision.comment.as_ref())).wraps(),
    ];
    let mut text = table(columns, &view.revisions, look);
    // Writing to a String cannot fail.
    if let Some(waits) = waits {
        let (back_to, seconds) = (waits.back_to, waits.seconds_left);
        let _ = writeln!(text, "revision {back_to} comes back in {seconds} s unless you say: lbctl confirm");
    }
    if !view.edited.is_empty() {
        let files = view.edited.join(", ");
        let _ = writeln!(text, "{} edited, and not loaded: {files}", paint("warning:", Tone::Attention, look));
    }
    for problem in &view.problems {
        let _ = writeln!(text, "{} {problem}", paint("warning:", Tone::Attention, look));
    }
    text
}

fn source(revision: &Revision) -> String {
    let of = revision.of.map_or_else(String::new, |number| format!(" to {number}"));
    match revision.source {
        Source::Start => "file, at start".to_owned(),
        Source::Signal => "file, SIGHUP".to_owned(),
        Source::Reload => "file, reload".to_owned(),
        Source::Apply | Source::Edit => word(&revision.source),
        Source::Rollback => format!("rollback{of}"),
        Source::Expiry => format!("unconfirmed, back{of}"),
    }
}

/// A revision, with what is known of it as comments before its text.
pub(in crate::ctl) fn revision(document: &RevisionDocument, _: Look) -> String {
    let mut text = String::new();
    if let Some(revision) = &document.revision {
        let author = if revision.author.is_empty() { String::new() } else { format!(", by {}", revision.author) };
        let _ = writeln!(text, "# revision {}, {}{author}, {}", revision.number, time(revision.time), source(revision));
        if let Some(comment) = &revision.comment {
            let _ = writeln!(text, "# {comment}");
        }
    }
    text + &texts(&document.texts)
}

/// The text of a configuration.
pub(in crate::ctl) fn texts(texts: &Texts) -> String {
    let mut text = texts.main.clone();
    for (name, fragment) in &texts.fragments {
        let _ = write!(text, "\n# conf.d/{name}\n{fragment}");
    }
    text
}

/// What is changed, and its text.
pub(in crate::ctl) fn difference(difference: &Difference, look: Look) -> String {
    let mut text = changes(difference, look);
    text.push('\n');
    for line in difference.text.lines() {
        let tone = match line.as_bytes() {
            [b'+', ..] => Some(Tone::Good),
            [b'-', ..] => Some(Tone::Bad),
            _ => None,
        };
        text.push_str(&tone.map_or_else(|| line.to_owned(), |tone| painted(line, tone, look)));
        text.push('\n');
    }
    text
}

fn painted(line: &str, tone: Tone, look: Look) -> String {
    if look.colour { paint(line, tone, look) } else { line.to_owned() }
}

/// The parts that are changed, and whom that touches.
pub(in crate::ctl) fn changes(difference: &Difference, look: Look) -> String {
    if difference.changes.is_empty() {
        return "only comments, order or spelling change\n".to_owned();
    }
    let columns = vec![
        left("CHANGE", |change: &Change| match change.what {
            What::Added => Cell::toned("added", Tone::Good),
            What::Removed => Cell::toned("removed", Tone::Bad),
            What::Changed => Cell::toned("changed", Tone::Attention),
        }),
        left("KIND", |change: &Change| Cell::new(change.kind.replace('_', " "))),
        left("NAME", |change: &Change| Cell::new(&change.name)),
        left("VIRTUAL SERVERS", |change: &Change| Cell::new(listed(&change.virtual_servers))).spare(2),
        right("CONNECTIONS", |change: &Change| Cell::new(change.connections)).spare(1),
        left("WHAT", |change: &Change| Cell::new(change.details.join("; "))).wraps(),
    ];
    table(columns, &difference.changes, look)
}

/// A few names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Local time.
fn time(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::revision::Unconfirmed;

    fn revision(number: u64, source: Source) -> Revision {
        let (author, lbd) = ("ada".to_owned(), "1".to_owned());
        Revision { number, time: 1_800_000_000, author, source, comment: Some("a new node".into()), of: Some(3), lbd }
    }

    #[test]
    fn the_history_tells_what_is_in_force_and_what_waits() {
        let view = RevisionsView {
            revisions: vec![revision(5, Source::Rollback), revision(4, Source::Apply)],
            in_force: Some(5),
            unconfirmed: Some(Unconfirmed { revision: 5, back_to: 4, seconds_left: 60 }),
            edited: vec!["/etc/lb/lb.toml".into()],
            problems: vec!["revision 2 is damaged".into()],
        };
        let text = revisions(&view, Look::default());
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains("in force, unconfirmed") && row.contains("rollback to 3"), "{text}");
        assert!(text.lines().nth(2).unwrap().ends_with("apply   a new node") || text.contains("apply"), "{text}");
        for words in ["revision 4 comes back in 60 s", "not loaded: /etc/lb/lb.toml", "revision 2 is damaged"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn changes_say_whom_they_touch() {
        let change = Change {
            kind: "node".into(),
            name: "web/n1".into(),
            what: What::Changed,
            details: vec!["weight: 1 → 3".into()],
            virtual_servers: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            connections: 12,
        };
        let text = difference(
            &Difference { changes: vec![change], text: "-weight = 1\n+weight = 3\n".into() },
            Look::default(),
        );
        assert!(text.contains("changed  node  web/n1  a, b, c and 1 more           12  weight: 1 → 3\n"), "{text}");
        assert!(text.ends_with("\n-weight = 1\n+weight = 3\n"), "{text}");
        assert!(changes(&Difference::default(), Look::default()).contains("only comments"));
    }
}
