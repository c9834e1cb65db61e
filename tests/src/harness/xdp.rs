//! A two-instruction XDP program that passes everything (`r0 = XDP_PASS; exit`), loaded by the bare `bpf(2)` call.
//!
//! A veth delivers frames that XDP sent (XDP_TX, redirect) only when its other end has an XDP program too, so the harness
//! attaches this to the switch port of every balancer interface. It also plays the foreign program that lbd must not
//! replace.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `struct bpf_insn`: `r0 = 2` (XDP_PASS), `exit`.
static PASS: [u64; 2] =
    [u64::from_le_bytes([0xb7, 0, 0, 0, 2, 0, 0, 0]), u64::from_le_bytes([0x95, 0, 0, 0, 0, 0, 0, 0])];

/// First fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// First fields of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The program, attached to an interface as long as this lives.
#[derive(Debug)]
pub struct PassProgram {
    _link: OwnedFd,
}

impl PassProgram {
    /// Attaches it in native mode to an interface of the namespace the calling thread is in.
    ///
    /// # Errors
    /// Without root, for an unknown interface, or when another program is attached.
    pub fn attach(interface: &str) -> Result<Self> {
        let program = load().context("loading the XDP pass program needs root (CAP_BPF, CAP_NET_ADMIN)")?;
        let ifindex = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf(BPF_LINK_CREATE, &attr).with_context(|| format!("attaching XDP pass to {interface}"))?;
        Ok(Self { _link: link })
    }
}

fn load() -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..8].copy_from_slice(b"lbt_pass");
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: PASS.len() as u32,
            insns: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            prog_name,
            ..ProgLoad::default()
        },
    )
}

/// The two commands used here answer with a new file descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a repr(C) prefix of `union bpf_attr`, alive during the call and passed with its own size; the
    // kernel reads it and, through its pointers, `PASS` and a C string, which are static.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attr), size_of::<T>()) };
    let fd = RawFd::try_from(fd).expect("file descriptors and -1 fit an int");
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
