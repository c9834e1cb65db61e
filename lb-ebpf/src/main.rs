//! The XDP programs of lb. `pipeline.rs` is the path of a packet; this file turns its verdict into an XDP action.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unreachable_pub, reason = "a program has no outside; `pub` says what a module offers")
)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, adt_const_params))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "BPF has the atomics, core does not offer them"))]

// The crate is a member of the workspace; on the host it is an empty program.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(all(target_arch = "bpf", feature = "capture"))]
mod capture;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod digest;
#[cfg(target_arch = "bpf")]
mod explain;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod fresh;
#[cfg(target_arch = "bpf")]
mod globals;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod lease;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod open;
#[cfg(target_arch = "bpf")]
mod pipeline;
#[cfg(target_arch = "bpf")]
mod proof;
#[cfg(target_arch = "bpf")]
mod reset;
#[cfg(target_arch = "bpf")]
mod schedule;
#[cfg(target_arch = "bpf")]
mod scratch;
#[cfg(target_arch = "bpf")]
mod service;
#[cfg(target_arch = "bpf")]
mod slow;
#[cfg(target_arch = "bpf")]
mod syn;
#[cfg(target_arch = "bpf")]
mod table;
#[cfg(target_arch = "bpf")]
mod tags;
#[cfg(target_arch = "bpf")]
mod too_big;
#[cfg(target_arch = "bpf")]
mod track;
#[cfg(target_arch = "bpf")]
mod verdict;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{macros::xdp, programs::XdpContext};

    use lb_common::reason::Reason;

    #[cfg(feature = "capture")]
    use crate::capture;
    use crate::{count, explain, lease, pipeline, verdict::Verdict};

    /// The one entry: every frame that an interface of ours receives.
    #[cfg(not(feature = "capture"))]
    #[xdp(frags)]
    fn lb_ingress(ctx: XdpContext) -> u32 {
        decide(&ctx).action()
    }

    /// The same while somebody captures: tells what it decided.
    #[cfg(feature = "capture")]
    #[xdp(frags)]
    fn lb_capture(ctx: XdpContext) -> u32 {
        capture::capture_arrival(ctx.ctx);
        let verdict = decide(&ctx);
        capture::capture_end(ctx.ctx, verdict.to_register());
        verdict.action()
    }

    #[inline(always)]
    fn decide(ctx: &XdpContext) -> Verdict {
        let verdict = if lease::refuses(ctx) { Verdict::end(Reason::LeaseEnded) } else { pipeline::run(ctx) };
        count::reason(ctx, verdict.reason());
        explain::reason(verdict.reason());
        verdict
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    // `bpf_xdp_adjust_tail` and friends are for GPL-compatible programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
