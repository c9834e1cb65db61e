//! The Huffman code of header strings, RFC 7541 §5.2 and Appendix B.
//!
//! The code is canonical: the lengths say it all, and the tables are made of them when this is compiled.

/// Bits of each symbol's code; 256 is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const EOS: u16 = 256;

/// The longest code.
const LONGEST: usize = 30;

/// Bits that are looked up at once.
const FAST: usize = 8;

struct Tables {
    /// Symbols by code: shorter ones first, then by value.
    symbols: [u16; 257],
    /// For each length the first code of it, and where its symbols begin.
    first: [u32; LONGEST + 2],
    place: [u16; LONGEST + 2],
    /// For each of the next bits the symbol and the length of its code; length 0: a longer one.
    fast: [(u8, u8); 1 << FAST],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut made =
        Tables { symbols: [0; 257], first: [0; LONGEST + 2], place: [0; LONGEST + 2], fast: [(0, 0); 1 << FAST] };
    let (mut length, mut count, mut code) = (1, 0, 0_u32);
    while length <= LONGEST + 1 {
        made.first[length] = code;
        made.place[length] = count as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                made.symbols[count] = symbol as u16;
                if length <= FAST {
                    let start = (code as usize) << (FAST - length);
                    let mut at = start;
                    while at < start + (1 << (FAST - length)) {
                        made.fast[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                count += 1;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    made
}

/// The string is no Huffman code: EOS within it, or padding that is not the begin of EOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCode;

/// Appends what `coded` stands for.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), BadCode> {
    out.reserve(coded.len() * 8 / 5);
    // The next bits are the highest ones of `bits`, `filled` of them.
    let (mut bits, mut filled, mut rest) = (0_u64, 0_usize, coded.iter());
    loop {
        while filled <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - filled);
            filled += 8;
        }
        if filled == 0 {
            return Ok(());
        }
        let (symbol, length) = match TABLES.fast[(bits >> (64 - FAST)) as usize] {
            (symbol, length) if length > 0 => (u16::from(symbol), usize::from(length)),
            _ => long(bits),
        };
        if length > filled {
            // RFC 7541 §5.2: less than a byte, all ones.
            let is_padding = filled < 8 && bits >> (64 - filled) == (1 << filled) - 1;
            return if is_padding { Ok(()) } else { Err(BadCode) };
        }
        if symbol == EOS {
            return Err(BadCode);
        }
        out.push(symbol as u8);
        bits <<= length;
        filled -= length;
    }
}

/// Symbol and length of a code that is longer than [`FAST`].
fn long(bits: u64) -> (u16, usize) {
    for length in FAST + 1..LONGEST {
        let code = (bits >> (64 - length)) as u32;
        let count = u32::from(TABLES.place[length + 1] - TABLES.place[length]);
        if code < TABLES.first[length] + count {
            let at = usize::from(TABLES.place[length]) + (code - TABLES.first[length]) as usize;
            return (TABLES.symbols[at], length);
        }
    }
    let code = (bits >> (64 - LONGEST)) as u32;
    let at = usize::from(TABLES.place[LONGEST]) + code.saturating_sub(TABLES.first[LONGEST]) as usize;
    (TABLES.symbols[at.min(256)], LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, BadCode> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 7541 Appendix C.4 and C.6.
        let cases: [(&str, &[u8]); 5] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
        ];
        for (text, coded) in cases {
            assert_eq!(decoded(coded).unwrap(), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn every_symbol_is_found_by_its_code() {
        for (symbol, length) in LENGTHS.iter().enumerate().take(256) {
            let length = usize::from(*length);
            let at = TABLES.symbols.iter().position(|other| usize::from(*other) == symbol).unwrap();
            let code = TABLES.first[length] + (at as u32 - u32::from(TABLES.place[length]));
            // Padded by ones.
            let bits = (u64::from(code) << (64 - length)) | (u64::MAX >> length);
            let bytes = bits.to_be_bytes();
            assert_eq!(decoded(&bytes[..length.div_ceil(8)]).unwrap(), [symbol as u8], "{symbol}");
        }
        // Appendix B, by the letter: LF is 30 bits, |11111111|11111111|11111111|111100, and 0xf9 28.
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xf3]).unwrap(), b"\n");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xef]).unwrap(), [0xf9]);
    }

    #[test]
    fn bad_endings() {
        for coded in
            [&[0xff][..], &[0x18], &[0xff, 0xff, 0xff, 0xff], &[0xfe], &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf, 0xff]]
        {
            assert_eq!(decoded(coded), Err(BadCode), "{coded:x?}");
        }
        assert_eq!(decoded(&[]), Ok(Vec::new()));
    }
}
