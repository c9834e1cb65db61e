//! `lbctl support-bundle`: one archive with what a helper at a distance wants to see, and no secret in it. It is made also
//! when lbd does not answer: then above all.
//!
//! What is not there, or does not answer, is named in `missing.txt`. Requests and their headers are left out altogether;
//! of configuration and answers, values are replaced whose keys say that they are secret ([`redact`]).

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};

use super::{
    client::{Answer, Client},
    failure::Failure,
    output::Output,
};
use crate::control::{api::Empty, redact};

/// What is asked of lbd.
const ANSWERS: [&str; 12] = [
    "status",
    "virtual_servers",
    "pools",
    "nodes",
    "vips",
    "certificates",
    "maps",
    "stats",
    "events",
    "alerts",
    "revisions",
    "connections?limit=1000",
];

/// What is asked of the system: the file in the archive, and the command line.
const COMMANDS: [(&str, &[&str]); 10] = [
    ("uname.txt", &["uname", "-a"]),
    ("lbd-version.txt", &["lbd", "--version"]),
    ("links.json", &["ip", "-d", "-s", "-j", "link", "show"]),
    ("addresses.json", &["ip", "-j", "address", "show"]),
    ("routes4.json", &["ip", "-4", "-j", "route", "show", "table", "all"]),
    ("routes6.json", &["ip", "-6", "-j", "route", "show", "table", "all"]),
    ("neighbours.json", &["ip", "-s", "-j", "neighbour", "show"]),
    ("unit.txt", &["systemctl", "show", "lbd"]),
    ("journal.txt", &["journalctl", "--unit", "lbd", "--no-pager", "--lines", "5000", "--output", "short-iso-precise"]),
    ("kernel.txt", &["dmesg", "--ctime", "--level", "emerg,alert,crit,err,warn"]),
];

/// Files of the system that are copied.
const FILES: [&str; 7] = [
    "/etc/os-release",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/interrupts",
    "/proc/softirqs",
    "/proc/net/softnet_stat",
    "/proc/net/snmp",
];

/// The most that one entry may have: an archive is for mailing.
const MAX_ENTRY: usize = 16 << 20;

/// Makes the archive: mode 0600, and never over a file that is there.
pub(super) fn run(client: &Client, config: &Path, file: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let file = file.unwrap_or_else(|| PathBuf::from(format!("lb-support-{}.tar.gz", stamp())));
    let failed = |source| Failure::File { path: file.clone(), source };
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    let mut bundle = Bundle::new(target);
    bundle.answers(client);
    bundle.configuration(config);
    bundle.system();
    let missing = bundle.finish().map_err(failed)?;
    output.print(&file.display().to_string())?;
    if missing > 0 {
        output.note(&format!("{missing} things could not be had; missing.txt in the archive says which and why"));
    }
    output.note("Secrets are left out as far as their names tell; look into it before you send it.");
    Ok(())
}

/// Seconds since 1970: unique enough for a name, and sorts.
fn stamp() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The archive in the making.
struct Bundle<W: Write> {
    archive: tar::Builder<GzEncoder<W>>,
    missing: Vec<String>,
    /// The first error of the archive itself: all that follows is in vain.
    broken: Option<std::io::Error>,
}

impl<W: Write> Bundle<W> {
    fn new(target: W) -> Self {
        let archive = tar::Builder::new(GzEncoder::new(target, Compression::default()));
        Self { archive, missing: Vec::new(), broken: None }
    }

    fn answers(&mut self, client: &Client) {
        for path in ANSWERS {
            self.answer(path.split('?').next().unwrap_or(path), client.get(path));
        }
        self.answer("doctor", client.post("doctor", &Empty {}));
        match client.text("/metrics") {
            Ok(text) => self.add("lbd/metrics.txt", text.as_bytes()),
            Err(error) => self.miss("lbd/metrics.txt", &error),
        }
    }

    fn answer(&mut self, what: &str, answer: Result<Answer<serde_json::Value>, Failure>) {
        let name = format!("lbd/{what}.json");
        match answer {
            Ok(mut answer) => {
                redact::json(&mut answer.value);
                self.add(&name, format!("{:#}\n", answer.value).as_bytes());
            }
            Err(error) => self.miss(&name, &error),
        }
    }

    fn configuration(&mut self, config: &Path) {
        let fragments = fs::read_dir(config.parent().unwrap_or(Path::new("")).join("conf.d"));
        let fragments = fragments.into_iter().flatten().flatten().map(|entry| entry.path());
        for path in [config.to_owned()].into_iter().chain(fragments) {
            let name = format!("config/{}", path.file_name().unwrap_or_default().to_string_lossy());
            match fs::read_to_string(&path) {
                Ok(text) => match redact::toml(&text) {
                    Ok(text) => self.add(&name, text.as_bytes()),
                    // Its error repeats the text.
                    Err(_) => {
                        self.miss(&name, &"not TOML, so that secrets cannot be told from the rest; see lbctl check")
                    }
                },
                Err(error) => self.miss(&name, &error),
            }
        }
    }

    fn system(&mut self) {
        for (name, line) in COMMANDS {
            let name = format!("system/{name}");
            let Some((program, arguments)) = line.split_first() else { continue };
            match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
                Ok(done) if done.status.success() => self.add(&name, &done.stdout),
                Ok(done) => self.miss(&name, &String::from_utf8_lossy(&done.stderr).trim()),
                Err(error) => self.miss(&name, &error),
            }
        }
        for path in FILES {
            let name = format!("system{path}");
            match fs::read(path) {
                Ok(bytes) => self.add(&name, &bytes),
                Err(error) => self.miss(&name, &error),
            }
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        // The end of a log says more than its beginning.
        let bytes = &bytes[bytes.len().saturating_sub(MAX_ENTRY)..];
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(stamp());
        self.broken = self.archive.append_data(&mut header, format!("lb-support/{name}"), bytes).err();
    }

    fn miss(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.missing.push(format!("{name}: {why}\n"));
    }

    /// How much is missing.
    fn finish(mut self) -> std::io::Result<usize> {
        self.add("missing.txt", self.missing.concat().as_bytes());
        match self.broken {
            Some(error) => Err(error),
            None => self.archive.into_inner()?.finish()?.flush().map(|()| self.missing.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use flate2::read::GzDecoder;

    use super::*;

    /// In every place where a secret may be.
    const CANARY: &str = "CANARY-7f3a";

    fn entries(file: &Path) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(file).unwrap()));
        let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), String::from_utf8_lossy(&bytes).into_owned())
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn without_lbd_there_is_a_bundle_too_and_no_secret_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("lb.toml");
        let text = format!(
            "version = 1\n# {CANARY}\n[dataplane]\nring_seed = \"{CANARY}\"\n[interface.eth0]\n\
             [[virtual_server.site.rule]]\nthen = [{{ set_header = {{ Authorization = \"Bearer {CANARY}\", X-A = \"kept\" }} }}]\n\
             [alert.hook]\nurl = \"https://user:{CANARY}@example.com/{CANARY}?token={CANARY}\"\n"
        );
        fs::write(&config, text).unwrap();
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        fs::write(dir.path().join("conf.d/more.toml"), format!("broken = {CANARY}")).unwrap();
        let client = Client::new(dir.path().join("none.sock")).unwrap();
        let file = dir.path().join("bundle.tar.gz");
        run(&client, &config, Some(file.clone()), &Output::new(None)).unwrap();

        let entries = entries(&file);
        let missing = &entries["lb-support/missing.txt"];
        assert!(missing.contains("lbd/status.json: lbd does not answer"), "{missing}");
        assert!(missing.contains("config/more.toml"), "{missing}");
        assert!(entries["lb-support/config/lb.toml"].contains("kept"), "{entries:?}");
        assert!(entries["lb-support/system/uname.txt"].contains("Linux"));
        for (name, text) in &entries {
            assert!(!text.contains(CANARY), "{name} has a secret: {text}");
        }
        // A file that is there stays.
        assert!(run(&client, &config, Some(file), &Output::new(None)).is_err());
    }
}
