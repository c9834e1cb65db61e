//! Type-length-value fields of version 2: checked once, read on demand.

use super::BadProxy;

/// Types of section 2.2 of the specification.
pub(super) mod kind {
    pub(crate) const ALPN: u8 = 0x01;
    pub(crate) const AUTHORITY: u8 = 0x02;
    pub(crate) const CRC32C: u8 = 0x03;
    pub(crate) const SSL: u8 = 0x20;
    pub(crate) const SSL_VERSION: u8 = 0x21;
    pub(crate) const SSL_CN: u8 = 0x22;
    pub(crate) const SSL_CIPHER: u8 = 0x23;
}

/// Bits of a TLS TLV's first byte.
pub(super) mod client {
    /// The client connected over TLS.
    pub(crate) const SSL: u8 = 0x01;
    /// It showed a certificate on this connection.
    pub(crate) const CERT_CONN: u8 = 0x02;
    /// It showed one in this session.
    pub(crate) const CERT_SESS: u8 = 0x04;
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// The fields of a header, or of a field; well-formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

/// What the sender's TLS handshake with the client said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Whether the client showed a certificate, and it was verified.
    pub verified: bool,
    /// Such as `TLSv1.3`.
    pub version: Option<&'a str>,
    /// The cipher suite.
    pub cipher: Option<&'a str>,
    /// The common name of the client's certificate.
    pub common_name: Option<&'a str>,
}

impl<'a> Tlvs<'a> {
    /// Takes `bytes` if they are fields to the last byte.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BadProxy> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split(rest).ok_or(BadProxy::Tlv)?.1;
        }
        Ok(Self(bytes))
    }

    /// The fields in their order.
    pub fn iter(self) -> impl Iterator<Item = Tlv<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (tlv, after) = split(rest)?;
            rest = after;
            Some(tlv)
        })
    }

    /// The protocol that ALPN chose.
    #[must_use]
    pub fn alpn(self) -> Option<&'a [u8]> {
        self.first(kind::ALPN)
    }

    /// The server name that the client asked for.
    #[must_use]
    pub fn authority(self) -> Option<&'a str> {
        self.first(kind::AUTHORITY).and_then(|value| str::from_utf8(value).ok())
    }

    /// What TLS said; `None` without TLS.
    #[must_use]
    pub fn tls(self) -> Option<Tls<'a>> {
        let (&[flags, a, b, c, d], rest) = self.first(kind::SSL)?.split_first_chunk::<5>()?;
        if flags & client::SSL == 0 {
            return None;
        }
        let fields = Tlvs::parse(rest).ok()?;
        let text = |kind| fields.first(kind).and_then(|value| str::from_utf8(value).ok());
        Some(Tls {
            verified: flags & (client::CERT_CONN | client::CERT_SESS) != 0 && [a, b, c, d] == [0; 4],
            version: text(kind::SSL_VERSION),
            cipher: text(kind::SSL_CIPHER),
            common_name: text(kind::SSL_CN),
        })
    }

    fn first(self, kind: u8) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// Checks the checksum of `header`, where it has one; its fields begin at `start`.
    pub(super) fn check(self, header: &[u8], start: usize) -> Result<(), BadProxy> {
        let mut at = start;
        for tlv in self.iter() {
            if tlv.kind == kind::CRC32C {
                let told = <[u8; 4]>::try_from(tlv.value).map_err(|_| BadProxy::Tlv)?;
                // It is made over the header with zeroes in its own place.
                let bytes = header
                    .iter()
                    .enumerate()
                    .map(|(index, byte)| if (at + 3..at + 7).contains(&index) { 0 } else { *byte });
                return if crc32c(bytes) == u32::from_be_bytes(told) { Ok(()) } else { Err(BadProxy::Checksum) };
            }
            at += 3 + tlv.value.len();
        }
        Ok(())
    }
}

/// The first field and what follows.
fn split(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((Tlv { kind, value }, after))
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: headers are short and rare.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }
}
