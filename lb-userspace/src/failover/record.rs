//! `raised.json`: the addresses lbd has added, so that the lbd after it knows which are its own, and what it has to put back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, RaisedVip, virtual_mac::Arp};

const NAME: &str = "raised.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(flatten)]
    own: Own,
}

/// What lbd has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Addresses that it has added.
    pub raised: BTreeSet<RaisedVip>,
    /// How interfaces answered ARP before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arp: BTreeMap<String, Arp>,
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
    pub(super) fn read(&self) -> Result<Own, Error> {
        let text = match fs::read(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Own::default()),
            Err(error) => return Err(self.error(error)),
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| self.error(error.into()))?;
        if content.version != VERSION {
            return Err(self.error(io::Error::other(format!("version {} is not {VERSION}", content.version))));
        }
        Ok(content.own)
    }

    /// Replaces it as a whole: a crash of lbd leaves the old or the new one. It is not forced to disk, which could take longer
    /// than a failover: a machine that has lost its power has lost the addresses as well.
    pub(super) fn write(&self, own: Own) -> Result<(), Error> {
        self.replace(&Content { version: VERSION, own }).map_err(|error| self.error(error))
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
        assert_eq!(record.read().expect("no file is no error"), Own::default());

        let vip = |address: &str, virtual_mac| {
            let address = address.parse().expect("an address");
            RaisedVip { address, interface: "eth0".into(), virtual_mac }
        };
        let raised = BTreeSet::from([vip("192.0.2.10", None), vip("2001:db8::10", Some([0, 0, 0x5e, 0, 2, 1]))]);
        let own = Own { raised, arp: [("eth0".to_owned(), Arp { ignore: 0, announce: 1 })].into() };
        record.write(own.clone()).expect("makes the directory");
        assert_eq!(record.read().expect("just written"), own);
        record.write(Own::default()).expect("replaces it");
        assert_eq!(record.read().expect("just written"), Own::default());

        let older = r#"{"version":1,"raised":[{"address":"192.0.2.10","interface":"eth0"}]}"#;
        fs::write(record.path(), older).expect("writes");
        let expected = Own { raised: [vip("192.0.2.10", None)].into(), arp: BTreeMap::new() };
        assert_eq!(record.read().expect("of an lbd before virtual MAC addresses"), expected);

        for broken in ["", "{", r#"{"version":2,"raised":[]}"#, r#"{"version":1,"raised":[{"address":"x"}]}"#] {
            fs::write(record.path(), broken).expect("writes");
            let error = record.read().expect_err(broken).to_string();
            assert!(error.contains("raised.json"), "{error}");
        }
    }
}
