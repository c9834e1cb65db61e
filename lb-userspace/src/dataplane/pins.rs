//! The directory in the BPF file system that outlives the daemon: `maps/NAME`, `programs/IFNAME`, `programs/explain`,
//! `links/IFNAME`, and in `builds` a note about each program. Finds out whether it is empty, ours to adopt, or somebody else's, and never changes what it refuses.
//!
//! Two daemons never share it: the directory itself is locked (`flock`) as long as [`PinDirectory`] lives.

mod look;
mod passage;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError};
use lb_common::maps::{LAYOUT_VERSION, META_MAGIC, Meta};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{
    load::{self, LoadError, Shape},
    maps::NAMES,
};

/// Where the BPF file system belongs; mounted there by us when nobody did.
const USUAL_MOUNT: &str = "/sys/fs/bpf";

/// The directory of maps that are on their way.
const NEW: &str = "new";

/// `BPF_F_RDONLY_PROG`: the kernel adds it to device maps by itself.
const RDONLY_PROG: u32 = 1 << 7;

/// Why the pin directory cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not in a BPF file system.
    #[error(
        "{path} is not in a BPF file system: mount one with `mount -t bpf bpf {mount_point}`, or set dataplane.pin_dir to a directory in one"
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
        /// Where to mount it.
        mount_point: PathBuf,
    },
    /// Another lbd has it.
    #[error(
        "{path} is in use by another lbd (process {pid}): stop that one first, or give this one its own dataplane.pin_dir"
    )]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Process id, or `unknown`.
        pid: String,
    },
    /// Something there is not what we would have put there.
    #[error(
        "{path}: expected {expected}, found {found}. Nothing was changed. If forwarding by these pins may stop, remove them with `rm -r {directory}` and start lbd again"
    )]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
        /// The pin directory.
        directory: PathBuf,
    },
    /// A file or directory of another user.
    #[error(
        "{path} belongs to user {uid}, not to root, or others may write to it: it is not adopted. Nothing was changed. Remove it with `rm -r {path}` if it is not needed"
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The object built into this daemon is broken.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file operation failed.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("{path}: {source}")]
    Map {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PinsError {
    move |source| PinsError::Io { path: path.to_owned(), action, source }
}

/// The locked pin directory.
#[derive(Debug)]
pub struct PinDirectory {
    path: PathBuf,
    /// Held for its lock.
    _lock: Option<Flock<File>>,
}

impl PinDirectory {
    /// Makes the directory if it is not there, locks it, and clears away what an earlier daemon did not finish.
    ///
    /// # Errors
    /// See [`PinsError`].
    pub fn open(path: &Path) -> Result<Self, PinsError> {
        let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            mount_usual(path)?;
        }
        if !path.exists() {
            make_directory(path)?;
        }
        check_owner(path)?;
        let file = File::open(path).map_err(io_error(path, "open"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                return PinsError::Busy { path: path.to_owned(), pid: holder(&file) };
            }
            io_error(path, "lock")(errno.into())
        })?;
        Ok(Self { path: path.to_owned(), _lock: Some(lock) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the maps are.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.path.join("maps")
    }

    /// Where maps are made before all of them are there.
    fn new_maps(&self) -> PathBuf {
        self.path.join(NEW)
    }

    /// The pin of the program of an interface.
    #[must_use]
    pub fn program(&self, interface: &str) -> PathBuf {
        self.path.join("programs").join(pin_name(interface))
    }

    /// The pin of the explaining twin.
    #[must_use]
    pub fn explain(&self) -> PathBuf {
        self.path.join("programs").join("explain")
    }

    /// The pin of the link of an interface.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.path.join("links").join(pin_name(interface))
    }

    /// What was noted about the program pinned at `program` ([`PinDirectory::set_build`]).
    #[must_use]
    pub fn build(&self, program: &Path) -> Option<String> {
        let note = fs::read_link(self.note(program)?).ok()?;
        Some(note.to_string_lossy().into_owned())
    }

    /// Notes where a pinned program came from: as the target of a symbolic link, which is all the text that a BPF file
    /// system holds.
    ///
    /// # Errors
    /// A file operation.
    pub fn set_build(&self, program: &Path, text: &str) -> Result<(), PinsError> {
        self.forget_build(program)?;
        let Some(note) = self.note(program) else { return Ok(()) };
        std::os::unix::fs::symlink(text, &note).map_err(io_error(&note, "make the symbolic link"))
    }

    /// Removes that note.
    ///
    /// # Errors
    /// A file operation.
    pub fn forget_build(&self, program: &Path) -> Result<(), PinsError> {
        let Some(note) = self.note(program) else { return Ok(()) };
        match fs::remove_file(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&note, "remove")(error)),
            _ => Ok(()),
        }
    }

    fn note(&self, program: &Path) -> Option<PathBuf> {
        Some(self.path.join("builds").join(program.file_name()?))
    }

    /// Interfaces that have a pinned link.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked(&self) -> Result<Vec<String>, PinsError> {
        let directory = self.path.join("links");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        Ok(entries(&directory)?.iter().map(|name| interface_of(name)).collect())
    }

    /// `META` of the maps pinned here, after checking that everything is ours and fits the object; `None`: there are none.
    ///
    /// # Errors
    /// `Foreign` or `Owner` for the first thing that is not as it should be.
    pub fn adoptable(&self) -> Result<Option<Meta>, PinsError> {
        for name in entries(&self.path)? {
            if !["maps", "programs", "builds", "links", NEW].contains(&name.as_str()) {
                return Err(self.foreign(self.path.join(name), "pins of lbd only".into(), "an unknown name".into()));
            }
        }
        for directory in ["programs", "builds", "links"].map(|name| self.path.join(name)) {
            if directory.exists() {
                check_owner(&directory)?;
                for name in entries(&directory)? {
                    check_owner(&directory.join(name))?;
                }
            }
        }
        if !self.maps().exists() {
            return match self.linked()?.first() {
                None => Ok(None),
                Some(name) => {
                    Err(self.foreign(self.link(name), "no link without maps".into(), "a link of unknown maps".into()))
                }
            };
        }
        let meta = self.read_meta()?;
        self.check_maps(&meta)?;
        Ok(Some(meta))
    }

    fn read_meta(&self) -> Result<Meta, PinsError> {
        check_owner(&self.maps())?;
        let path = self.maps().join("META");
        if !path.exists() {
            return Err(self.foreign(path, "lbd's META map".into(), "nothing".into()));
        }
        check_owner(&path)?;
        let failed = |source| PinsError::Map { path: path.clone(), source };
        let read = MapData::from_pin(&path).and_then(Map::from_map_data).map_err(failed)?;
        let Ok(array) = Array::<MapData, Meta>::try_from(read) else {
            return Err(self.foreign(path, format!("an array of {} bytes", size_of::<Meta>()), "another map".into()));
        };
        let meta = array.get(&0, 0).map_err(failed)?;
        if meta.magic != META_MAGIC {
            return Err(self.foreign(path, "lbd's mark".into(), format!("{:#018x}", meta.magic)));
        }
        if meta.layout_version != LAYOUT_VERSION {
            let (expected, found) = (LAYOUT_VERSION, meta.layout_version);
            return Err(self.foreign(
                path,
                format!("map layout {expected}"),
                format!("layout {found} of another lbd version"),
            ));
        }
        Ok(meta)
    }

    fn check_maps(&self, meta: &Meta) -> Result<(), PinsError> {
        let directory = self.maps();
        for name in entries(&directory)? {
            if !NAMES.contains(&name.as_str()) {
                return Err(self.foreign(directory.join(name), "maps of lbd only".into(), "an unknown map".into()));
            }
        }
        for (name, expected) in load::declared(meta)? {
            let path = directory.join(name);
            if !path.exists() {
                return Err(self.foreign(path, describe(&expected), "nothing".into()));
            }
            check_owner(&path)?;
            let info = MapData::from_pin(&path).and_then(|map| map.info());
            let info = info.map_err(|source| PinsError::Map { path: path.clone(), source })?;
            let found = Shape {
                map_type: info.map_type().map_or(u32::MAX, |kind| kind as u32),
                key_size: info.key_size(),
                value_size: info.value_size(),
                max_entries: info.max_entries(),
                flags: info.map_flags(),
            };
            if comparable(found) != comparable(expected) {
                return Err(self.foreign(path, describe(&expected), describe(&found)));
            }
        }
        Ok(())
    }

    fn foreign(&self, path: PathBuf, expected: String, found: String) -> PinsError {
        PinsError::Foreign { path, expected, found, directory: self.path.clone() }
    }

    /// Makes all maps: `make` is given a directory to create and pin them in, and `META` is written. They appear in
    /// [`PinDirectory::maps`] all at once, or not at all.
    ///
    /// # Errors
    /// What `make` says, or a file operation.
    pub fn create_maps<T, E: From<PinsError>>(
        &self,
        meta: &Meta,
        make: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let new = self.new_maps();
        remove_all(&new)?;
        make_directory(&new)?;
        let made = make(&new).and_then(|made| {
            write_meta(&new.join("META"), meta)?;
            fs::rename(&new, self.maps()).map_err(io_error(&new, "rename"))?;
            Ok(made)
        });
        if made.is_err() {
            remove_all(&new)?;
        }
        made
    }

    /// Makes the directories for programs and links.
    ///
    /// # Errors
    /// A file operation.
    pub fn make_directories(&self) -> Result<(), PinsError> {
        for directory in ["programs", "builds", "links"].map(|name| self.path.join(name)) {
            if !directory.exists() {
                make_directory(&directory)?;
            }
        }
        Ok(())
    }

    /// Unpins everything: links (which detaches the programs), programs, maps, and the directory itself.
    ///
    /// # Errors
    /// A file operation.
    pub fn remove(&self) -> Result<(), PinsError> {
        for name in ["links", "programs", "builds", NEW, "maps"] {
            remove_all(&self.path.join(name))?;
        }
        fs::remove_dir(&self.path).map_err(io_error(&self.path, "remove"))
    }
}

fn write_meta(path: &Path, meta: &Meta) -> Result<(), PinsError> {
    let failed = |source| PinsError::Map { path: path.to_owned(), source };
    let map = MapData::from_pin(path).and_then(Map::from_map_data).map_err(failed)?;
    let mut array = Array::<MapData, Meta>::try_from(map).map_err(failed)?;
    array.set(0, meta, 0).map_err(failed)
}

/// Without the flag that the kernel adds to device maps.
fn comparable(shape: Shape) -> Shape {
    Shape { flags: shape.flags & !RDONLY_PROG, ..shape }
}

fn describe(shape: &Shape) -> String {
    let Shape { map_type, key_size, value_size, max_entries, flags } = shape;
    format!("a map of type {map_type}, key {key_size}, value {value_size}, {max_entries} entries, flags {flags:#x}")
}

/// File name of an interface's pin. The BPF file system refuses dots, which interface names may have (`eth0.100`); an
/// interface called `explain` must not meet the explaining twin.
fn pin_name(interface: &str) -> String {
    match interface.replace('%', "%25").replace('.', "%2e") {
        name if name == "explain" => "%65xplain".to_owned(),
        name => name,
    }
}

fn interface_of(pin: &str) -> String {
    pin.replace("%65", "e").replace("%2e", ".").replace("%25", "%")
}

fn entries(directory: &Path) -> Result<Vec<String>, PinsError> {
    let failed = || io_error(directory, "read");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        names.push(entry.map_err(failed())?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn make_directory(path: &Path) -> Result<(), PinsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path, "make the directory"))
}

fn remove_all(directory: &Path) -> Result<(), PinsError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(directory, "remove")(error)),
        _ => Ok(()),
    }
}

/// Refuses what root does not own or others may write (THREATS O2).
fn check_owner(path: &Path) -> Result<(), PinsError> {
    let metadata = fs::symlink_metadata(path).map_err(io_error(path, "look at"))?;
    // A symbolic link's mode means nothing.
    let others_write = !metadata.is_symlink() && metadata.mode() & 0o022 != 0;
    if metadata.uid() != 0 || others_write {
        return Err(PinsError::Owner { path: path.to_owned(), uid: metadata.uid() });
    }
    Ok(())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts the BPF file system where it belongs, if that is where `path` wants it and nothing is there.
fn mount_usual(path: &Path) -> Result<(), PinsError> {
    let usual = Path::new(USUAL_MOUNT);
    let refused = || PinsError::NotBpffs {
        path: path.to_owned(),
        mount_point: if path.starts_with(usual) { usual } else { path.parent().unwrap_or(path) }.to_owned(),
    };
    if !path.starts_with(usual) || !usual.is_dir() {
        return Err(refused());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("bpf"), usual, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        tracing::warn!(error = %errno, path = USUAL_MOUNT, "the BPF file system is not mounted and could not be");
        refused()
    })?;
    tracing::info!(path = USUAL_MOUNT, "mounted the BPF file system");
    Ok(())
}

/// The process that holds the lock on `file`, by `/proc/locks`.
fn holder(file: &File) -> String {
    let found = file.metadata().ok().and_then(|metadata| {
        let locks = fs::read_to_string("/proc/locks").ok()?;
        lock_holder(&locks, metadata.dev(), metadata.ino())
    });
    found.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
}

/// Lines look like `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`, the device in hexadecimal.
fn lock_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else { return None };
        (*place == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_the_way_to_a_pin_and_back() {
        for name in ["eth0", "eth0.100", "a%2eb", "explain", "explain2", "%65"] {
            let pin = pin_name(name);
            assert!(!pin.contains('.') && pin != "explain", "{name} -> {pin}");
            if !name.contains("%65") {
                assert_eq!(interface_of(&pin), name);
            }
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 5 00:1a:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4242 00:1a:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 99 00:1a:77 0 EOF\n";
        assert_eq!(lock_holder(locks, libc::makedev(0, 0x1a), 77), Some(4242));
        assert_eq!(lock_holder(locks, libc::makedev(0, 0x1a), 78), None);
    }

    #[test]
    fn a_directory_outside_a_bpf_file_system_is_refused_with_the_mount_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb");
        let error = PinDirectory::open(&path).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf"), "{error}");
        assert!(!path.exists());
    }
}
