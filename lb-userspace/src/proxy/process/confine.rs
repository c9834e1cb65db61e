//! What a worker gives up before it sees a byte of a client's: capabilities, files, and every system call that serving does
//! not need. Each step fails the start when it fails.

mod calls;

use std::collections::BTreeMap;

use caps::{CapSet, CapsHashSet};
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use nix::sys::prctl;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use self::calls::ALLOWED;

/// Why a worker could not be shut in.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// It has the rights of the superuser.
    #[error("a worker does not run as root: configure proxy.user")]
    Root,
    /// Capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// `no_new_privs` or `PR_SET_DUMPABLE`.
    #[error("cannot forbid new privileges: {0}")]
    Process(#[from] nix::Error),
    /// Landlock.
    #[error("cannot forbid files: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// Seccomp.
    #[error("cannot forbid system calls: {0}")]
    Seccomp(#[from] BackendError),
    /// Seccomp, while it is put in force.
    #[error("cannot forbid system calls: {0}")]
    SeccompForce(#[from] seccompiler::Error),
}

/// What is inherited by threads: before the first one is started.
pub(super) fn before_threads() -> Result<(), ConfineError> {
    if nix::unistd::geteuid().is_root() || nix::unistd::getuid().is_root() {
        return Err(ConfineError::Root);
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new())?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    // No rule: no file can be opened at all. Kernels before 5.13 have no landlock; seccomp holds there alone.
    let ruleset =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(ABI::V5))?;
    ruleset.create()?.restrict_self()?;
    Ok(())
}

/// System calls, of all threads: once they all run.
pub(super) fn all_threads() -> Result<(), ConfineError> {
    let mut allowed: BTreeMap<_, _> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let stream = || is(1, SOCKET_TYPE, libc::SOCK_STREAM);
    let tcp = |family| SeccompRule::new(vec![is(0, u32::MAX, family)?, stream()?]);
    allowed.insert(libc::SYS_socket, vec![tcp(libc::AF_INET)?, tcp(libc::AF_INET6)?]);
    // What a client sent is never run: memory is written or executed, and nothing becomes executable any more.
    let data = || SeccompRule::new(vec![is(2, libc::PROT_EXEC.unsigned_abs(), 0)?]);
    allowed.insert(libc::SYS_mmap, vec![data()?]);
    allowed.insert(libc::SYS_mprotect, vec![data()?]);
    // A panic of ours, not an end of others.
    let own = nix::unistd::getpid().as_raw();
    allowed.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![is(0, u32::MAX, own)?])?]);
    let architecture = std::env::consts::ARCH.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter: BpfProgram = SeccompFilter::new(allowed, denied, SeccompAction::Allow, architecture)?.try_into()?;
    seccompiler::apply_filter_all_threads(&filter)?;
    Ok(())
}

/// Bits of a socket's type without its flags.
const SOCKET_TYPE: u32 = 0xf;

/// An argument has this value under a mask.
fn is(argument: u8, mask: u32, value: i32) -> Result<SeccompCondition, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(u64::from(mask));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.cast_unsigned()))
}
