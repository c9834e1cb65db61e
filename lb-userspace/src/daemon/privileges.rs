//! Giving up what lbd does not need once the data path is in place. The user stays root, so that the files it owns
//! (configuration, state, pins) stay its own without any capability over other people's files.
//!
//! Capabilities belong to a thread and are inherited by the threads it starts: this runs on the main thread before
//! there is another one.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What is kept, and what for.
pub(super) const KEPT: [(Capability, &str); 6] = [
    (Capability::CAP_NET_ADMIN, "attach XDP programs, add VIP addresses, read and probe neighbours"),
    (Capability::CAP_BPF, "load programs and maps, pin and read them"),
    (Capability::CAP_PERFMON, "let the verifier follow packet pointers"),
    (Capability::CAP_NET_RAW, "gratuitous ARP, ping monitors, the probes of lbctl doctor"),
    (Capability::CAP_NET_BIND_SERVICE, "bind low ports for virtual servers that lbd terminates itself"),
    (
        Capability::CAP_SYS_NICE,
        "real-time priority for a guard that replaces another, and for the program that replaces this one",
    ),
];

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refused.
    #[error("cannot give up the capabilities that lbd does not need: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel refused.
    #[error("cannot forbid new privileges to lbd: {0}")]
    NoNewPrivileges(#[from] nix::Error),
}

/// Reduces this thread, and those it will start, to [`KEPT`], for ever. What was not there before is not gained.
pub(super) fn reduce() -> Result<(), PrivilegesError> {
    let wanted: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted)?.intersection(&wanted).copied().collect();
    // The bounding set shrinks only with CAP_SETPCAP, which a service manager may have taken already.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    prctl::set_no_new_privs()?;
    tracing::debug!(?kept, "privileges reduced");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_the_six_and_can_never_get_more() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let after = std::thread::spawn(|| {
            reduce().unwrap();
            assert!(prctl::get_no_new_privs().unwrap());
            (caps::read(None, CapSet::Permitted).unwrap(), caps::read(None, CapSet::Effective).unwrap())
        });
        let (permitted, effective) = after.join().unwrap();
        let wanted: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
        assert_eq!(permitted, before.intersection(&wanted).copied().collect::<CapsHashSet>());
        assert_eq!(effective, permitted);
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before, "other threads are as they were");
    }
}
