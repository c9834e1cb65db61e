//! Capabilities that lbd and its spawner keep, and giving up the others. Called before there is another thread: capabilities
//! belong to threads and are inherited by those that they start.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What lbd keeps, and what for. Its program can be opened in `/proc` by processes alone that have at least these.
pub(crate) const OF_LBD: [(Capability, &str); 6] = [
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

/// Reduces this thread, and those it will start, to `wanted`, for ever. What was not there before is not gained. Returns what is left.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn keep_only(wanted: &CapsHashSet) -> Result<CapsHashSet, CapsError> {
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted)?.intersection(wanted).copied().collect();
    // The bounding set shrinks only with CAP_SETPCAP, which a service manager may have taken already.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(kept)
}
