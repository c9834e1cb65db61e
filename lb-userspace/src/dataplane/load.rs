//! The XDP object: what it declares, and loading it into the kernel with its read-only globals set. One instance per
//! interface, and one that explains packets; all share the pinned maps. Called by `pins` and `attach`.

use std::{collections::BTreeMap, io, path::Path, sync::OnceLock};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapError},
    programs::{ProgramError, Xdp},
};
use lb_common::{
    capture,
    flow::{HashKeys, WAYS, mix64},
    maglev::RING_CHUNKS,
    maps::{LAYOUT_VERSION, MAX_VIRTUAL_SERVERS, META_MAGIC, Meta, global},
};

use super::{clock, maps::NAMES};

/// The oldest kernel that the programs are verified on (`cargo xtask verify`).
pub const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// The program in the object.
const PROGRAM: &str = "lb_ingress";

/// The program that captures, in an object of its own.
const CAPTURING: &str = "lb_capture";

/// Lines of the verifier's log that an error shows: the last ones say what was refused.
const LOG_LINES: usize = 12;

/// The object that `build.rs` made of `lb-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf"));

/// The same with the feature `capture`.
static CAPTURE_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-capture.bpf"));

/// The object that captures, as it was built: as [`object`].
#[must_use]
pub fn capture_object() -> &'static [u8] {
    CAPTURE_OBJECT
}

/// The object as it was built, for tests and benches that load it with maps of their own.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Identifies the object, as long as nobody means to deceive: daemons of the same build need not load it again.
pub fn build() -> u64 {
    static BUILD: OnceLock<u64> = OnceLock::new();
    *BUILD.get_or_init(|| {
        let mix = |hash: u64, word: &[u8]| mix64(hash ^ word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        OBJECT.chunks(8).fold(OBJECT.len() as u64, mix)
    })
}

/// Why the programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel is too old.
    #[error("this kernel is Linux {found}; lbd needs {}.{} or newer", KERNEL_FLOOR.0, KERNEL_FLOOR.1)]
    Kernel {
        /// `uname -r`.
        found: String,
    },
    /// A capability is missing.
    #[error(
        "lbd needs the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON to load XDP programs; missing: {missing}. Run it as root or give it these (systemd: AmbientCapabilities=)"
    )]
    Capability {
        /// Those that are not in the effective set.
        missing: String,
    },
    /// The kernel denied it although the capabilities are there.
    #[error(
        "the kernel does not permit loading BPF programs and maps ({action}): look at `sysctl kernel.unprivileged_bpf_disabled`, lockdown mode and the memory limit of the service"
    )]
    Denied {
        /// What was tried.
        action: String,
    },
    /// The verifier refused the program.
    #[error("the kernel's verifier refused the XDP program: {source}\n{log}")]
    Verifier {
        /// The error of `BPF_PROG_LOAD`.
        source: io::Error,
        /// The end of its log.
        log: String,
    },
    /// The object lacks what the daemon counts on.
    #[error("the XDP object built into lbd does not fit it: {0}; build both from the same source")]
    Object(String),
    /// Anything else.
    #[error("loading the XDP program: {0}")]
    Load(#[source] Box<EbpfError>),
}

/// Sizes of the tables that the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Connections that must fit into `FLOWS`; it gets twice as many places.
    pub max_flows: u32,
    /// The same for `PENDING`.
    pub max_half_open: u32,
    /// Rings that must fit into `RINGS`, and be replaced all at once.
    pub max_rings: u32,
}

/// Persistence entries and fragment owners that fit: fixed, as they cost little and evict the oldest.
const AFFINITY_ENTRIES: u32 = 262_144;
const FRAGMENT_ENTRIES: u32 = 16_384;

/// `META` of newly created maps with these sizes and this secret.
#[must_use]
pub fn new_meta(sizes: TableSizes, keys: HashKeys) -> Meta {
    Meta {
        magic: META_MAGIC,
        layout_version: LAYOUT_VERSION,
        flow_mask: mask(sizes.max_flows),
        pending_mask: mask(sizes.max_half_open),
        affinity_mask: mask(AFFINITY_ENTRIES),
        fragment_mask: mask(FRAGMENT_ENTRIES),
        table_keys: keys.0,
        ring_elements: ring_elements(sizes.max_rings),
    }
}

/// Buckets minus one for a table with twice as many places as `records`: so filled, a full pair of buckets is rare. At
/// least two buckets, so that a key has two candidates; at most 2²⁸, so that a record's index plus one fits 32 bits.
fn mask(records: u32) -> u32 {
    let buckets = (u64::from(records) * 2).div_ceil(WAYS as u64).next_power_of_two();
    buckets.clamp(2, 1 << 28) as u32 - 1
}

/// Rings that there is room for by default.
pub const DEFAULT_MAX_RINGS: u32 = 254;

/// Elements that a ring, its sequence and its list of members are taken for: a sequence of 256 is among them.
const RING_ROOM: u32 = RING_CHUNKS + 8;

/// Elements of `RINGS` with room for `rings`, twice: what replaces them is written before they are given back.
fn ring_elements(rings: u32) -> u32 {
    1 + 2 * RING_ROOM * rings.clamp(1, 2 * MAX_VIRTUAL_SERVERS)
}

/// A random secret for the flow tables' hash.
///
/// # Errors
/// When the kernel has no randomness.
pub fn random_keys() -> io::Result<HashKeys> {
    let mut bytes = [0u8; 40];
    // SAFETY: the buffer is 40 bytes long; 40 bytes are given whole or not at all.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(written) != Ok(bytes.len()) {
        return Err(io::Error::last_os_error());
    }
    let mut keys = [0u32; 10];
    for (key, chunk) in keys.iter_mut().zip(bytes.chunks_exact(4)) {
        *key = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    Ok(HashKeys(keys))
}

/// What makes a map the one that the program expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Kernel map type.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

/// The maps that the object declares, sized as `meta` says.
///
/// # Errors
/// `Object` when one that the daemon counts on is missing.
pub fn declared(meta: &Meta) -> Result<BTreeMap<&'static str, Shape>, LoadError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(|error| LoadError::Object(error.to_string()))?;
    let sized = sized(meta);
    NAMES
        .into_iter()
        .map(|name| {
            let map = object.maps.get(name).ok_or_else(|| LoadError::Object(format!("map {name} is missing")))?;
            let max_entries = sized.iter().find(|(n, _)| *n == name).map_or(map.max_entries(), |(_, entries)| *entries);
            let shape = Shape {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries,
                flags: map.map_flags(),
            };
            Ok((name, shape))
        })
        .collect()
}

fn sized(meta: &Meta) -> [(&'static str, u32); 7] {
    [
        ("FLOWS", meta.flow_mask + 1),
        ("DIGESTS", meta.flow_mask + 1),
        ("PENDING", meta.pending_mask + 1),
        ("PROOFS", meta.pending_mask + 1),
        ("AFFINITY", meta.affinity_mask + 1),
        ("FRAGMENTS", meta.fragment_mask + 1),
        ("RINGS", meta.ring_elements),
    ]
}

/// What an instance of the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Interface it will be attached to.
    pub ifindex: u32,
    /// Slot of that interface.
    pub slot: u32,
    /// Whether it is the explaining twin.
    pub explain: bool,
}

impl Purpose {
    /// The explaining twin: of no interface.
    pub const EXPLAIN: Purpose = Purpose { ifindex: 0, slot: 0, explain: true };
}

/// A program in the kernel.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
    name: &'static str,
}

impl Program {
    /// The program.
    ///
    /// # Errors
    /// Never after [`load`]; a missing program is an `Object` error there.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        let name = self.name;
        let program = self.ebpf.program_mut(name).ok_or_else(|| LoadError::Object(format!("no program {name}")))?;
        program.try_into().map_err(|error: ProgramError| LoadError::Object(format!("program {name}: {error}")))
    }

    /// A map that is its alone: not among those that were pinned before.
    pub(super) fn take_map(&mut self, name: &str) -> Result<Map, LoadError> {
        self.ebpf.take_map(name).ok_or_else(|| LoadError::Object(format!("map {name} is missing")))
    }
}

/// Loads an instance. Maps pinned in `maps` are used; those that are missing there are created and pinned there.
///
/// # Errors
/// See [`LoadError`]; the kernel forgets a program that failed.
pub fn load(maps: &Path, meta: &Meta, purpose: Purpose) -> Result<Program, LoadError> {
    load_from(OBJECT, PROGRAM, maps, meta, purpose, |_| ())
}

/// Loads an instance that captures: as [`load`], and the maps that it alone has are pinned in `own`, the ring with so many
/// bytes (a power of two, and of pages).
///
/// # Errors
/// As [`load`].
pub fn load_capture(maps: &Path, meta: &Meta, purpose: Purpose, own: &Path, ring: u32) -> Result<Program, LoadError> {
    load_from(CAPTURE_OBJECT, CAPTURING, maps, meta, purpose, |loader| {
        for name in capture::map::NAMES {
            loader.map_pin_path(name, own.join(name));
        }
        loader.map_max_entries(capture::map::CAPTURED, ring);
    })
}

fn load_from(
    object: &[u8],
    name: &'static str,
    maps: &Path,
    meta: &Meta,
    purpose: Purpose,
    more: impl FnOnce(&mut EbpfLoader<'_>),
) -> Result<Program, LoadError> {
    let explain = u32::from(purpose.explain);
    let mut loader = EbpfLoader::new();
    // The object needs no relocation by BTF; the log is fetched only when loading fails.
    loader.btf(None).verifier_log_level(VerifierLogLevel::DEBUG);
    for name in NAMES {
        loader.map_pin_path(name, maps.join(name));
    }
    for (name, entries) in sized(meta) {
        loader.map_max_entries(name, entries);
    }
    more(&mut loader);
    let globals: [(&str, &u32); 7] = [
        (global::FLOW_MASK, &meta.flow_mask),
        (global::PENDING_MASK, &meta.pending_mask),
        (global::AFFINITY_MASK, &meta.affinity_mask),
        (global::FRAGMENT_MASK, &meta.fragment_mask),
        (global::IFINDEX, &purpose.ifindex),
        (global::INTERFACE, &purpose.slot),
        (global::EXPLAIN, &explain),
    ];
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    loader.override_global(global::TABLE_KEYS, &meta.table_keys, true);
    let (jiffy, epoch) = clock::jiffies();
    loader.override_global(global::JIFFY_NS, &jiffy, true);
    loader.override_global(global::JIFFIES_EPOCH, &epoch, true);
    let mut program = Program { ebpf: loader.load(object).map_err(refused)?, name };
    program.xdp()?.load().map_err(|error| refused(EbpfError::ProgramError(error)))?;
    Ok(program)
}

fn refused(error: EbpfError) -> LoadError {
    let denied = |error: &io::Error| error.raw_os_error() == Some(libc::EPERM);
    if let EbpfError::ProgramError(ProgramError::LoadError { io_error, verifier_log }) = error {
        if denied(&io_error) {
            return LoadError::Denied { action: "BPF_PROG_LOAD".to_owned() };
        }
        return LoadError::Verifier { source: io_error, log: tail(&verifier_log.to_string()) };
    }
    if let EbpfError::MapError(MapError::CreateError { name, io_error }) = &error
        && denied(io_error)
    {
        return LoadError::Denied { action: format!("BPF_MAP_CREATE of {name}") };
    }
    LoadError::Load(Box::new(error))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Checks what can be checked before anything is changed: kernel version and capabilities.
///
/// # Errors
/// `Kernel` or `Capability`.
pub fn check_system() -> Result<(), LoadError> {
    let release =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    if version(&release).is_some_and(|found| found < KERNEL_FLOOR) {
        return Err(LoadError::Kernel { found: release });
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing_capabilities(&status) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(LoadError::Capability { missing: missing.join(", ") }),
    }
}

/// Major and minor of a release like `6.1.0-28-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Which of the capabilities are missing from `CapEff` in `/proc/self/status`. Without that line: none, the kernel decides.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Vec::new();
    };
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN (21) includes the two younger ones (capabilities(7)).
    [("CAP_NET_ADMIN", has(12)), ("CAP_BPF", has(39) || has(21)), ("CAP_PERFMON", has(38) || has(21))]
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_twice_the_places_and_a_power_of_two_of_buckets() {
        assert_eq!(mask(1 << 20), (1 << 19) - 1);
        assert_eq!(mask(1_000_000), (1 << 19) - 1);
        assert_eq!(mask(0), 1);
        assert_eq!(mask(u32::MAX), (1 << 28) - 1);
    }

    #[test]
    fn rings_have_room_twice() {
        assert!(ring_elements(DEFAULT_MAX_RINGS) <= 1 << 20, "64 MiB by default");
        assert!(ring_elements(1) > 2 * RING_CHUNKS);
        assert!(ring_elements(1000) > 2 * 1000 * RING_CHUNKS);
        assert_eq!(ring_elements(u32::MAX), ring_elements(8192));
    }

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.0"), Some((6, 18)));
        assert!(version("5.15.0").is_some_and(|v| v < KERNEL_FLOOR));
        assert!(version("6.18.0").is_some_and(|v| v >= KERNEL_FLOOR));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = |mask: u64| format!("Name:\tlbd\nCapEff:\t{mask:016x}\nSeccomp:\t0\n");
        assert!(missing_capabilities(&status(u64::MAX)).is_empty());
        assert!(missing_capabilities(&status(1 << 12 | 1 << 21)).is_empty());
        assert_eq!(missing_capabilities(&status(1 << 39 | 1 << 38)), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(&status(1 << 12)), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn the_log_is_cut_to_its_end() {
        let log = (1..=40).map(|i| format!("line {i}\n")).collect::<String>();
        assert!(tail(&log).starts_with("line 29\n") && tail(&log).ends_with("line 40"));
    }
}
