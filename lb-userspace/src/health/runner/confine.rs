//! What the runner, and with it every program, gives up before anything is run. Each step fails the start when it fails.

use std::{collections::BTreeMap, fs, io};

use caps::{CapSet, CapsHashSet};
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        stat::{Mode, umask},
    },
    unistd::{geteuid, getuid},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Limits of each process: the resource and its greatest value.
const LIMITS: [(Resource, u64); 5] = [
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_FSIZE, 1 << 20),
    (Resource::RLIMIT_NOFILE, 1024),
    // Of addresses: the allocator of lbd, and of Rust programs like it, sets a GiB aside at its start.
    (Resource::RLIMIT_AS, 4 << 30),
    // Of all processes of the user together.
    (Resource::RLIMIT_NPROC, 512),
];

/// Killed before others when memory is short; lbd itself is killed last, and this is inherited.
const OOM_SCORE: &str = "500";

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// It has the rights of the superuser.
    #[error("programs are not run as root: configure daemon.monitor_user")]
    Root,
    /// Capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Limits, `no_new_privs`, or the subreaper.
    #[error("cannot be limited: {0}")]
    Process(#[from] nix::Error),
    /// Seccomp.
    #[error("cannot forbid system calls: {0}")]
    Seccomp(#[from] seccompiler::BackendError),
    /// Seccomp, while it is put in force.
    #[error("cannot forbid system calls: {0}")]
    SeccompForce(#[from] seccompiler::Error),
    /// The score.
    #[error("cannot change its place among those to be killed when memory is short: {0}")]
    Score(#[from] io::Error),
}

pub(super) fn confine() -> Result<(), ConfineError> {
    if geteuid().is_root() || getuid().is_root() {
        return Err(ConfineError::Root);
    }
    fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new())?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_child_subreaper(true)?;
    umask(Mode::from_bits_truncate(0o077));
    for (resource, limit) in LIMITS {
        setrlimit(resource, limit, limit)?;
    }
    let denied = DENIED.iter().map(|call| (*call, Vec::new())).chain([(libc::SYS_clone, namespaces()?)]).collect();
    forbid(denied, libc::EPERM)?;
    // Its arguments are in memory, where a filter cannot look; libraries then take the older call.
    forbid(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn forbid(calls: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<(), ConfineError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let denied = SeccompAction::Errno(error.unsigned_abs());
    let filter: BpfProgram = SeccompFilter::new(calls, SeccompAction::Allow, denied, architecture)?.try_into()?;
    Ok(seccompiler::apply_filter(&filter)?)
}

/// `clone` into any new namespace: in one of its own, a process would be root.
fn namespaces() -> Result<Vec<SeccompRule>, ConfineError> {
    const NEW: [libc::c_int; 7] = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let rule = |flag: libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    NEW.into_iter().map(rule).collect()
}

/// What no check needs, and attacks on the kernel begin with.
const DENIED: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
];
