//! Frames that only machines of the cluster can write and read, each in its place alone. Pure.
//!
//! ```text
//! listener → "LBS2", 32 random bytes
//! caller   → "LBS2", its name's length and name, 32 random bytes
//! then     → frames: 4 bytes of length, that many of AES-256-GCM with its tag; the first one is empty
//! listener → one empty frame: it has the key as well
//! ```
//!
//! Keys are made by HKDF-SHA256 of the cluster's secret, with both random numbers as salt, and direction and both names as info: a
//! recording means nothing in another connection, whoever calls reaches the machine it means, and frames are numbered by their
//! nonces, so that within one none can be repeated, left out or moved.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};

/// What both sides begin with.
pub(super) const MAGIC: [u8; 4] = *b"LBS2";
/// Random bytes of each side.
pub(super) const RANDOM: usize = 32;
/// The longest content of a frame.
pub(super) const MAX_CONTENT: usize = 32 * 1024;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;
/// The longest name of a machine.
pub(super) const MAX_NAME: usize = 63;

/// Names of the two machines of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'n> {
    pub(super) caller: &'n str,
    pub(super) listener: &'n str,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Told,
    Answer,
}

/// One direction of a connection.
pub(super) struct Seal {
    key: LessSafeKey,
    number: u64,
}

impl Seal {
    /// `salt`: what the listener and the caller drew, in this order. `None` when the library cannot: it never does.
    pub(super) fn new(secret: &[u8], salt: &[[u8; RANDOM]; 2], ends: Ends<'_>, direction: Direction) -> Option<Self> {
        let salt = Salt::new(HKDF_SHA256, &salt.concat());
        let word: &[u8] = match direction {
            Direction::Told => b"lb share told ",
            Direction::Answer => b"lb share answer ",
        };
        let secret = salt.extract(secret);
        // With its length: where one name ends is certain.
        let length = [u8::try_from(ends.caller.len()).ok()?];
        let info = [word, &length, ends.caller.as_bytes(), ends.listener.as_bytes()];
        let key = UnboundKey::from(secret.expand(&info, &AES_256_GCM).ok()?);
        Some(Self { key: LessSafeKey::new(key), number: 0 })
    }

    /// Each nonce is used once: the key is new in every connection, and a connection ends long before 2⁶⁴ frames.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A whole frame with this content, [`MAX_CONTENT`] at most.
    pub(super) fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + TAG).unwrap_or(u32::MAX).to_be_bytes();
        let mut sealed = content.to_vec();
        let nonce = self.nonce();
        if self.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut sealed).is_err() {
            // Only of contents beyond 64 GiB. An empty frame is not opened by anybody.
            sealed.clear();
        }
        [&length[..], &sealed].concat()
    }

    /// The content of a frame whose length was read before; `None`: nobody who has the key has written it here.
    pub(super) fn open<'f>(&mut self, frame: &'f mut [u8]) -> Option<&'f [u8]> {
        let length = u32::try_from(frame.len()).ok()?.to_be_bytes();
        let nonce = self.nonce();
        self.key.open_in_place(nonce, Aad::from(length), frame).ok().map(|content| &*content)
    }
}

/// The length of the frame that follows, when it is one that may be.
pub(super) fn frame_length(bytes: [u8; 4]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes) as usize;
    (TAG..=MAX_CONTENT + TAG).contains(&length).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [[u8; RANDOM]; 2] = [[1; RANDOM], [2; RANDOM]];

    fn seal(secret: &[u8], salt: [[u8; RANDOM]; 2], names: [&str; 2], direction: Direction) -> Seal {
        let [caller, listener] = names;
        Seal::new(secret, &salt, Ends { caller, listener }, direction).unwrap()
    }

    fn own() -> Seal {
        seal(b"secret", SALT, ["lb1", "lb2"], Direction::Told)
    }

    fn opened(seal: &mut Seal, frame: &[u8]) -> Option<Vec<u8>> {
        let (length, sealed) = frame.split_first_chunk::<4>()?;
        assert_eq!(frame_length(*length), Some(sealed.len()));
        seal.open(&mut sealed.to_vec()).map(<[u8]>::to_vec)
    }

    #[test]
    fn frames_are_opened_in_their_order_and_once() {
        let (mut writer, mut reader) = (own(), own());
        let frames = [writer.seal(b""), writer.seal(b"one"), writer.seal(b"two")];
        assert_eq!(opened(&mut reader, &frames[0]).as_deref(), Some(&b""[..]));
        assert_eq!(opened(&mut reader, &frames[1]).as_deref(), Some(&b"one"[..]));
        assert_eq!(opened(&mut reader, &frames[1]), None, "repeated");
        let mut reader = own();
        assert_eq!(opened(&mut reader, &frames[1]), None, "one was left out");
    }

    #[test]
    fn whoever_has_another_key_connection_name_or_direction_opens_nothing() {
        let others = [
            ("secret", seal(b"other", SALT, ["lb1", "lb2"], Direction::Told)),
            ("listener's number", seal(b"secret", [[3; RANDOM], SALT[1]], ["lb1", "lb2"], Direction::Told)),
            ("caller's number", seal(b"secret", [SALT[0], [3; RANDOM]], ["lb1", "lb2"], Direction::Told)),
            ("caller's name", seal(b"secret", SALT, ["lb3", "lb2"], Direction::Told)),
            ("listener's name", seal(b"secret", SALT, ["lb1", "lb3"], Direction::Told)),
            ("where one name ends", seal(b"secret", SALT, ["lb", "1lb2"], Direction::Told)),
            ("direction", seal(b"secret", SALT, ["lb1", "lb2"], Direction::Answer)),
        ];
        for (what, mut reader) in others {
            assert_eq!(opened(&mut reader, &own().seal(b"x")), None, "{what}");
        }
    }

    #[test]
    fn a_changed_byte_is_found() {
        let frame = own().seal(b"content");
        for at in 4..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&mut own(), &changed), None, "byte {at}");
        }
        assert!(!frame.windows(7).any(|window| window == b"content"), "it is not to be read on the way");
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused() {
        for (length, is_good) in
            [(0, false), (15, false), (16, true), (32_784, true), (32_785, false), (u32::MAX, false)]
        {
            assert_eq!(frame_length(length.to_be_bytes()).is_some(), is_good, "{length}");
        }
    }
}
