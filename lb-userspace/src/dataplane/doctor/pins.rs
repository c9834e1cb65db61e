//! What outlives the daemon in the BPF file system: is it there, whole, and nobody else's?

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lb_common::maps::{LAYOUT_VERSION, META_MAGIC, Meta};

use super::{fine, problem, unchecked, warning};
use crate::{
    control::view::Finding,
    dataplane::{inspect::Context, maps, names::Names},
};

const CHECK: &str = "pins";

/// The pin directory and everything below it.
pub(super) fn check(context: &Context, names: &Names) -> Vec<Finding> {
    let maps = &context.maps.directory;
    let directory = maps.parent().map_or_else(|| maps.clone(), Path::to_owned);
    let subject = directory.display().to_string();
    let mut findings = vec![judge_directory(&subject, fs::metadata(&directory).map(|m| (m.uid(), m.mode())))];
    findings.push(judge_missing(&subject, &missing(maps, &context.explain_pin, &directory, names)));
    findings.push(match context.maps.meta.get(&0, 0) {
        Ok(meta) => judge_layout(&subject, &meta),
        Err(error) => unchecked("layout", &subject, error, "look at `lbctl map dump META`"),
    });
    findings
}

fn judge_directory(subject: &str, found: io::Result<(u32, u32)>) -> Finding {
    match found {
        Ok((0, mode)) if mode & 0o077 == 0 => fine(CHECK, subject, "belongs to root alone"),
        Ok((uid, mode)) => {
            let mode = mode & 0o777;
            let found = format!("belongs to user {uid} with mode {mode:03o}: others may reach the data path");
            warning(CHECK, subject, found, format!("chown root {subject} && chmod 700 {subject}"))
        }
        Err(error) => problem(
            CHECK,
            subject,
            format!("is not there ({error}): forwarding would end with this lbd"),
            "restart lbd, which makes it anew; find out who removed it or unmounted the BPF file system",
        ),
    }
}

/// Pins that should be there and are not.
fn missing(maps_directory: &Path, explain: &Path, directory: &Path, names: &Names) -> Vec<String> {
    let maps = maps::NAMES.iter().map(|name| maps_directory.join(name));
    let mut missing: Vec<PathBuf> =
        maps.chain([explain.to_owned()]).filter(|path| fs::symlink_metadata(path).is_err()).collect();
    let attached = names.interfaces.iter().filter(|interface| interface.mode.is_some()).count();
    let links = fs::read_dir(directory.join("links")).map_or(0, Iterator::count);
    if links < attached {
        missing.push(PathBuf::from(format!("links: {links} of {attached}")));
    }
    missing.iter().map(|path| path.strip_prefix(directory).unwrap_or(path).display().to_string()).collect()
}

fn judge_missing(subject: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return fine(CHECK, subject, "every map, program and link is pinned");
    }
    problem(
        CHECK,
        subject,
        format!("missing: {}. The next lbd cannot adopt what forwards now", missing.join(", ")),
        "plan a restart that makes the data path anew (its connections are lost): stop lbd, remove the directory, start it",
    )
}

fn judge_layout(subject: &str, meta: &Meta) -> Finding {
    if meta.magic == META_MAGIC && meta.layout_version == LAYOUT_VERSION {
        return fine("layout", subject, format!("map layout {LAYOUT_VERSION}, as this lbd has it"));
    }
    let Meta { magic, layout_version, .. } = meta;
    problem(
        "layout",
        subject,
        format!("META says layout {layout_version}, mark {magic:#x}; this lbd has layout {LAYOUT_VERSION}"),
        "somebody wrote into META: restart lbd with a new pin directory",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Severity;

    #[test]
    fn the_directory_is_roots_alone() {
        let rows = [
            (Ok((0, 0o40700)), Severity::Ok),
            (Ok((0, 0o40755)), Severity::Warning),
            (Ok((1000, 0o40700)), Severity::Warning),
            (Err(io::ErrorKind::NotFound.into()), Severity::Problem),
        ];
        for (found, expected) in rows {
            let name = format!("{found:?}");
            assert_eq!(judge_directory("/sys/fs/bpf/lb", found).severity, expected, "{name}");
        }
    }

    #[test]
    fn missing_pins_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let maps = directory.path().join("maps");
        fs::create_dir(&maps).unwrap();
        for name in maps::NAMES.iter().filter(|name| **name != "FLOWS") {
            fs::write(maps.join(name), "").unwrap();
        }
        let explain = directory.path().join("explain");
        let found = missing(&maps, &explain, directory.path(), &Names::default());
        assert_eq!(found, ["maps/FLOWS", "explain"]);
        assert_eq!(judge_missing("x", &found).severity, Severity::Problem);
        assert_eq!(judge_missing("x", &[]).severity, Severity::Ok);
    }

    #[test]
    fn another_layout_is_a_problem() {
        let ours = Meta { magic: META_MAGIC, layout_version: LAYOUT_VERSION, ..Meta::default() };
        assert_eq!(judge_layout("x", &ours).severity, Severity::Ok);
        assert_eq!(judge_layout("x", &Meta { magic: 0, ..ours }).severity, Severity::Problem);
        assert_eq!(judge_layout("x", &Meta { layout_version: 0, ..ours }).severity, Severity::Problem);
    }
}
