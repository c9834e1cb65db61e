//! The one accessor of packet bytes: a pointer is compared with `data_end` before anything is read or written through it,
//! in a form that the verifier follows. No other module touches packet memory.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_loop, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::packet::{Frame, IPV4, MAX_OPTIONS, View, next_option};

/// A frame in the driver's buffer. Valid until the buffer is resized: take a new one after `bpf_xdp_adjust_*`.
#[derive(Clone, Copy)]
pub struct XdpFrame {
    start: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        // SAFETY: the context is the one the kernel gave this program. Volatile: after a call of a BPF function the verifier
        // forgets packet pointers, and the compiler must not keep the old ones.
        let (start, end) =
            unsafe { ((&raw const (*ctx.ctx).data).read_volatile(), (&raw const (*ctx.ctx).data_end).read_volatile()) };
        Self { start: start as usize, end: end as usize, ctx: ctx.ctx }
    }

    /// Bytes in the first buffer: all there are, except in multi-buffer frames (jumbo frames, Linux 5.18).
    #[inline(always)]
    pub fn linear_len(self) -> usize {
        self.end - self.start
    }
}

/// Every driver puts at least so many bytes of a frame of several buffers into the first one: shorter ones need no question.
const SURELY_LINEAR: usize = 128;

impl XdpFrame {
    /// Bytes of the whole frame, cheaper than [`Frame::len`] for short ones.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        if self.linear_len() < SURELY_LINEAR { self.linear_len() } else { self.len() }
    }
}

impl Frame for XdpFrame {
    type View = XdpView;

    #[inline(always)]
    fn view<const LEN: usize>(self, offset: usize) -> Option<XdpView> {
        let at = self.start + offset;
        if at + LEN > self.end {
            return None;
        }
        Some(XdpView(at))
    }

    #[inline(always)]
    fn len(self) -> usize {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
    }

    #[inline(always)]
    fn is_source_routed(self, l3: usize, header: usize) -> bool {
        frame_is_source_routed(self.ctx, l3 as u32, header as u32) != 0
    }
}

/// Walks IPv4 options, by a helper instead of a loop (Linux 5.17): its body is verified once, not once per option.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frame_is_source_routed(ctx: *mut xdp_md, l3: u32, header: u32) -> u32 {
    let mut walk = OptionWalk { ctx, l3, header, at: IPV4 as u32, found: 0 };
    let callback = look_at_option as extern "C" fn(u32, *mut OptionWalk) -> i64;
    // SAFETY: the callback's context is the walk, which outlives the call.
    unsafe { bpf_loop(MAX_OPTIONS, callback as *mut _, (&raw mut walk).cast(), 0) };
    walk.found
}

#[repr(C)]
struct OptionWalk {
    ctx: *mut xdp_md,
    l3: u32,
    header: u32,
    at: u32,
    found: u32,
}

extern "C" fn look_at_option(_index: u32, walk: *mut OptionWalk) -> i64 {
    // SAFETY: `frame_is_source_routed` passes its own, live walk.
    let walk = unsafe { &mut *walk };
    let frame = XdpFrame::new(&XdpContext::new(walk.ctx));
    let mut at = walk.at as usize & 127;
    let over = next_option(frame, walk.l3 as usize & 31, walk.header as usize & 63, &mut at);
    walk.at = at as u32;
    match over {
        Some(found) => {
            walk.found = u32::from(found);
            1
        }
        None => 0,
    }
}

/// Checked bytes of a frame. Offsets must stay below the length that was checked: the verifier refuses the rest.
#[derive(Clone, Copy)]
pub struct XdpView(usize);

macro_rules! access {
    ($($load:ident, $store:ident: $type:ty;)+) => { $(
        #[inline(always)]
        pub fn $load(self, at: usize) -> $type {
            // SAFETY: the bytes were checked. BPF loads of any alignment are allowed in packets on every architecture that
            // XDP runs on, and a single load is what `read_unaligned` would not give.
            unsafe { *((self.0 + at) as *const $type) }
        }

        #[inline(always)]
        pub fn $store(self, at: usize, value: $type) {
            // SAFETY: as above; packet memory is ours while the program runs.
            unsafe { *((self.0 + at) as *mut $type) = value }
        }
    )+ };
}

impl XdpView {
    access! {
        load8, store8: u8;
        load16, store16: u16;
        load32, store32: u32;
        load64, store64: u64;
    }

    /// Adds `length` bytes from `at` on to a sum of 32-bit words (RFC 1071): a multiple of 4, at most 512.
    #[inline(always)]
    pub fn sum(self, at: usize, length: usize, sum: u32) -> u32 {
        // SAFETY: the bytes were checked, as above; the helper reads them.
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, (self.0 + at) as *mut u32, length as u32, sum) as u32 }
    }

    /// Writes four words of an address.
    #[inline(always)]
    pub fn store_address16(self, at: usize, words: [u32; 4]) {
        self.store32(at, words[0]);
        self.store32(at + 4, words[1]);
        self.store32(at + 8, words[2]);
        self.store32(at + 12, words[3]);
    }

    /// Loads an IPv6 address as four words.
    #[inline(always)]
    pub fn load_address16(self, at: usize) -> [u32; 4] {
        [self.load32(at), self.load32(at + 4), self.load32(at + 8), self.load32(at + 12)]
    }
}

impl View for XdpView {
    #[inline(always)]
    fn u8(self, at: usize) -> u8 {
        self.load8(at)
    }

    #[inline(always)]
    fn u16(self, at: usize) -> u16 {
        self.load16(at)
    }

    #[inline(always)]
    fn u32(self, at: usize) -> u32 {
        self.load32(at)
    }
}
