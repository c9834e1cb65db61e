//! What of BER (X.690) SNMP needs to be written. Pure. Nothing is read: traps have no answer.

/// Tags (RFC 3416, RFC 2578 §7.1).
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const UNSIGNED: u8 = 0x42;
pub(super) const TIME_TICKS: u8 = 0x43;
/// SNMPv2-Trap-PDU.
pub(super) const TRAP: u8 = 0xa7;

/// A tag, a length and what is within.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    if content.len() < 0x80 {
        bytes.push(content.len().to_le_bytes()[0]);
    } else {
        let length: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(0x80 | length.len().to_le_bytes()[0]);
        bytes.extend(length);
    }
    bytes.extend_from_slice(content);
    bytes
}

/// Several values, one after the other, within one.
pub(super) fn of(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    value(tag, &parts.concat())
}

/// A number that is not negative, with as few bytes as its sign allows.
pub(super) fn number(tag: u8, number: u32) -> Vec<u8> {
    let bytes = u64::from(number).to_be_bytes();
    let first = (0..bytes.len() - 1).take_while(|at| bytes[*at] == 0 && bytes[at + 1] < 0x80).count();
    value(tag, &bytes[first..])
}

/// An octet string.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    value(OCTETS, bytes)
}

/// An object identifier of at least two numbers.
pub(super) fn oid(numbers: &[u32]) -> Vec<u8> {
    let (head, tail) = numbers.split_at(numbers.len().min(2));
    let first = head.first().copied().unwrap_or(0) * 40 + head.get(1).copied().unwrap_or(0);
    let mut content = Vec::new();
    for number in [first].iter().chain(tail) {
        let groups: Vec<u8> = (0..5).rev().map(|at| ((number >> (7 * at)) & 0x7f).to_le_bytes()[0]).collect();
        let leading = groups.iter().take(4).take_while(|group| **group == 0).count();
        let (last, more) = groups[leading..].split_last().unwrap_or((&0, &[]));
        content.extend(more.iter().map(|group| group | 0x80));
        content.push(*last);
    }
    value(OID, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_x690_says() {
        assert_eq!(number(INTEGER, 0), [2, 1, 0]);
        assert_eq!(number(INTEGER, 127), [2, 1, 127]);
        assert_eq!(number(INTEGER, 128), [2, 2, 0, 128]);
        assert_eq!(number(INTEGER, 256), [2, 2, 1, 0]);
        assert_eq!(number(UNSIGNED, u32::MAX), [0x42, 5, 0, 255, 255, 255, 255]);
        assert_eq!(octets(b"ab"), [4, 2, b'a', b'b']);
        assert_eq!(octets(&[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(octets(&[0; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(oid(&[1, 3, 6, 1, 4, 1, 8072]), [6, 7, 0x2b, 6, 1, 4, 1, 0xbf, 8]);
        assert_eq!(oid(&[1, 3, u32::MAX])[2..], [0x2b, 0x8f, 0xff, 0xff, 0xff, 0x7f]);
    }
}
