//! Security of SNMP version 3 for what is only sent (RFC 3414): HMAC-SHA-256 cut to 24 bytes (RFC 7860) and AES-128 in CFB mode
//! (RFC 3826). This process is the authoritative engine, so that its own clock counts and nobody has to be asked first.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Instant, SystemTime},
};

use aws_lc_rs::{
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    digest::{self, SHA256},
    hmac,
    iv::FixedLength,
    rand,
};

use crate::alerts::ber::{INTEGER, SEQUENCE, number, octets, of};

/// Bytes of the message that authenticate it (RFC 7860 §4.2.1).
const MAC: usize = 24;

/// Bytes of a passphrase's expansion (RFC 3414 §A.2).
const EXPANSION: usize = 1 << 20;

/// Longest text in an engine's id (RFC 3411 §5).
const MOST_NAME: usize = 27;

/// Largest message that this engine would take; it takes none.
const MAX_SIZE: u32 = 65_507;

/// This process as an SNMP engine.
#[derive(Debug)]
pub(in crate::alerts) struct Engine {
    /// Made of the machine's name: the same after a restart.
    id: Vec<u8>,
    /// Grows with every start (RFC 3414 §2.3), without a file: minutes since 1970.
    boots: u32,
    started: Instant,
    messages: AtomicU32,
}

/// A user whose keys are made for the engine.
pub(in crate::alerts) struct User {
    name: String,
    authentication: hmac::Key,
    privacy: [u8; 16],
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// That of a machine. Two starts within a minute share a boot; the window of 150 s (RFC 3414 §2.2.3) is wider.
    pub(in crate::alerts) fn new(machine: &str) -> Self {
        let minutes = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs() / 60);
        let boots = u32::try_from(minutes & 0x7fff_fffe).unwrap_or(0);
        Self { id: engine_id(machine), boots, started: Instant::now(), messages: AtomicU32::new(1) }
    }

    pub(in crate::alerts) fn up_time(&self) -> u32 {
        super::ticks(self.started)
    }

    /// As receivers are configured with it: hexadecimal.
    pub(in crate::alerts) fn hexadecimal(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// RFC 3411 §5: Net-SNMP's number with the highest bit, then a text.
fn engine_id(machine: &str) -> Vec<u8> {
    const ENTERPRISE_TEXT: [u8; 5] = [0x80, 0x00, 0x1f, 0x88, 4];
    let text = machine.as_bytes();
    [&ENTERPRISE_TEXT, &text[..text.len().min(MOST_NAME)]].concat()
}

impl User {
    pub(in crate::alerts) fn new(name: &str, authentication: &[u8], privacy: &[u8], engine: &Engine) -> Self {
        let authentication = localized(authentication, &engine.id);
        let mut key = [0; 16];
        key.copy_from_slice(&localized(privacy, &engine.id)[..16]);
        Self { name: name.to_owned(), authentication: hmac::Key::new(hmac::HMAC_SHA256, &authentication), privacy: key }
    }
}

/// A passphrase's key, for one engine (RFC 3414 §A.2, with SHA-256).
fn localized(passphrase: &[u8], engine_id: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    let mut left = EXPANSION;
    while left > 0 && !passphrase.is_empty() {
        let part = &passphrase[..passphrase.len().min(left)];
        context.update(part);
        left -= part.len();
    }
    let key = context.finish();
    let mut context = digest::Context::new(&SHA256);
    for part in [key.as_ref(), engine_id, key.as_ref()] {
        context.update(part);
    }
    let mut localized = [0; 32];
    localized.copy_from_slice(context.finish().as_ref());
    localized
}

/// The whole message around a PDU (RFC 3412 §6).
pub(in crate::alerts) fn message(user: &User, engine: &Engine, pdu: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |_| "the cryptographic library refuses".to_owned();
    // Anything that is not used twice with a key and a time (RFC 3826 §3.1.1.1).
    let mut salt = [0; 8];
    rand::fill(&mut salt).map_err(failed)?;
    let seconds = u32::try_from(engine.started.elapsed().as_secs()).unwrap_or(u32::MAX) & 0x7fff_ffff;
    let id = engine.messages.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
    let vector = [engine.boots.to_be_bytes().as_slice(), &seconds.to_be_bytes(), &salt].concat();
    let vector: [u8; 16] = vector.try_into().map_err(|_| "no vector of 16 bytes".to_owned())?;

    let mut scoped = of(SEQUENCE, &[octets(&engine.id), octets(b""), pdu.to_vec()]);
    let key = UnboundCipherKey::new(&AES_128, &user.privacy).map_err(failed)?;
    let key = EncryptingKey::cfb128(key).map_err(failed)?;
    key.less_safe_encrypt(&mut scoped, EncryptionContext::Iv128(FixedLength::from(vector))).map_err(failed)?;

    const AUTHENTICATED_AND_ENCRYPTED: u8 = 3;
    const USER_BASED: u32 = 3;
    let header = [number(INTEGER, id), number(INTEGER, MAX_SIZE), octets(&[AUTHENTICATED_AND_ENCRYPTED])];
    let header = of(SEQUENCE, &[header.concat(), number(INTEGER, USER_BASED)]);
    let (data, privacy) = (octets(&scoped), octets(&salt));
    let security = [
        octets(&engine.id),
        number(INTEGER, engine.boots),
        number(INTEGER, seconds),
        octets(user.name.as_bytes()),
        octets(&[0; MAC]),
        privacy.clone(),
    ];
    let security = octets(&of(SEQUENCE, &security));
    let after = privacy.len() + data.len();
    let mut message = of(SEQUENCE, &[number(INTEGER, 3), header, security, data]);
    let tag = hmac::sign(&user.authentication, &message);
    let at = message.len() - after - MAC;
    message[at..at + MAC].copy_from_slice(&tag.as_ref()[..MAC]);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 3414 §A.3 has vectors for MD5 and SHA-1 alone; this one was computed by Python's `hashlib`, with the passphrase and
    /// the engine of that section.
    #[test]
    fn keys_are_made_for_their_engine() {
        let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let expected = "8982e0e549e866db361a6b625d84cccc11162d453ee8ce3a6445c2d6776f0f8b";
        assert_eq!(hex(&localized(b"maplesyrup", &engine)), expected);
    }

    #[test]
    fn the_tag_is_over_the_message_with_zeros_in_its_place() {
        let engine = Engine::new("lb1");
        assert_eq!(engine.hexadecimal(), "80001f88046c6231");
        let user = User::new("lb", b"authentication", b"privacy-phrase", &engine);
        let mut bytes = message(&user, &engine, &[0xa7, 0]).unwrap();
        let salt = octets(&[0; 8]).len();
        // The last value is the encrypted PDU: its length is in one byte.
        let data = bytes.len()
            - (0..bytes.len())
                .rev()
                .find(|at| bytes[*at] == 4 && bytes.len() - at - 2 == usize::from(bytes[at + 1]))
                .unwrap();
        let at = bytes.len() - data - salt - MAC;
        let tag = bytes[at..at + MAC].to_vec();
        assert_ne!(tag, [0; MAC]);
        bytes[at..at + MAC].fill(0);
        assert_eq!(tag, hmac::sign(&user.authentication, &bytes).as_ref()[..MAC]);
        assert!(!bytes.windows(2).any(|window| window == [0xa7, 0]), "the PDU is not readable");
        assert!(!format!("{user:?}").contains("97"), "no key is shown: {user:?}");
    }
}
