//! Frames between machines that share their connections.

#[allow(dead_code, reason = "whoever calls and hears is not compiled here")]
mod seal;

use self::seal::{Direction, Ends, MAX_CONTENT, RANDOM, Seal};

/// A frame with this content is opened by who has the key, and by nobody once any of its bytes is another one.
pub fn frame(content: &[u8], at: usize, change: u8) {
    let content = &content[..content.len().min(MAX_CONTENT)];
    let frame = sealer().seal(content);
    let (length, sealed) = frame.split_first_chunk::<4>().expect("a frame begins with its length");
    assert_eq!(seal::frame_length(*length), Some(sealed.len()));
    assert_eq!(sealer().open(&mut sealed.to_vec()), Some(content));
    let mut changed = sealed.to_vec();
    let at = at % changed.len();
    changed[at] ^= change;
    assert_eq!(sealer().open(&mut changed).is_some(), change == 0);
}

/// Bytes of somebody without the key.
pub fn stranger(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let Some(frame) = seal::frame_length(*length).and_then(|length| rest.get(..length)) else { return };
    assert_eq!(sealer().open(&mut frame.to_vec()), None);
}

fn sealer() -> Seal {
    let ends = Ends { caller: "lb1", listener: "lb2" };
    Seal::new(b"secret", &[[1; RANDOM], [2; RANDOM]], ends, Direction::Told).expect("the library can")
}
