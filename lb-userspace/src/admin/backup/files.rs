//! The files of a backup on their way back: only those that the restored configuration names, only below the directory of the
//! configuration, never through a symbolic link; all of them or none.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::archive::SavedFile;
use crate::{
    config::{Config, files},
    state_file::{replace, unhex},
};

/// Where a file is to be, and what is to be in it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    content: Vec<u8>,
    /// `None`: there is none.
    before: Option<Vec<u8>>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wanted({})", self.path.display())
    }
}

impl Wanted {
    /// Whether the file is as it is to be.
    pub(super) fn is_there(&self) -> bool {
        self.before.as_ref() == Some(&self.content)
    }
}

/// What is to be done with the files of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) wanted: Vec<Wanted>,
    /// Files that must be copied by hand, and why.
    pub(super) left: Vec<String>,
}

/// Looks at each file of an archive; changes nothing.
///
/// # Errors
/// What is wrong with the first that has no business in an archive.
pub(super) fn plan(saved: &[SavedFile], config: &Config, directory: &Path) -> Result<Plan, String> {
    let named: Vec<&Path> = files::paths(config);
    let mut plan = Plan::default();
    for SavedFile { path, content } in saved {
        let shown = path.display();
        let plain = path.is_absolute()
            && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain || !named.iter().any(|known| known.as_os_str() == path.as_os_str()) {
            return Err(format!("the archive has {shown}, which its configuration does not name"));
        }
        let content =
            unhex(content).ok_or_else(|| format!("the archive has {shown} in a form that is not understood"))?;
        if let Some(why) = obstacle(path, directory) {
            plan.left.push(format!("{shown}: {why}"));
            continue;
        }
        let before = match fs::read(path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        plan.wanted.push(Wanted { path: path.clone(), content, before });
    }
    Ok(plan)
}

/// Why a file is not written.
fn obstacle(path: &Path, directory: &Path) -> Option<String> {
    let Ok(rest) = path.strip_prefix(directory) else {
        return Some(format!("it is not below {}: copy it by hand", directory.display()));
    };
    let mut at = directory.to_owned();
    for part in rest.components() {
        at.push(part);
        if fs::symlink_metadata(&at).is_ok_and(|found| found.file_type().is_symlink()) {
            return Some(format!("{} is a symbolic link: copy it by hand", at.display()));
        }
    }
    None
}

/// Writes the files.
///
/// # Errors
/// When one cannot be written; the others are as they were then.
pub(super) fn write(wanted: &[Wanted]) -> Result<(), String> {
    for (done, file) in wanted.iter().enumerate() {
        if !file.is_there()
            && let Err(error) = replace(&file.path, &file.content)
        {
            undo(&wanted[..done]);
            return Err(format!("cannot write {}: {error}; nothing was changed", file.path.display()));
        }
    }
    Ok(())
}

/// Puts back what was there.
pub(super) fn undo(written: &[Wanted]) {
    for file in written.iter().filter(|file| !file.is_there()) {
        let undone = match &file.before {
            Some(before) => replace(&file.path, before),
            None => fs::remove_file(&file.path),
        };
        if let Err(error) = undone {
            tracing::error!(path = %file.path.display(), %error, "a file of a refused backup stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::state_file::hex;

    fn config(dir: &Path, chain: &str, key: &str) -> Config {
        let text = format!("version = 1\n[certificate.a]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
        Config::parse(&dir.join("lb.toml").display().to_string(), &text).unwrap()
    }

    fn saved(path: &str) -> SavedFile {
        SavedFile { path: path.into(), content: hex(b"new") }
    }

    #[test]
    fn files_come_back_and_go_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = config(dir.path(), &path("a.pem"), &path("tls/a.key"));
        fs::write(path("a.pem"), "old").unwrap();
        let plan = plan(&[saved(&path("a.pem")), saved(&path("tls/a.key"))], &config, dir.path()).unwrap();
        write(&plan.wanted).unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).ok();
        assert_eq!((read("a.pem").as_deref(), read("tls/a.key").as_deref()), (Some("new"), Some("new")));
        undo(&plan.wanted);
        assert_eq!((read("a.pem").as_deref(), read("tls/a.key")), (Some("old"), None));
        // Something stands where the second would be: the first is as it was.
        fs::create_dir_all(path("tls/a.key/x")).unwrap();
        let blocked = Wanted { path: path("tls/a.key").into(), content: b"new".to_vec(), before: None };
        assert!(write(&[plan.wanted[0].clone(), blocked]).is_err());
        assert_eq!(read("a.pem").as_deref(), Some("old"));
    }

    #[test]
    fn nothing_is_written_that_has_no_business_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let named = config(dir.path(), &path("a.pem"), "/etc/cron.d/evil");
        for hostile in
            [path("other.pem"), path("../a.pem"), path("./a.pem"), "a.pem".into(), "/etc/passwd".into(), String::new()]
        {
            assert!(plan(&[saved(&hostile)], &named, dir.path()).is_err(), "{hostile}");
        }
        let outside = plan(&[saved("/etc/cron.d/evil")], &named, dir.path()).unwrap();
        assert!(outside.wanted.is_empty() && outside.left.len() == 1, "{outside:?}");
        let target = dir.path().join("elsewhere");
        fs::write(&target, "precious").unwrap();
        symlink(&target, path("a.pem")).unwrap();
        let linked = plan(&[saved(&path("a.pem"))], &named, dir.path()).unwrap();
        assert!(linked.wanted.is_empty() && linked.left.len() == 1, "{linked:?}");
        assert_eq!(fs::read_to_string(target).unwrap(), "precious");
        let broken = SavedFile { path: path("a.pem").into(), content: "zz".into() };
        assert!(plan(&[broken], &named, dir.path()).is_err());
    }
}
