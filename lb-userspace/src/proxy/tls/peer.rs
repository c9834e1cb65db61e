//! What the handshake with a client said, for rules, logs and header fields.

use rustls::{CommonState, HandshakeKind};

use super::{hello::Seen, policy};
use crate::{
    certificate::{self, Facts},
    proxy::facts::{ClientCertificate, TlsFacts},
};

/// Of a finished handshake. A client certificate in it was verified, or rustls would have refused it.
pub(super) fn facts(state: &CommonState, seen: &Seen) -> TlsFacts {
    TlsFacts {
        version: policy::version_name(state.protocol_version()),
        cipher: state.negotiated_cipher_suite().map_or("unknown", |suite| policy::suite_name(suite.suite())),
        server_name: seen.server_name.clone(),
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        client: state.peer_certificates().and_then(|chain| chain.first()).and_then(|der| client(der)),
        session: Some(seen.session),
    }
}

fn client(der: &[u8]) -> Option<ClientCertificate> {
    let facts = Facts::read(der, 1).ok()?;
    Some(ClientCertificate {
        subject: facts.subject,
        issuer: facts.issuer,
        serial: facts.serial,
        fingerprint: facts.fingerprint,
        pem: percent_encoded(&certificate::to_pem("CERTIFICATE", der)),
    })
}

/// RFC 3986 §2.1: everything but unreserved characters, as nginx' `$ssl_client_escaped_cert` has it.
fn percent_encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            encoded.extend(['%', char::from(digits[0]), char::from(digits[1])]);
        }
    }
    encoded
}
