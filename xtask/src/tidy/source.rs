//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// The text with comments and the content of literals replaced by blanks; lines and columns (in characters) stay.
pub(super) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the literal or comment that begins at `at` ends; `at` when none begins there.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment(chars, at),
        '"' => quoted(chars, at + 1, '"'),
        'r' if !follows_word(chars, at) => raw_string(chars, at),
        '\'' => character(chars, at),
        _ => at,
    }
}

fn find(chars: &[char], from: usize, is_end: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| is_end(*c)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

/// After the closing quote; a backslash escapes the next character.
fn quoted(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier (`r#type`) is none.
fn raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    chars[open + 1..].windows(close.len()).position(|w| w == close).map_or(chars.len(), |n| open + 1 + n + close.len())
}

/// `'a'` and `'\n'`; a lifetime is none.
fn character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => quoted(chars, at + 1, '\''),
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// Whether the character at `at` continues a word: the `r` of `for` begins no literal. `b` and `c` prefixes may precede.
fn follows_word(chars: &[char], at: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let Some(before) = at.checked_sub(1) else { return false };
    let prefixed = matches!(chars[before], 'b' | 'c') && before.checked_sub(1).is_none_or(|i| !is_word(chars[i]));
    is_word(chars[before]) && !prefixed
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let rows = [
            ("line comment", "a // b\nc", "a     \nc"),
            ("nested block comment", "a /* b /* c */ d */ e", "a                   e"),
            ("string with an escaped quote", r#"x("a\"b") y"#, "x(      ) y"),
            ("comment signs inside a string", r#"f("//", 1)"#, "f(    , 1)"),
            ("raw string", "r#\"a \" b\"# c", "           c"),
            ("byte raw string", "br\"\\\" c", "b     c"),
            ("raw identifier", "r#type = 1", "r#type = 1"),
            ("a word that ends in r", "for\"x\"", "for   "),
            ("character", "'\"' 'x' '\\'' z", "             z"),
            ("lifetime", "&'a str, 'static", "&'a str, 'static"),
            ("line kept inside a string", "\"a\nb\" c", "  \n   c"),
            ("never closed", "\"a", "  "),
        ];
        for (name, text, expected) in rows {
            assert_eq!(code(text), expected, "{name}");
        }
    }
}
