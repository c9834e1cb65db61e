//! Texts as people may see them: characters that a terminal obeys, or that make a text read otherwise than it is written, are
//! spelled out. What others choose (nodes, clients, users, files) goes through here before it is shown. Pure; called by everything
//! that writes to a terminal. JSON stays as it is: its readers are programs.

use std::borrow::Cow;

/// A text within a line: nothing in it moves the cursor, ends the line or turns the direction of reading.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// A text of several lines: as [`line()`], but line breaks and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// JSON for a terminal: the same value, with such characters as JSON's own escapes.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| is_obeyed(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let spell = |shown: String, c: char| match is_obeyed(c) && c != '\n' {
        true => c.encode_utf16(&mut [0; 2]).iter().fold(shown, |shown, unit| format!("{shown}\\u{unit:04x}")),
        false => shown + c.encode_utf8(&mut [0; 4]),
    };
    Cow::Owned(text.chars().fold(String::with_capacity(text.len()), spell))
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            _ if !is_bad(c) => shown.push(c),
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            '\0'..='\x7f' => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal, or its reader, would do something else than see it: control characters (C1 ones begin commands, too), line
/// breaks of Unicode, what turns the direction of reading (CVE-2021-42574), and what is not seen at all.
fn is_obeyed(c: char) -> bool {
    match c {
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        let rows = [
            ("plain ü 例 👩‍🚀", "plain ü 例 👩‍🚀"),
            ("a\u{1b}[2J\u{7}b", "a\\x1b[2J\\x07b"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
            ("a\u{9b}31m\u{7f}", "a\\u{9b}31m\\x7f"),
            ("a\u{202e}txt\u{2066}\u{200f}\u{feff}", "a\\u{202e}txt\\u{2066}\\u{200f}\\u{feff}"),
        ];
        for (text, shown) in rows {
            assert_eq!(line(text), shown);
            assert_eq!(line(&line(text)), line(text), "once is enough");
        }
        assert_eq!(lines("a\n\tb\r\n\u{1b}"), "a\n\tb\\r\n\\x1b");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "a\u{9b}": ["b\u{202e}\u{1b}\n", "c\u{e0041}"] });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(shown.lines().all(|text| line(text) == text), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(matches!(json("{\n  \"a\": 1\n}"), Cow::Borrowed(_)));
    }
}
