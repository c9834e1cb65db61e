//! What a worker gives up before it sees a byte of a client's: capabilities, files, and every system call that serving does
//! not need. Each step fails the start when it fails.

use caps::{CapSet, CapsHashSet};
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use nix::sys::prctl;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

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
    Seccomp(#[from] seccompiler::BackendError),
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
    let allowed = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter: BpfProgram = SeccompFilter::new(allowed, denied, SeccompAction::Allow, architecture)?.try_into()?;
    seccompiler::apply_filter_all_threads(&filter)?;
    Ok(())
}

/// What serving needs: bytes, sockets to nodes, events, memory, time, locks, and its own end. Neither files nor programs
/// nor other processes.
const ALLOWED: &[libc::c_long] = &[
    // Bytes on descriptors that it has.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_accept,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_ioctl,
    // Events and time.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Threads and locks; none is started any more.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_getcpu,
    // Itself, randomness and the end.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
