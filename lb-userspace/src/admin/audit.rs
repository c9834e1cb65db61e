//! The audit log: who changed what, one JSON object a line, each with the digest of the line before. A line that is
//! changed, left out or put in breaks the chain; one that was answered for is on the disk.
//!
//! `audit.log` is written to; when it is full it becomes `audit-FIRST.log`, by the number of its first line, and the oldest
//! of these are removed. Called by the guard of the API, on blocking threads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    config::api::Audit as Policy,
    control::access::{AuditEntry, AuditPage, AuditVerification},
    state_file::hex,
};

/// The file that is written to.
const CURRENT: &str = "audit.log";

/// Longest line that is read back.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// Digest before the first line of all.
fn origin() -> String {
    "0".repeat(64)
}

/// The log.
#[derive(Debug)]
pub(super) struct AuditLog {
    directory: PathBuf,
    policy: Policy,
    /// Open for appending; `None`: to be opened again, after an error.
    file: Option<File>,
    /// Bytes of whole lines in it.
    length: u64,
    /// Number of the last line.
    last: u64,
    /// Digest of the last line.
    head: String,
}

impl AuditLog {
    /// Goes on with the log of a directory, or begins one. A line that was cut short by a crash was never answered for: it is
    /// taken out.
    pub(super) fn open(directory: &Path, policy: Policy) -> io::Result<Self> {
        if !directory.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut log = Self { directory: directory.to_owned(), policy, file: None, length: 0, last: 0, head: origin() };
        if let Some(closed) = log.closed()?.pop() {
            log.go_on(&closed)?;
        }
        log.reopen()?;
        Ok(log)
    }

    /// What a new configuration says of its files.
    pub(super) fn configure(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Writes a line; it is on the disk when this returns.
    pub(super) fn append(&mut self, mut entry: AuditEntry) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        entry.seq = self.last + 1;
        entry.previous.clone_from(&self.head);
        let mut line = serde_json::to_vec(&entry)?;
        let head = hex(digest(&SHA256, &line).as_ref());
        line.push(b'\n');
        if self.length > 0 && self.length + line.len() as u64 > self.policy.file_size {
            self.close()?;
        }
        let Some(file) = &mut self.file else { return Err(io::Error::other("the audit log is not open")) };
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
            // What of it is there is taken out when it is opened again.
            self.file = None;
            return Err(error);
        }
        self.length += line.len() as u64;
        (self.last, self.head) = (entry.seq, head);
        Ok(())
    }

    /// The newest lines before number `before`, at most `limit`; the newest last.
    pub(super) fn page(&self, before: Option<u64>, limit: usize) -> io::Result<AuditPage> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        let before = before.unwrap_or(u64::MAX);
        let mut files = self.closed()?;
        files.push(self.directory.join(CURRENT));
        for path in files.iter().rev() {
            let mut older = Vec::new();
            each_line(path, |line| {
                if let Ok(entry) = serde_json::from_slice::<AuditEntry>(line)
                    && entry.seq < before
                {
                    older.push(entry);
                }
                true
            })?;
            older.append(&mut entries);
            entries = older;
            if entries.len() > limit {
                break;
            }
        }
        let more = entries.len().saturating_sub(limit);
        entries.drain(..more);
        let next_before = entries.first().filter(|_| more > 0).map(|first| first.seq);
        Ok(AuditPage { next_before, entries })
    }

    /// Follows the chain through all files.
    pub(super) fn verify(&self) -> io::Result<AuditVerification> {
        let mut found = AuditVerification { intact: true, head: origin(), ..AuditVerification::default() };
        let mut files = self.closed()?;
        files.push(self.directory.join(CURRENT));
        for path in &files {
            each_line(path, |line| {
                found.problem = problem(&found, line, path);
                if found.problem.is_none() {
                    found.last = Some(found.last.map_or_else(|| number(line), |last| last + 1));
                    found.first = found.first.or(found.last);
                    found.head = hex(digest(&SHA256, line).as_ref());
                    found.entries += 1;
                }
                found.problem.is_none()
            })?;
            if found.problem.is_some() {
                break;
            }
        }
        if found.problem.is_none() && found.entries > 0 && found.head != self.head {
            found.problem =
                Some(format!("it ends with line {}, but {} was written", found.last.unwrap_or(0), self.last));
        }
        if found.entries == 0 && self.last > 0 && found.problem.is_none() {
            found.problem = Some(format!("it is empty, but {} lines were written", self.last));
        }
        found.intact = found.problem.is_none();
        Ok(found)
    }

    /// Opens the current file for appending, behind its last whole line.
    fn reopen(&mut self) -> io::Result<()> {
        let path = self.directory.join(CURRENT);
        let is_new = !path.exists();
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if is_new {
            File::open(&self.directory)?.sync_all()?;
        }
        let whole = self.go_on(&path)?;
        if file.metadata()?.len() > whole {
            tracing::warn!(path = %path.display(), "the audit log ended within a line, which is taken out");
            file.set_len(whole)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(whole))?;
        (self.file, self.length) = (Some(file), whole);
        Ok(())
    }

    /// Takes number and digest of a file's last whole line; the bytes up to its end.
    fn go_on(&mut self, path: &Path) -> io::Result<u64> {
        let mut whole = 0;
        let mut last = None;
        each_line(path, |line| {
            whole += line.len() as u64 + 1;
            last = Some((number(line), hex(digest(&SHA256, line).as_ref())));
            true
        })?;
        if let Some((number, head)) = last {
            (self.last, self.head) = (number.max(self.last), head);
        }
        Ok(whole)
    }

    /// Begins a new file, and removes the oldest ones.
    fn close(&mut self) -> io::Result<()> {
        let current = self.directory.join(CURRENT);
        let mut first = self.last;
        each_line(&current, |line| {
            first = number(line);
            false
        })?;
        self.file = None;
        fs::rename(&current, self.directory.join(format!("audit-{first:012}.log")))?;
        let closed = self.closed()?;
        for old in &closed[..closed.len().saturating_sub(self.policy.files)] {
            fs::remove_file(old)?;
        }
        self.reopen()
    }

    /// Closed files, the oldest first.
    fn closed(&self) -> io::Result<Vec<PathBuf>> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.strip_prefix("audit-").and_then(|rest| rest.strip_suffix(".log")).is_some_and(is_number) {
                closed.push(entry.path());
            }
        }
        closed.sort();
        Ok(closed)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a line does not follow what was found before it.
fn problem(found: &AuditVerification, line: &[u8], path: &Path) -> Option<String> {
    let place = |what: &str| {
        let after = found.last.map_or_else(String::new, |last| format!(", after line {last}"));
        Some(format!("{}{after}: {what}", path.display()))
    };
    let Ok(entry) = serde_json::from_slice::<AuditEntry>(line) else { return place("not a line of the log") };
    match found.last {
        Some(last) if entry.seq != last + 1 => place(&format!("line {} follows", entry.seq)),
        Some(_) if entry.previous != found.head => place("the line before was changed"),
        None if entry.seq == 1 && entry.previous != origin() => place("the first line has another before it"),
        Some(_) | None => None,
    }
}

/// The number of a line; 0 when it has none.
fn number(line: &[u8]) -> u64 {
    serde_json::from_slice::<AuditEntry>(line).map_or(0, |entry| entry.seq)
}

/// Calls for each whole line of a file, until told to stop. A file that is not there has none.
fn each_line(path: &Path, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let Some(whole) = line.strip_suffix(b"\n") else { return Ok(()) };
        if !each(whole) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { file_size: 2000, files: 3 };

    fn entry(what: &str) -> AuditEntry {
        AuditEntry { at_s: 1000, who: "ann".into(), from: "socket".into(), what: what.into(), ..AuditEntry::default() }
    }

    fn log(dir: &Path, lines: usize) -> AuditLog {
        let mut log = AuditLog::open(dir, POLICY).unwrap();
        (0..lines).for_each(|n| log.append(entry(&format!("line {n}"))).unwrap());
        log
    }

    #[test]
    fn lines_are_chained_over_files_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        drop(log(dir.path(), 10));
        let log = log(dir.path(), 5);
        let verified = log.verify().unwrap();
        assert_eq!((verified.intact, verified.entries, verified.last), (true, 15, Some(15)), "{verified:?}");
        assert!(!log.closed().unwrap().is_empty(), "small files were closed");
        let page = log.page(None, 4).unwrap();
        assert_eq!(page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [12, 13, 14, 15]);
        let page = log.page(page.next_before, 100).unwrap();
        assert_eq!((page.entries.len(), page.next_before), (11, None));
    }

    #[test]
    fn the_oldest_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 100);
        assert_eq!(log.closed().unwrap().len(), POLICY.files);
        let verified = log.verify().unwrap();
        assert!(verified.intact && verified.first.unwrap() > 1 && verified.last == Some(100), "{verified:?}");
    }

    #[test]
    fn any_change_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 4);
        let path = dir.path().join(CURRENT);
        let good = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let changes = [
            ("a word", good.replacen("line 1", "line X", 1)),
            ("a line less", [lines[0], lines[2], lines[3], ""].join("\n")),
            ("the first less", [lines[1], lines[2], lines[3].replace('l', "m").as_str(), ""].join("\n")),
            ("the last less", [lines[0], lines[1], lines[2], ""].join("\n")),
            ("two swapped", [lines[0], lines[2], lines[1], lines[3], ""].join("\n")),
            ("nothing left", String::new()),
            ("rubbish", format!("{good}rubbish\n")),
        ];
        for (name, text) in changes {
            fs::write(&path, text).unwrap();
            let verified = log.verify().unwrap();
            assert!(!verified.intact && verified.problem.is_some(), "{name}: {verified:?}");
        }
        fs::write(&path, &good).unwrap();
        assert!(log.verify().unwrap().intact);
    }

    #[test]
    fn a_line_cut_short_by_a_crash_is_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        drop(log(dir.path(), 3));
        let path = dir.path().join(CURRENT);
        let whole = fs::read(&path).unwrap();
        for cut in [1, 10, 50] {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut log = AuditLog::open(dir.path(), POLICY).unwrap();
            assert_eq!(log.last, 2);
            log.append(entry("again")).unwrap();
            assert!(log.verify().unwrap().intact);
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn texts_cannot_break_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 0);
        log.append(entry("x\n{\"seq\":9}\r\u{1b}[31m\0")).unwrap();
        let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\u{1b}') && log.verify().unwrap().intact);
    }
}
