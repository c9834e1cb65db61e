//! What is kept over a restart, each in a file of the state directory that is replaced whole and atomically: what
//! operators set at run time, and which nodes were down. A damaged file is put aside and never stops lbd.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::state_file;

/// What operators set at run time: `control::state::Overrides`.
pub(super) const OVERRIDES: &str = "overrides.json";

/// What monitors say is down: a list of [`Down`]. Without it, a restart would send connections to dead nodes until the
/// monitors have made up their minds again.
pub(super) const DOWN: &str = "down.json";

/// What DNS names of nodes stand for. Without it, nodes would have no address until their names were looked up again.
pub(super) const NAMES: &str = "names.json";

/// A monitor's word on a node that is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Down {
    pub(super) pool: String,
    pub(super) node: String,
    pub(super) monitor: String,
    pub(super) reason: Option<String>,
}

/// A value and the file that keeps it.
#[derive(Debug)]
pub(super) struct Remembered<T> {
    path: PathBuf,
    saved: T,
}

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> Remembered<T> {
    /// What an earlier lbd left; nothing when there is none. Of a damaged file, what it replaced is taken.
    pub(super) fn load(state_dir: &Path, file: &str) -> Self {
        let path = state_dir.join(file);
        let saved = match read(&path) {
            Ok(Some(value)) => value,
            Ok(None) => T::default(),
            Err(why) => {
                let older = read(&previous(&path)).ok().flatten();
                let aside = state_file::put_aside(&path);
                tracing::error!(
                    path = %path.display(), why, moved = aside.is_ok(), last_good = older.is_some(),
                    "what was known before the restart is damaged: it is put aside, and what was known before that is taken"
                );
                older.unwrap_or_default()
            }
        };
        Self { path, saved }
    }

    /// The value as it is in the file.
    pub(super) fn value(&self) -> &T {
        &self.saved
    }

    /// Keeps a value, when it is another one than before.
    pub(super) fn save(&mut self, value: &T) -> io::Result<()> {
        if self.saved == *value {
            return Ok(());
        }
        fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
        let prepared = state_file::prepare(&self.path, &state_file::seal(&serde_json::to_vec_pretty(value)?))?;
        self.keep_previous()?;
        prepared.commit()?;
        self.saved = value.clone();
        Ok(())
    }

    /// A second name for what is replaced, should its successor be damaged.
    fn keep_previous(&self) -> io::Result<()> {
        let previous = previous(&self.path);
        let unless_missing = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        unless_missing(fs::remove_file(&previous))?;
        unless_missing(fs::hard_link(&self.path, &previous))
    }
}

/// The value in a file; `None`: there is no file. Files of the first lbds have no checksum.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let unsealed = match bytes.first() {
        Some(b'{' | b'[') => &bytes,
        Some(_) | None => state_file::unseal(&bytes).ok_or("its checksum is another")?,
    };
    serde_json::from_slice(unsealed).map(Some).map_err(|error| error.to_string())
}

fn previous(path: &Path) -> PathBuf {
    path.with_extension("json.previous")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        plan::Forwarding,
        state::{Override, Overrides},
    };

    #[test]
    fn overrides_survive_a_restart_and_a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let mut remembered = Remembered::<Overrides>::load(&state_dir, OVERRIDES);
        assert_eq!(*remembered.value(), Overrides::default());
        let set = Override { value: Forwarding::Nat, configured: Forwarding::Dsr, until: None };
        let overrides = Overrides { pools: [("web".to_owned(), set)].into(), ..Overrides::default() };
        remembered.save(&overrides).unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&state_dir, OVERRIDES).value(), overrides);

        fs::write(state_dir.join(OVERRIDES), "{\"pools\": {\"web\"").unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&state_dir, OVERRIDES).value(), Overrides::default());
        assert!(state_dir.join("overrides.json.damaged").exists());
        assert!(!state_dir.join(OVERRIDES).exists());
    }

    #[test]
    fn whatever_damage_is_seen_and_the_last_good_value_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let names = |name: &str| vec![name.to_owned()];
        let mut remembered = Remembered::<Vec<String>>::load(dir.path(), "names.json");
        remembered.save(&names("first")).unwrap();
        remembered.save(&names("second")).unwrap();
        let path = dir.path().join("names.json");
        let good = fs::read(&path).unwrap();
        let damaged = |at: usize, length: usize| {
            let mut bytes = good[..length].to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
            bytes
        };
        let cut = (0..good.len()).map(|length| damaged(length, length));
        let flipped = (0..good.len()).map(|at| damaged(at, good.len()));
        for bytes in cut.chain(flipped).chain([vec![0; good.len()]]) {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(*Remembered::<Vec<String>>::load(dir.path(), "names.json").value(), names("first"), "{bytes:?}");
        }
    }

    #[test]
    fn files_of_the_first_lbds_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("names.json"), "[\"a\"]").unwrap();
        assert_eq!(*Remembered::<Vec<String>>::load(dir.path(), "names.json").value(), ["a"]);
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_next_save_tries_again() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("state");
        fs::write(&blocked, "not a directory").unwrap();
        let mut remembered = Remembered::<Overrides>::load(&blocked, OVERRIDES);
        let set = Override { value: Forwarding::Nat, configured: Forwarding::Dsr, until: None };
        let overrides = Overrides { pools: [("web".to_owned(), set)].into(), ..Overrides::default() };
        assert!(remembered.save(&overrides).is_err());
        fs::remove_file(&blocked).unwrap();
        remembered.save(&overrides).unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&blocked, OVERRIDES).value(), overrides);
    }
}
