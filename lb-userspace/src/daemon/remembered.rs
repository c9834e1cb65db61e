//! What is kept over a restart, each in a file of the state directory that is replaced whole and atomically: what
//! operators set at run time, and which nodes were down. A file that cannot be read is put aside and never stops lbd.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

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
    /// What an earlier lbd left; nothing when there is none.
    pub(super) fn load(state_dir: &Path, file: &str) -> Self {
        let path = state_dir.join(file);
        let saved = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                put_aside(&path, &error);
                T::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => T::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was known before the restart cannot be read");
                T::default()
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
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // Only then does the new name survive a power cut.
        File::open(directory)?.sync_all()?;
        self.saved = value.clone();
        Ok(())
    }
}

fn put_aside(path: &Path, error: &serde_json::Error) {
    let aside = path.with_extension("json.broken");
    let moved = fs::rename(path, &aside);
    tracing::warn!(
        path = %path.display(), %error, aside = %aside.display(), moved = moved.is_ok(),
        "what was known before the restart is not readable and is forgotten"
    );
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
        let set = Override { value: Forwarding::Nat, configured: Forwarding::Dsr };
        let overrides = Overrides { pools: [("web".to_owned(), set)].into(), ..Overrides::default() };
        remembered.save(&overrides).unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&state_dir, OVERRIDES).value(), overrides);

        fs::write(state_dir.join(OVERRIDES), "{\"pools\": {\"web\"").unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&state_dir, OVERRIDES).value(), Overrides::default());
        assert!(state_dir.join("overrides.json.broken").exists());
        assert!(!state_dir.join(OVERRIDES).exists());
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_next_save_tries_again() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("state");
        fs::write(&blocked, "not a directory").unwrap();
        let mut remembered = Remembered::<Overrides>::load(&blocked, OVERRIDES);
        let set = Override { value: Forwarding::Nat, configured: Forwarding::Dsr };
        let overrides = Overrides { pools: [("web".to_owned(), set)].into(), ..Overrides::default() };
        assert!(remembered.save(&overrides).is_err());
        fs::remove_file(&blocked).unwrap();
        remembered.save(&overrides).unwrap();
        assert_eq!(*Remembered::<Overrides>::load(&blocked, OVERRIDES).value(), overrides);
    }
}
