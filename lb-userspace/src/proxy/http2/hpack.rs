//! Compression of header fields, RFC 7541: blocks to fields and fields to blocks, with the state of one direction of a
//! connection. Pure.
//!
//! Fields are lent, not collected: whoever decodes writes them where they are needed. What is encoded enters the dynamic
//! table when it comes a second time, so that values that never come again put nothing out. Strings are written without
//! Huffman coding: what repeats is an index anyway.

use std::cell::RefCell;

mod huffman;
mod table;

use table::{Dynamic, STATIC};

/// Bytes of the dynamic tables, ours and at most the peer's: RFC 9113 §6.5.2's initial value.
const TABLE: usize = 4096;

/// Longest name and value together that is worth an entry.
const MAX_INDEXED: usize = 512;

/// Fields that the encoder remembers to have written once.
const RECENT: usize = 16;

/// The block is none: RFC 9113 §4.3 makes that a connection error, because the tables differ from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadBlock;

thread_local! {
    /// Strings out of Huffman coding: a name and a value.
    static STRINGS: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Memory of strings that is kept.
const MAX_STRINGS: usize = 64 * 1024;

/// The peer's fields.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Dynamic,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Dynamic::new(TABLE) }
    }
}

impl Decoder {
    /// Gives the fields of a whole block to `take`, name and value.
    ///
    /// # Errors
    /// [`BadBlock`]: the connection cannot go on.
    pub(crate) fn decode(&mut self, block: &[u8], mut take: impl FnMut(&[u8], &[u8])) -> Result<(), BadBlock> {
        STRINGS.with_borrow_mut(|(name, value)| {
            let result = self.fields(block, name, value, &mut take);
            for text in [name, value] {
                if text.capacity() > MAX_STRINGS {
                    *text = Vec::new();
                }
            }
            result
        })
    }

    fn fields(
        &mut self,
        block: &[u8],
        name_text: &mut Vec<u8>,
        value_text: &mut Vec<u8>,
        take: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), BadBlock> {
        let mut rest = block;
        let mut begun = false;
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                // §4.2: at the begin alone.
                let most = integer(&mut rest, 5)?;
                if begun || most > TABLE {
                    return Err(BadBlock);
                }
                self.table.set_most(most);
                continue;
            }
            begun = true;
            if first & 0x80 != 0 {
                let (name, value) = self.indexed(integer(&mut rest, 7)?)?;
                take(name, value);
                continue;
            }
            let is_kept = first & 0x40 != 0;
            let index = integer(&mut rest, if is_kept { 6 } else { 4 })?;
            let written = if index == 0 { Some(string(&mut rest, name_text)?) } else { None };
            let value = string(&mut rest, value_text)?;
            let name = match written {
                Some(name) => name,
                None => self.indexed(index)?.0,
            };
            take(name, value);
            if is_kept {
                match written {
                    Some(name) => self.table.insert(name, value, 0),
                    None => {
                        let name = self.indexed(index)?.0.to_vec();
                        self.table.insert(&name, value, 0);
                    }
                }
            }
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<(&[u8], &[u8]), BadBlock> {
        let at = index.checked_sub(1).ok_or(BadBlock)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.table.entry(at - STATIC.len()).ok_or(BadBlock)?;
        Ok((entry.name(), entry.value()))
    }
}

/// Reads an integer with a prefix of `bits`, §5.1.
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, BadBlock> {
    // Far above every length and index there is.
    const MOST: usize = 1 << 28;
    let (first, mut tail) = rest.split_first().ok_or(BadBlock)?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (byte, after) = tail.split_first().ok_or(BadBlock)?;
            tail = after;
            if shift > 28 {
                return Err(BadBlock);
            }
            value += usize::from(byte & 0x7f) << shift;
            if value > MOST {
                return Err(BadBlock);
            }
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = tail;
    Ok(value)
}

/// Reads a string, §5.2: out of the block, or out of `text` where it was coded.
fn string<'t, 'b: 't>(rest: &mut &'b [u8], text: &'t mut Vec<u8>) -> Result<&'t [u8], BadBlock> {
    let is_coded = rest.first().ok_or(BadBlock)? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(BadBlock)?;
    *rest = after;
    if !is_coded {
        return Ok(bytes);
    }
    text.clear();
    huffman::decode(bytes, text).map_err(|_| BadBlock)?;
    Ok(text)
}

/// Our fields.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Dynamic,
    /// The least size and the last one that the peer asked for since the last block, which has to tell them (§4.2).
    resized: Option<(usize, usize)>,
    /// Hashes of fields that were written once and are not in the table.
    recent: [u64; RECENT],
    next: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { table: Dynamic::new(TABLE), resized: None, recent: [0; RECENT], next: 0 }
    }
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It may enter the dynamic table.
    Yes,
    /// As a rule its value comes once.
    No,
    /// Nobody on the way may put it into a table either (§7.1.3).
    Never,
}

impl Encoder {
    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`.
    pub(crate) fn set_table_size(&mut self, size: u32) {
        let size = (size as usize).min(TABLE);
        let least = self.resized.map_or(size, |(least, _)| least.min(size));
        self.resized = Some((least, size));
    }

    /// Begins a block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some((least, last)) = self.resized.take() else { return };
        if last == least && last == self.table.most() {
            return;
        }
        self.table.set_most(least);
        write_integer(out, 0x20, 5, least);
        if last != least {
            self.table.set_most(last);
            write_integer(out, 0x20, 5, last);
        }
    }

    /// Appends `:status`.
    pub(crate) fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            other => {
                let digit = |place: u16| b'0' + (other / place % 10) as u8;
                out.extend_from_slice(&[0x08, 3, digit(100), digit(10), digit(1)]);
                return;
            }
        };
        out.push(0x80 | index);
    }

    /// Appends a field. Names become lower case; `known` is the name's place in the static table, 0: unknown.
    pub(crate) fn field(&mut self, out: &mut Vec<u8>, known: usize, name: &[u8], value: &[u8], keep: Keep) {
        let is_kept = keep == Keep::Yes && name.len() + value.len() <= MAX_INDEXED;
        let mut kind = if keep == Keep::Never { 0x10 } else { 0 };
        if is_kept {
            let hash = hash(name, value);
            let found =
                self.table.find(hash, |entry| entry.value() == value && entry.name().eq_ignore_ascii_case(name));
            if let Some(at) = found {
                return write_integer(out, 0x80, 7, at + STATIC.len() + 1);
            }
            if self.recent.contains(&hash) {
                kind = 0x40;
                self.table.insert(&name.to_ascii_lowercase(), value, hash);
            } else {
                self.recent[self.next] = hash;
                self.next = (self.next + 1) % RECENT;
            }
        }
        write_integer(out, kind, if kind == 0x40 { 6 } else { 4 }, known);
        if known == 0 {
            write_integer(out, 0, 7, name.len());
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        }
        write_integer(out, 0, 7, value.len());
        out.extend_from_slice(value);
    }
}

/// The place of a lower-case name in the static table; 0: it is not there.
#[cfg(test)]
pub(crate) fn static_index(name: &str) -> usize {
    STATIC.iter().position(|(other, _)| *other == name).map_or(0, |at| at + 1)
}

/// A number for a field, the same for every case of its name: what is found by it is compared.
fn hash(name: &[u8], value: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (name.len() as u64) << 32 | value.len() as u64;
    let mut add = |word: u64| state = (state.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    for (part, case) in [(name, 0x2020_2020_2020_2020), (value, 0)] {
        let mut words = part.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            add(u64::from_le_bytes(bytes) | case);
        }
        let mut bytes = [0; 8];
        bytes[..words.remainder().len()].copy_from_slice(words.remainder());
        add(u64::from_le_bytes(bytes) | case);
    }
    // 0 is an empty place among the recent ones.
    state | 1
}

/// Appends an integer with a prefix of `bits` behind `kind`, §5.1.
fn write_integer(out: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(kind | value as u8);
    }
    out.push(kind | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests;
