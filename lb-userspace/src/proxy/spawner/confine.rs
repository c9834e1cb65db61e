//! What the spawner gives up: every capability but those of lbd and what starting workers takes, and system calls that
//! neither it nor a worker ever makes. Its filter is inherited by workers, which add their own, far narrower one.

use caps::Capability;
use nix::sys::prctl;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::capability::{self, OF_LBD};

/// Why it could not be shut in.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// The channel to lbd broke, or the kernel refused.
    #[error("spawner: {0}")]
    Io(#[from] std::io::Error),
    /// Capabilities.
    #[error("spawner: cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// `no_new_privs`.
    #[error("spawner: cannot forbid new privileges: {0}")]
    Process(#[from] nix::Error),
    /// Seccomp.
    #[error("spawner: cannot forbid system calls: {0}")]
    Seccomp(#[from] seccompiler::BackendError),
    /// Seccomp, while it is put in force.
    #[error("spawner: cannot forbid system calls: {0}")]
    SeccompForce(#[from] seccompiler::Error),
}

/// What is kept beside what lbd has, and what for.
const KEPT: [(Capability, &str); 3] = [
    (Capability::CAP_SETUID, "workers run as a user of their own"),
    (Capability::CAP_SETGID, "and as its group alone"),
    (Capability::CAP_KILL, "a worker that hangs is ended, though it is another user's"),
];

/// Calls that nobody here makes, and that change the machine or look into others.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Shuts this process in, and all that it starts. Before it starts a thread or reads a byte.
pub(super) fn shut_in() -> Result<(), SpawnerError> {
    capability::keep_only(&KEPT.iter().chain(&OF_LBD).map(|(capability, _)| *capability).collect())?;
    prctl::set_no_new_privs()?;
    let refused = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter: BpfProgram = SeccompFilter::new(refused, SeccompAction::Allow, denied, architecture)?.try_into()?;
    Ok(seccompiler::apply_filter(&filter)?)
}
