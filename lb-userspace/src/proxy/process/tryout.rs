//! What a worker could do if a client took it over: shuts itself in as a worker does, tries what nobody may, and says what the
//! kernel answered. `lbd confined`, for tests and for whoever wants to see it; to be run as the worker's user.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    num::NonZero,
    os::unix::net::UnixStream,
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
        signal::kill,
        socket::{AddressFamily, SockFlag, SockType, socket},
    },
    unistd::{Uid, execve, getppid, setuid},
};

use super::{WorkerError, confine};

/// A way out that is tried, or something that must still work: its name, and how.
type Try = (&'static str, fn() -> io::Result<()>);

/// Refused before the system calls are cut down, by landlock alone.
const FILES: [Try; 3] = [
    ("landlock: read a file", || File::open("/etc/hostname").map(drop)),
    ("landlock: write a file", || File::create("/dev/shm/lb-tryout").map(drop)),
    ("landlock: list a directory", || std::fs::read_dir("/").map(drop)),
];

/// Refused to a worker.
const REFUSED: [Try; 18] = [
    ("execve", || {
        let none: [CString; 0] = [];
        Ok(execve(c"/bin/true", &none, &none).map(drop)?)
    }),
    ("start a process", || Command::new("/bin/true").spawn().map(drop)),
    ("start a thread", || std::thread::Builder::new().spawn(|| {}).map(drop)),
    ("open a file to read", || File::open("/etc/hostname").map(drop)),
    ("open a file to write", || File::create("/dev/shm/lb-tryout").map(drop)),
    ("ptrace", trace),
    ("socket of packets", || new_socket(AddressFamily::Packet, SockType::Raw)),
    ("raw socket", || new_socket(AddressFamily::Inet, SockType::Raw)),
    ("socket of netlink", || new_socket(AddressFamily::Netlink, SockType::Raw)),
    ("socket of UDP", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("unix socket", || UnixStream::connect("/run/lb/admin.sock").map(drop)),
    ("executable memory", || memory(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)),
    ("kill another process", || Ok(kill(getppid(), None)?)),
    ("become root", || Ok(setuid(Uid::from_raw(0))?)),
    ("unshare", || Ok(unshare(CloneFlags::CLONE_NEWUSER)?)),
    ("mount", || Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REMOUNT, None::<&str>)?)),
    ("remove a file", || std::fs::remove_file("/etc/hostname")),
    ("read another process's memory", || File::open(format!("/proc/{}/mem", getppid())).map(drop)),
];

/// What serving needs.
const ALLOWED: [Try; 3] = [
    ("socket of TCP", || new_socket(AddressFamily::Inet, SockType::Stream)),
    ("connect", || match TcpStream::connect("127.0.0.1:9") {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }),
    ("memory", || memory(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)),
];

/// Tries all of it, and writes a line for each: its name, a tab, and `ok` or the kernel's word.
///
/// # Errors
/// When this process cannot be shut in, or its output is gone.
pub fn run() -> Result<(), WorkerError> {
    // Made before: what a worker gets from lbd.
    let _listener = TcpListener::bind("127.0.0.1:0")?;
    confine::before_threads()?;
    report(&FILES)?;
    confine::all_threads()?;
    report(&REFUSED)?;
    Ok(report(&ALLOWED)?)
}

fn report(tries: &[Try]) -> io::Result<()> {
    for (name, attempt) in tries {
        let outcome = match attempt() {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                error.raw_os_error().map_or_else(|| error.to_string(), |code| nix::Error::from_raw(code).to_string())
            }
        };
        writeln!(io::stdout(), "{name}\t{outcome}")?;
    }
    Ok(())
}

fn new_socket(family: AddressFamily, kind: SockType) -> io::Result<()> {
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map(drop)?)
}

fn memory(protection: ProtFlags) -> io::Result<()> {
    let length = NonZero::new(4096).ok_or_else(|| io::Error::other("no length"))?;
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing else uses.
    let mapping = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the mapping was made above, and nothing refers to it.
    Ok(unsafe { munmap(mapping, length.get()) }?)
}

fn trace() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME takes no pointer and touches no memory.
    let answer = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
