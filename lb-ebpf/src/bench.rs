//! The harness of `cargo xtask bench datapath`: a program that makes a fresh packet out of a template, varies the flow, and
//! tail-calls the program that is measured.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` hands every iteration the packet that the one before left: a load balancer would see
//! its own output. The harness is timed with a trivial subject, too, and subtracted.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod program {
    use core::ptr::read_volatile;

    use aya_ebpf::{
        bindings::{BPF_F_MMAPABLE, xdp_action},
        helpers::{bpf_ktime_get_ns, bpf_tail_call, bpf_xdp_adjust_tail, generated::bpf_xdp_adjust_head},
        macros::{map, xdp},
        maps::{Array, ProgramArray},
        programs::XdpContext,
    };

    /// 8-byte words of header behind Ethernet that are restored.
    const WORDS: usize = 8;
    /// Time stamps per run: every `1 << SEGMENT` iterations one.
    const STAMPS: u32 = 128;

    /// The packet's first 14 bytes as stores of the sizes in which programs load them: destination MAC (4, 2), source MAC
    /// (4, 2), EtherType (2); then the words that follow.
    #[unsafe(no_mangle)]
    static ETHERNET: [u32; 5] = [0; 5];
    #[unsafe(no_mangle)]
    static HEADER: [u64; WORDS] = [0; WORDS];
    #[unsafe(no_mangle)]
    static LENGTH: u32 = 0;
    /// Number of flows minus one.
    #[unsafe(no_mangle)]
    static FLOW_MASK: u64 = 0;
    /// Odd: the order in which flows come.
    #[unsafe(no_mangle)]
    static FLOW_STEP: u64 = 1;
    /// Which word gets the low 16 bits of the flow's number, and by how many bits shifted: a port.
    #[unsafe(no_mangle)]
    static PORT: [u32; 2] = [0; 2];
    /// The same for the next bits: the low end of an address.
    #[unsafe(no_mangle)]
    static ADDRESS: [u32; 2] = [0; 2];
    #[unsafe(no_mangle)]
    static SEGMENT: u32 = 0;

    macro_rules! global {
        ($name:ident) => {
            // SAFETY: a static is always readable; volatile, because the loader sets it.
            unsafe { read_volatile(&raw const $name) }
        };
    }

    /// 0: iterations done; 1: iterations to go; 2: errors; 3..: time stamps in nanoseconds.
    #[map]
    static STATE: Array<[u64; 3 + STAMPS as usize]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

    /// 0: the program that is measured.
    #[map]
    static SUBJECT: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// Restores the packet, then becomes the subject.
    #[xdp(frags)]
    fn lb_bench(ctx: XdpContext) -> u32 {
        let Some(state) = STATE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
        // SAFETY: a live map value with one user: the bench runs on one CPU.
        let state = unsafe { &mut *state };
        state[1] = state[1].wrapping_sub(1);
        let left = state[1];
        if left & ((1 << global!(SEGMENT)) - 1) == 0 {
            let stamp = (left >> global!(SEGMENT)) as u32 % STAMPS;
            // SAFETY: no arguments.
            state[3 + stamp as usize] = unsafe { bpf_ktime_get_ns() };
        }
        if !restore_length(&ctx) {
            state[2] += 1;
            return xdp_action::XDP_ABORTED;
        }
        let flow = state[0].wrapping_mul(global!(FLOW_STEP)) & global!(FLOW_MASK);
        state[0] += 1;
        if !restore(&ctx, flow) {
            state[2] += 1;
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: a tail call returns only when it fails.
        let _ = unsafe { bpf_tail_call(ctx.ctx.cast(), (&raw const SUBJECT).cast_mut().cast(), 0) };
        state[2] += 1;
        xdp_action::XDP_ABORTED
    }

    #[inline(always)]
    fn restore_length(ctx: &XdpContext) -> bool {
        let length = ctx.data_end() - ctx.data();
        let wanted = global!(LENGTH) as usize;
        if length == wanted {
            return true;
        }
        let difference = length as i32 - wanted as i32;
        // SAFETY: the context is the one the kernel gave this program.
        unsafe {
            if difference > 0 {
                bpf_xdp_adjust_head(ctx.ctx, difference) == 0
            } else {
                bpf_xdp_adjust_tail(ctx.ctx, -difference) == 0
            }
        }
    }

    /// Stores cover whole fields, so that the subject's loads are forwarded from the store buffer as they would hit the
    /// cache for a packet that a NIC wrote.
    #[inline(always)]
    fn restore(ctx: &XdpContext, flow: u64) -> bool {
        // SAFETY: the context's fields; volatile because the packet may have moved.
        let (start, end) = unsafe {
            (read_volatile(&raw const (*ctx.ctx).data) as usize, read_volatile(&raw const (*ctx.ctx).data_end) as usize)
        };
        if start + 14 + 8 * WORDS > end {
            return false;
        }
        let [a, b, c, d, e] = global!(ETHERNET);
        let header = global!(HEADER);
        let ([port_word, port_shift], [address_word, address_shift]) = (global!(PORT), global!(ADDRESS));
        let port = u64::from((flow as u16).to_be()) << port_shift;
        let address = u64::from(((flow >> 16) as u32).to_be()) << address_shift;
        // SAFETY: the bytes were checked against the end of the packet.
        unsafe {
            *(start as *mut u32) = a;
            *((start + 4) as *mut u16) = b as u16;
            *((start + 6) as *mut u32) = c;
            *((start + 10) as *mut u16) = d as u16;
            *((start + 12) as *mut u16) = e as u16;
            let mut i = 0;
            while i < WORDS {
                let mut word = header[i];
                if i as u32 == port_word {
                    word ^= port;
                }
                if i as u32 == address_word {
                    word ^= address;
                }
                *((start + 14 + 8 * i) as *mut u64) = word;
                i += 1;
            }
        }
        true
    }

    /// The trivial subject.
    #[xdp(frags)]
    fn lb_bench_pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Generator: sends the frame out of the interface it pretends to have come in by.
    #[xdp(frags)]
    fn lb_bench_send(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    /// The end of the way.
    #[xdp(frags)]
    fn lb_bench_drop(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_DROP
    }

    /// A floor: swaps the MAC addresses and sends back.
    #[xdp(frags)]
    fn lb_bench_swap(ctx: XdpContext) -> u32 {
        let (start, end) = (ctx.data(), ctx.data_end());
        if start + 14 > end {
            return xdp_action::XDP_DROP;
        }
        // SAFETY: the bytes were checked against the end of the packet.
        unsafe {
            let (a, b) = (*(start as *mut u32), *((start + 4) as *mut u16));
            *(start as *mut u32) = *((start + 6) as *mut u32);
            *((start + 4) as *mut u16) = *((start + 10) as *mut u16);
            *((start + 6) as *mut u32) = a;
            *((start + 10) as *mut u16) = b;
        }
        xdp_action::XDP_TX
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
