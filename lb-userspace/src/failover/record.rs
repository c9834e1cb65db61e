//! `raised.json`: the addresses lbd has added, so that the lbd after it knows which are its own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, RaisedVip};

const NAME: &str = "raised.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    raised: BTreeSet<RaisedVip>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Record {
    directory: PathBuf,
}

impl Record {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// What was recorded; nothing when there is no file.
    pub(super) fn read(&self) -> Result<BTreeSet<RaisedVip>, Error> {
        let text = match fs::read(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(self.error(error)),
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| self.error(error.into()))?;
        if content.version != VERSION {
            return Err(self.error(io::Error::other(format!("version {} is not {VERSION}", content.version))));
        }
        Ok(content.raised)
    }

    /// Replaces it as a whole: a crash of lbd leaves the old or the new one. It is not forced to disk, which could take longer
    /// than a failover: a machine that has lost its power has lost the addresses as well.
    pub(super) fn write(&self, raised: BTreeSet<RaisedVip>) -> Result<(), Error> {
        self.replace(&Content { version: VERSION, raised }).map_err(|error| self.error(error))
    }

    fn replace(&self, content: &Content) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let fresh = self.directory.join(format!("{NAME}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        fs::rename(fresh, self.path())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Record { path: self.path(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_broken_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let record = Record::new(&directory.path().join("lb"));
        assert_eq!(record.read().expect("no file is no error"), BTreeSet::new());

        let vip = |address: &str| RaisedVip { address: address.parse().expect("an address"), interface: "eth0".into() };
        let raised = BTreeSet::from([vip("192.0.2.10"), vip("2001:db8::10")]);
        record.write(raised.clone()).expect("makes the directory");
        assert_eq!(record.read().expect("just written"), raised);
        record.write(BTreeSet::new()).expect("replaces it");
        assert_eq!(record.read().expect("just written"), BTreeSet::new());

        for broken in ["", "{", r#"{"version":2,"raised":[]}"#, r#"{"version":1,"raised":[{"address":"x"}]}"#] {
            fs::write(record.path(), broken).expect("writes");
            let error = record.read().expect_err(broken).to_string();
            assert!(error.contains("raised.json"), "{error}");
        }
    }
}
