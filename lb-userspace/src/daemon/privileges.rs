//! Giving up what lbd does not need once the data path is in place. The user stays root, so that the files it owns
//! (configuration, state, pins) stay its own without any capability over other people's files.
//!
//! Capabilities belong to a thread and are inherited by the threads it starts: this runs on the main thread before
//! there is another one.

use nix::sys::prctl;

use crate::capability::{self, OF_LBD};

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

/// Reduces this thread, and those it will start, to [`OF_LBD`], for ever. What was not there before is not gained.
pub(super) fn reduce() -> Result<(), PrivilegesError> {
    let kept = capability::keep_only(&OF_LBD.iter().map(|(capability, _)| *capability).collect())?;
    prctl::set_no_new_privs()?;
    tracing::debug!(?kept, "privileges reduced");
    Ok(())
}

#[cfg(test)]
mod tests {
    use caps::{CapSet, CapsHashSet};

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
        let wanted: CapsHashSet = OF_LBD.iter().map(|(capability, _)| *capability).collect();
        assert_eq!(permitted, before.intersection(&wanted).copied().collect::<CapsHashSet>());
        assert_eq!(effective, permitted);
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before, "other threads are as they were");
    }
}
