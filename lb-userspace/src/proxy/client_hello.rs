//! What a ClientHello asks for: server name and protocols, read without touching its bytes, RFC 8446 §4.1.2 and RFC 6066 §3.
//!
//! Pure. Called for TLS pass-through, before a pool is chosen. Must never guess: what is not certainly a ClientHello is
//! an error, and a name that no host can have is one, too.

use std::borrow::Cow;

/// Most bytes of a ClientHello.
pub const MAX_BYTES: usize = 16 * 1024;
/// Records that a ClientHello may come in: those of honest clients come in one to three.
const MAX_RECORDS: usize = 64;
/// Most bytes that are ever needed of the connection.
pub const MAX_WIRE: usize = MAX_BYTES + MAX_RECORDS * RECORD_HEAD;
/// Most protocols that are listed.
const MAX_PROTOCOLS: usize = 32;
const RECORD_HEAD: usize = 5;

/// What it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, lower case; `None`: it names none.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN (RFC 7301), in order, GREASE included.
    pub protocols: Vec<Vec<u8>>,
}

/// Why no server name can be had. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// Not TLS, or not a handshake.
    #[error("not a TLS handshake")]
    NotTls,
    /// Longer than [`MAX_BYTES`], or in too many records.
    #[error("ClientHello too long")]
    TooLong,
    /// A length in it does not fit.
    #[error("malformed ClientHello")]
    Malformed,
    /// More than one server name, or one that no host can have.
    #[error("bad server name")]
    ServerName,
}

/// Reads the ClientHello at the beginning of `buf`, over all records it comes in; `None`: it is not complete.
///
/// # Errors
///
/// [`BadHello`] as soon as it is certain.
pub fn peek(buf: &[u8]) -> Result<Option<ClientHello>, BadHello> {
    let Some(message) = handshake(buf)? else { return Ok(None) };
    parse(&message).map(Some)
}

/// The body of the first handshake message, a ClientHello; `None`: it is not complete. Copied where it spans records.
fn handshake(buf: &[u8]) -> Result<Option<Cow<'_, [u8]>>, BadHello> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = buf;
    for _ in 0..MAX_RECORDS {
        check_record(rest)?;
        let Some((&[_, _, _, high, low], after)) = rest.split_first_chunk::<RECORD_HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (part, next) = after.split_at(length.min(after.len()));
        if message.is_empty() {
            message = Cow::Borrowed(part);
        } else {
            message.to_mut().extend_from_slice(part);
        }
        match message.first() {
            Some(1) | None => {}
            Some(_) => return Err(BadHello::NotTls),
        }
        if let Some(&[_, high, middle, low]) = message.first_chunk::<4>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MAX_BYTES - 4 {
                return Err(BadHello::TooLong);
            }
            if message.len() >= 4 + length {
                return Ok(Some(match message {
                    Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + length]),
                    Cow::Owned(mut message) => {
                        message.truncate(4 + length);
                        message.drain(..4);
                        Cow::Owned(message)
                    }
                }));
            }
        }
        if part.len() < length {
            return Ok(None);
        }
        rest = next;
    }
    Err(BadHello::TooLong)
}

/// Whether `rest` begins, as far as it came, with the head of a record of a handshake: type 22, version 3.x, not empty.
fn check_record(rest: &[u8]) -> Result<(), BadHello> {
    let fits = |at: usize, fits: fn(u8) -> bool| rest.get(at).is_none_or(|byte| fits(*byte));
    if !fits(0, |kind| kind == 22) || !fits(1, |major| major == 3) || !fits(2, |minor| minor <= 4) {
        return Err(BadHello::NotTls);
    }
    match rest.get(3..RECORD_HEAD) {
        Some(&[high, low]) if !(1..=1 << 14).contains(&u16::from_be_bytes([high, low])) => Err(BadHello::Malformed),
        _ => Ok(()),
    }
}

/// Takes a ClientHello apart.
fn parse(message: &[u8]) -> Result<ClientHello, BadHello> {
    let mut hello = ClientHello::default();
    let mut reader = Reader(message);
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    if reader.0.is_empty() {
        // TLS 1.2 without extensions.
        return Ok(hello);
    }
    let mut extensions = Reader(reader.vector(2)?);
    reader.end()?;
    let (mut has_name, mut has_protocols) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let value = extensions.vector(2)?;
        match kind {
            0 if std::mem::replace(&mut has_name, true) => return Err(BadHello::ServerName),
            0 => hello.server_name = server_name(value)?,
            16 if std::mem::replace(&mut has_protocols, true) => return Err(BadHello::Malformed),
            16 => hello.protocols = protocols(value)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// The one `host_name` of the extension's list; names of other types are passed over.
fn server_name(value: &[u8]) -> Result<Option<String>, BadHello> {
    let mut reader = Reader(value);
    let mut list = Reader(reader.vector(2)?);
    reader.end()?;
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.number(1)?;
        let name = list.vector(2)?;
        if kind == 0 && found.replace(host_name(name)?).is_some() {
            return Err(BadHello::ServerName);
        }
    }
    Ok(found)
}

/// A name of letters, digits, `-` and `_` with single dots between, without one at the end (RFC 6066 §3).
fn host_name(name: &[u8]) -> Result<String, BadHello> {
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split(|byte| *byte == b'.').all(is_label) {
        return Err(BadHello::ServerName);
    }
    Ok(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

fn protocols(value: &[u8]) -> Result<Vec<Vec<u8>>, BadHello> {
    let mut reader = Reader(value);
    let mut list = Reader(reader.vector(2)?);
    reader.end()?;
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let name = list.vector(1)?;
        if name.is_empty() || found.len() == MAX_PROTOCOLS {
            return Err(BadHello::Malformed);
        }
        found.push(name.to_vec());
    }
    Ok(found)
}

/// Reads numbers and vectors of the TLS presentation language, RFC 8446 §3.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, BadHello> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector whose length is told in `bytes` bytes.
    fn vector(&mut self, bytes: usize) -> Result<&'a [u8], BadHello> {
        let length = self.number(bytes)?;
        self.take(length)
    }

    fn end(&self) -> Result<(), BadHello> {
        if self.0.is_empty() { Ok(()) } else { Err(BadHello::Malformed) }
    }
}

#[cfg(test)]
mod tests;
