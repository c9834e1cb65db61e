//! What fits the width of a terminal: sentences are broken between words, and of a table's columns those that can be spared are left
//! out. Pure.

/// Columns of a line in which a break finds its hanging indent.
const MOST_INDENT: usize = 48;

/// The least room for a column of sentences.
const LEAST_SENTENCE: usize = 20;

/// What is known of a column: how wide its widest place is, whether it may be broken, and how easily it is spared (0: never).
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) width: usize,
    pub(super) wraps: bool,
    pub(super) spare: u8,
}

/// Which columns are left out of a drawn table so that it fits, by their positions.
pub(super) fn left_out(columns: &[Wanted], width: usize) -> Vec<usize> {
    let mut out = Vec::new();
    loop {
        let there = || columns.iter().enumerate().filter(|(index, _)| !out.contains(index));
        let room = |column: &Wanted| if column.wraps { column.width.min(LEAST_SENTENCE) } else { column.width };
        // A border and two blanks each, and the last border.
        let total = there().map(|(_, column)| room(column) + 3).sum::<usize>() + 1;
        let spared = there().filter(|(_, column)| column.spare > 0).max_by_key(|(_, column)| column.spare);
        let Some((spared, _)) = spared.filter(|_| total > width) else { return out };
        out.push(spared);
    }
}

/// Lines broken between words where they are wider, what follows under where the text began. Tables stay as they are.
pub(in crate::ctl) fn fold(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    text.split_inclusive('\n').map(|line| fold_line(line, width)).collect()
}

fn fold_line(line: &str, width: usize) -> String {
    if seen(line.trim_end()) <= width || line.starts_with(['╭', '│', '├', '╞', '╰']) {
        return line.to_owned();
    }
    let indent = indent(line);
    let mut folded = String::new();
    let mut column = 0;
    for word in line.split_inclusive(' ') {
        let length = seen(word.trim_end());
        if column > indent && column + length > width {
            folded.truncate(folded.trim_end_matches(' ').len());
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            column = indent;
        }
        folded.push_str(word);
        column += seen(word.trim_end_matches('\n'));
    }
    folded
}

/// Where the text of a line begins: behind its last wide gap, or behind `next:`.
fn indent(line: &str) -> usize {
    let start: usize = line.len() - line.trim_start().len();
    let behind = if line.trim_start().starts_with("next: ") { start + "next: ".len() } else { start };
    let bytes = line.as_bytes();
    let is_behind_gap = |at: &usize| bytes[*at] != b' ' && bytes[at - 1] == b' ' && bytes[at - 2] == b' ';
    let gap = (2..bytes.len()).filter(is_behind_gap).map(|at| seen(&line[..at])).filter(|at| *at <= MOST_INDENT).max();
    gap.unwrap_or(0).max(behind)
}

/// Columns of a text, without what colours it.
fn seen(text: &str) -> usize {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().chars().count();
    first + parts.map(|part| part.split_once('m').map_or(part, |(_, rest)| rest).chars().count()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words_and_hang() {
        let rows = [
            ("short\n", "short\n"),
            ("aaaa bbbb cccc dddd eeee\n", "aaaa bbbb cccc dddd\neeee\n"),
            ("warning  eth0  one two three\n", "warning  eth0  one\n               two\n               three\n"),
            (
                "warning   eth0   one two three\n",
                "warning   eth0   one\n                 two\n                 three\n",
            ),
            ("         next: one two three\n", "         next: one\n               two\n               three\n"),
            ("\x1b[31mwarning\x1b[0m  a b c d e\n", "\x1b[31mwarning\x1b[0m  a b c d e\n"),
            ("averyveryverylongwordthatstays\n", "averyveryverylongwordthatstays\n"),
            ("│ a table's line stays as it is, whatever │\n", "│ a table's line stays as it is, whatever │\n"),
        ];
        for (text, folded) in rows {
            assert_eq!(fold(text, Some(20)), folded);
            assert_eq!(fold(text, None), text);
        }
    }

    #[test]
    fn what_is_spared_most_easily_goes_first_and_no_more_than_needed() {
        let column = |width, spare| Wanted { width, wraps: false, spare };
        let columns = [column(10, 0), column(10, 1), column(10, 3), column(10, 2)];
        for (width, out) in [(53, vec![]), (52, vec![2]), (39, vec![2, 3]), (5, vec![2, 3, 1])] {
            assert_eq!(left_out(&columns, width), out, "{width}");
        }
        let sentence = Wanted { width: 200, wraps: true, spare: 0 };
        assert!(left_out(&[column(10, 1), sentence], 40).is_empty(), "sentences are broken first");
    }
}
