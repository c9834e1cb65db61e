//! HTTP/2's pure parts, and what must hold of them: they are not public, so that the body of the target is here.

// Frames are written and judged by parts that are not compiled here.
#[allow(dead_code, reason = "not all of it is judged here")]
mod frame;
#[allow(dead_code, reason = "not all of it is judged here")]
mod hpack;
#[allow(dead_code, reason = "not all of it is judged here")]
mod request;

use self::{
    hpack::{Decoder, Encoder, Keep},
    request::Builder,
};
use super::h1::{Slots, request as h1};
use crate::control::proxy::http::Strictness;

/// What a head may have at most.
const MOST: usize = 4096;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Blocks of one connection, each the fields of a request that ends or does not.
pub fn blocks(blocks: &[(bool, &[u8])]) {
    let (mut ours, mut theirs) = (Decoder::default(), httlib_hpack::Decoder::with_dynamic_size(4096));
    let (mut encoder, mut back) = (Encoder::default(), Decoder::default());
    for (ends, block) in blocks {
        let mut fields = Fields::new();
        if ours.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec()))).is_err() {
            // The connection is closed.
            return;
        }
        agree(&mut theirs, block, &fields);
        come_back(&mut encoder, &mut back, &fields);
        ask(&fields, *ends);
    }
}

/// Another decoder reads the same, where it reads the block at all: its limits are others.
fn agree(theirs: &mut httlib_hpack::Decoder<'_>, block: &[u8], fields: &Fields) {
    let (mut rest, mut read) = (block.to_vec(), Vec::new());
    if theirs.decode(&mut rest, &mut read).is_ok() {
        let read: Fields = read.into_iter().map(|(name, value, _)| (name, value)).collect();
        assert_eq!(&read, fields, "both decoders agree");
    }
}

/// What we write of fields is read as them, but for the case of names.
fn come_back(encoder: &mut Encoder, back: &mut Decoder, fields: &Fields) {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (at, (name, value)) in fields.iter().enumerate() {
        let keep = [Keep::Yes, Keep::No, Keep::Never][at % 3];
        encoder.field(&mut out, 0, name, value, keep);
    }
    let mut read = Fields::new();
    back.decode(&out, |name, value| read.push((name.to_vec(), value.to_vec()))).expect("what we write is a block");
    let lower: Fields = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    assert_eq!(read, lower, "what was written is read");
}

/// A request out of fields: refused, or one whole head of HTTP/1.1 that says no more than they do.
fn ask(fields: &Fields, ends: bool) {
    let mut builder = Builder::new(MOST);
    fields.iter().for_each(|(name, value)| builder.field(name, value));
    let Ok(request) = builder.finish(ends) else { return };
    if request.refusal.is_some() {
        return;
    }
    let mut slots = Slots::new();
    let strictness = Strictness { max_head_bytes: 2 * MOST as u32, ..Strictness::default() };
    let Ok(head) = h1::parse(&request.text, &strictness, &mut slots) else { return };
    let head = head.expect("a head that was written is whole");
    assert_eq!(head.len(), request.text.len(), "and there is nothing behind it");
    let mut space = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut space);
    let status = other.parse(&request.text).expect("httparse takes it");
    assert_eq!(status, httparse::Status::Complete(request.text.len()));
    let count = |name: &str| other.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(count("host"), 1, "exactly one Host");
    assert!(count("cookie") <= 1 && count("content-length") + count("transfer-encoding") <= 1);
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "te"] {
        assert_eq!(count(name), 0, "{name} concerns one connection");
    }
    let is_regular = |name: &[u8]| !name.starts_with(b":") && name != b"host" && name != b"cookie" && name != b"te";
    let came = fields.iter().filter(|(name, _)| is_regular(name)).count();
    let own = count("host") + count("cookie") + count("transfer-encoding");
    // A length that came twice is one, and a body without one has ours.
    assert!(other.headers.len() <= came + own + 1, "no field is made up");
    assert!(ends || count("content-length") + count("transfer-encoding") == 1, "a body has framing");
}
