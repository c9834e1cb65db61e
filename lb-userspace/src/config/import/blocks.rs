//! Text of nested blocks, `word word { … }`, as keepalived and nginx write it.

/// How deep blocks are read; what is deeper is left out.
const DEEPEST: usize = 32;

/// A statement: its words, and the statements within its braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    /// From 1.
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Statement>,
}

impl Statement {
    /// The first word; never empty.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word behind the first.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The statement as it was written, without its block.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// The first statement within that begins with this word.
    pub(super) fn find(&self, name: &str) -> Option<&Statement> {
        self.block.iter().find(|inner| inner.name() == name)
    }
}

/// What ends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A semicolon, wherever it stands (nginx).
    Semicolon,
    /// The line (keepalived).
    Line,
}

#[derive(Debug)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Reads all statements. `comment` begins a comment that goes to the end of its line.
pub(super) fn read(text: &str, end: End, comments: &[char]) -> Vec<Statement> {
    let tokens = tokens(text, end, comments);
    let mut stack: Vec<Vec<Statement>> = vec![Vec::new()];
    let mut heads: Vec<Statement> = Vec::new();
    let mut current = Statement::default();
    // Blocks within those that are the deepest that are read.
    let mut beyond = 0_usize;
    for (line, token) in tokens {
        match token {
            Token::Open if heads.len() >= DEEPEST => beyond += 1,
            Token::Close if beyond > 0 => beyond -= 1,
            _ if beyond > 0 => {}
            Token::Word(word) => {
                if current.words.is_empty() {
                    current.line = line;
                }
                current.words.push(word);
            }
            Token::Open => {
                // keepalived may have the brace on the line after.
                let last = stack
                    .last_mut()
                    .and_then(|level| level.pop_if(|last| current.words.is_empty() && last.block.is_empty()));
                heads.push(last.unwrap_or_else(|| std::mem::take(&mut current)));
                stack.push(Vec::new());
            }
            Token::End => finish(&mut stack, &mut current),
            Token::Close => {
                finish(&mut stack, &mut current);
                let block = if stack.len() > 1 { stack.pop().unwrap_or_default() } else { Vec::new() };
                if let Some(mut head) = heads.pop() {
                    head.block = block;
                    if let Some(level) = stack.last_mut() {
                        level.push(head);
                    }
                }
            }
        }
    }
    finish(&mut stack, &mut current);
    // Braces that are never closed: what is in them counts.
    while let Some(mut head) = heads.pop() {
        head.block = stack.pop().unwrap_or_default();
        if let Some(level) = stack.last_mut() {
            level.push(head);
        }
    }
    stack.pop().unwrap_or_default()
}

fn finish(stack: &mut [Vec<Statement>], current: &mut Statement) {
    if !current.words.is_empty()
        && let Some(level) = stack.last_mut()
    {
        level.push(std::mem::take(current));
    }
}

fn tokens(text: &str, end: End, comments: &[char]) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let (mut line, mut start) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let ends_word = c.is_whitespace() || matches!(c, '{' | '}') || (c == ';' && end == End::Semicolon);
        // `${name}` is part of a word.
        let is_variable = c == '{' && word.as_ref().is_some_and(|word| word.ends_with('$'));
        if (ends_word && !is_variable || (word.is_none() && comments.contains(&c)))
            && let Some(word) = word.take()
        {
            tokens.push((start, Token::Word(word)));
        }
        match c {
            '\n' => {
                if end == End::Line {
                    tokens.push((line, Token::End));
                }
                line += 1;
            }
            ';' if end == End::Semicolon => tokens.push((line, Token::End)),
            '{' if !is_variable => tokens.push((line, Token::Open)),
            '}' if word.is_none() => tokens.push((line, Token::Close)),
            '"' | '\'' if word.is_none() => {
                start = line;
                let mut quoted = String::new();
                while let Some(inner) = characters.next() {
                    match inner {
                        '\\' => quoted.extend(characters.next()),
                        inner if inner == c => break,
                        inner => {
                            line += usize::from(inner == '\n');
                            quoted.push(inner);
                        }
                    }
                }
                tokens.push((start, Token::Word(quoted)));
            }
            c if word.is_none() && comments.contains(&c) => while characters.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() => {}
            c => {
                if word.is_none() {
                    start = line;
                }
                let word = word.get_or_insert_default();
                word.push(c);
                if is_variable {
                    // To the brace that closes the name.
                    while let Some(inner) = characters.next_if(|c| *c != '\n') {
                        word.push(inner);
                        if inner == '}' {
                            break;
                        }
                    }
                }
            }
        }
    }
    if let Some(word) = word {
        tokens.push((start, Token::Word(word)));
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(statements: &[Statement]) -> String {
        let one = |statement: &Statement| match statement.block.is_empty() {
            true => format!("{}:{}", statement.line, statement.text()),
            false => format!("{}:{} {{{}}}", statement.line, statement.text(), shown(&statement.block)),
        };
        statements.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn blocks_are_read_as_they_are_nested() {
        let nginx = "a 1; # x;\nb {\n c \"d e\" 'f;' ${g}h;\n i{j;}\n}\nk";
        assert_eq!(shown(&read(nginx, End::Semicolon, &['#'])), "1:a 1; 2:b {3:c d e f; ${g}h; 4:i {4:j}}; 6:k");
        let keepalived = "! a\nb c {\n d 1 # e\n f\n {\n  g\n }\n h { i }\n}\n";
        assert_eq!(shown(&read(keepalived, End::Line, &['#', '!'])), "2:b c {3:d 1; 4:f {6:g}; 8:h {8:i}}");
    }

    #[test]
    fn whatever_comes_is_read_to_its_end() {
        for text in ["}", "{", "a {", "a { b { c", "}}}}", "{{{{", "\"", "'a\n", "a \\", "${", "a ${b\n}"] {
            read(text, End::Semicolon, &['#']);
            read(text, End::Line, &['#', '!']);
        }
        read(&"a {".repeat(100_000), End::Semicolon, &['#']);
        read(&("a {".repeat(10_000) + &"}".repeat(10_000)), End::Line, &['#']);
    }
}
