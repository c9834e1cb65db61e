//! Names: what a certificate covers, and distinguished names as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, x509::X509Name};

/// What a certificate is for: its DNS names and addresses, or its common name where it has none of these.
#[must_use]
pub fn covered(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let general = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let named: Vec<String> = general.filter_map(as_text).collect();
    if !named.is_empty() {
        return named;
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.filter(|name| is_dns(name)).map(str::to_ascii_lowercase).collect()
}

fn as_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

fn is_dns(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    !rest.is_empty()
        && rest.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Whether a name of a certificate covers a host: the same, or `*.` for its first label (RFC 9525 §6.3). Both in lower case.
#[must_use]
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == host,
    }
}

/// A distinguished name as RFC 4514 writes it: last part first, special characters escaped.
#[must_use]
pub fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let relative = parts.iter().rev().map(|part| {
        let attributes = part.iter().map(|attribute| {
            let id = attribute.attr_type().to_id_string();
            let value = match attribute.as_str() {
                Ok(text) => escape(text),
                // §2.4: what is no text is the hexadecimal form of its encoding.
                Err(_) => attribute.as_slice().iter().fold("#".into(), |text, byte| format!("{text}{byte:02x}")),
            };
            format!("{}={value}", short(&id).unwrap_or(&id))
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    relative.collect::<Vec<_>>().join(",")
}

/// RFC 4514 §3, and the attributes that certificates of people carry.
fn short(id: &str) -> Option<&'static str> {
    Some(match id {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// RFC 4514 §2.4. Control characters are escaped as well: the text goes into header fields and logs (THREATS.md, H6).
fn escape(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' | ' ' if at == 0 => text.extend(['\\', c]),
            ' ' if at == last => text.extend(['\\', c]),
            c if c.is_control() || !c.is_ascii() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    text.push_str(&format!("\\{byte:02X}"));
                }
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let rows = [
            ("www.example.com", "www.example.com", true),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("www.example.com", "example.com", false),
        ];
        for (pattern, host, expected) in rows {
            assert_eq!(covers(pattern, host), expected, "{pattern} for {host}");
        }
    }

    #[test]
    fn distinguished_values_cannot_leave_their_place() {
        let rows = [
            ("Acme", "Acme"),
            ("Acme, Inc.", "Acme\\, Inc."),
            (" a ", "\\ a\\ "),
            ("#1", "\\#1"),
            ("a\r\nX-Evil: 1", "a\\0D\\0AX-Evil: 1"),
            ("Bücher", "B\\C3\\BCcher"),
        ];
        for (value, expected) in rows {
            assert_eq!(escape(value), expected);
        }
    }
}
