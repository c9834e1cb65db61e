//! Where text goes and how it looks: tables drawn on a terminal, aligned columns otherwise, the API's JSON unchanged.

mod fit;

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
};

use comfy_table::{
    Attribute, Cell as Drawn, CellAlignment, Color, ColumnConstraint, ContentArrangement, modifiers, presets,
};
use serde::Serialize;

pub(super) use self::fit::fold;
use super::{args::Format, client::Answer, failure::Failure};
use crate::visible;

/// How text is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// With the columns that are only sometimes of interest.
    pub(super) wide: bool,
    /// Tables with lines, fitted to the terminal.
    pub(super) drawn: bool,
    /// In colour.
    pub(super) colour: bool,
    /// Columns of the terminal; `None`: it is for none, or as wide as it gets.
    pub(super) width: Option<usize>,
}

/// Standard output and error, as the arguments and the environment want them.
#[derive(Debug)]
pub(super) struct Output {
    look: Look,
    json: bool,
    terminal: bool,
}

impl Output {
    pub(super) fn new(format: Option<Format>) -> Self {
        let terminal = io::stdout().is_terminal();
        let coloured = terminal && !no_colour();
        let width = comfy_table::Table::new().width().map(usize::from).filter(|width| terminal && *width > 0);
        let look = match format {
            None => Look { wide: false, drawn: terminal, colour: coloured, width },
            Some(Format::Table) => Look { wide: false, drawn: true, colour: coloured, width },
            Some(Format::Wide) => Look { wide: true, drawn: terminal, colour: coloured, width: None },
            Some(Format::Plain | Format::Json) => Look::default(),
        };
        Self { look, json: format == Some(Format::Json), terminal }
    }

    pub(super) fn look(&self) -> Look {
        self.look
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether answers go out as they come.
    pub(super) fn is_raw(&self) -> bool {
        self.json && !self.terminal
    }

    /// Prints data, ended by a line break: as it is to programs; on a terminal, which would obey what is in it, only what can be
    /// seen.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        match (self.terminal, self.json) {
            (true, true) => self.write(&visible::json(text)),
            (true, false) => self.write(&seen(text, self.look.colour)),
            (false, _) => self.write(text),
        }
    }

    /// Clears the terminal, if there is one, from the top left corner on, without losing the scroll-back.
    pub(super) fn clear(&self) -> io::Result<()> {
        if self.terminal { io::stdout().lock().write_all(b"\x1b[H\x1b[J") } else { Ok(()) }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Prints an answer: its JSON as it came (indented for eyes on a terminal), or the text made from it.
    pub(super) fn answer<T: Serialize>(
        &self,
        answer: &Answer<T>,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        match (self.json, self.terminal) {
            (true, true) => self.print(&serde_json::to_string_pretty(&answer.value).map_err(io::Error::other)?)?,
            (true, false) => self.print(&answer.json)?,
            (false, _) => {
                self.write(&seen(&fold(&text(&answer.value, self.look), self.look.width), self.look.colour))?
            }
        }
        Ok(())
    }

    /// As [`Self::answer`], with lines of a file that stay as long as they are.
    pub(super) fn lines<T: Serialize>(
        &self,
        answer: &Answer<T>,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return self.answer(answer, text);
        }
        Ok(self.write(&seen(&text(&answer.value, self.look), self.look.colour))?)
    }

    /// Prints an answer that is a file's text: as JSON, or just as it is.
    pub(super) fn document<T: Serialize>(
        &self,
        answer: &Answer<T>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json { self.answer(answer, |_, _| String::new()) } else { Ok(self.print(&text(&answer.value))?) }
    }

    /// Tells something that is not data.
    pub(super) fn note(&self, text: &str) {
        let width = self.look.width.filter(|_| io::stderr().is_terminal());
        self.tell(&fold(text, width));
    }

    fn tell(&self, text: &str) {
        // Who closed standard error does not want to be told.
        let _ = writeln!(io::stderr(), "{}", seen(text, self.colours_messages()));
    }

    /// Whether what goes to standard error may be in colour.
    pub(super) fn colours_messages(&self) -> bool {
        io::stderr().is_terminal() && !no_colour()
    }

    pub(super) fn error(&self, failure: &Failure) {
        let word = if self.colours_messages() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        if failure.is_report() {
            return self.tell(failure.to_string().trim_end());
        }
        self.note(&format!("{word} {}", visible::lines(&failure.to_string())));
    }
}

/// What our own colours begin with, bold text included, as well as those of tables.
const COLOURS: [&str; 11] = ["0", "1", "1;31", "1;32", "1;34", "31", "32", "33", "38;5;9", "38;5;10", "38;5;11"];
/// What ends them.
const PLAIN: [&str; 2] = ["39", "22"];

/// Lines as they may be seen. Where there are colours, ours stay; nothing else that a terminal obeys does.
fn seen(text: &str, colour: bool) -> Cow<'_, str> {
    let all = visible::lines(text);
    if !colour || matches!(all, Cow::Borrowed(_)) {
        return all;
    }
    let mut parts = text.split("\x1b[");
    let mut shown = visible::lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let ours = part.split_once('m').filter(|(code, _)| COLOURS.contains(code) || PLAIN.contains(code));
        match ours {
            Some((code, rest)) => shown.push_str(&format!("\x1b[{code}m{}", visible::lines(rest))),
            None => shown.push_str(&format!("\\x1b[{}", visible::lines(part))),
        }
    }
    Cow::Owned(shown)
}

fn no_colour() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// How a text is meant: its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Neutral,
    Good,
    Attention,
    Bad,
}

/// What stands in a place of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl ToString) -> Self {
        Self::toned(text, Tone::Neutral)
    }

    pub(super) fn toned(text: impl ToString, tone: Tone) -> Self {
        // A line break within a place would be taken for another row.
        Self { text: visible::line(&text.to_string()).into_owned(), tone }
    }

    /// A text that may be missing.
    pub(super) fn optional(text: Option<impl ToString>) -> Self {
        Self::new(text.map_or_else(String::new, |text| text.to_string()))
    }
}

/// A column: its head and how to fill it.
pub(super) struct Column<T> {
    head: String,
    right: bool,
    wide: bool,
    wraps: bool,
    spare: u8,
    cell: Box<dyn Fn(&T) -> Cell>,
}

impl<T> Column<T> {
    /// Shown with `-o wide` only.
    pub(super) fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// Left out where the terminal is too narrow: the greatest first.
    pub(super) fn spare(mut self, how_easily: u8) -> Self {
        self.spare = how_easily;
        self
    }

    /// Sentences: broken into lines on a narrow terminal. All else stays in one piece, and can be copied.
    pub(super) fn wraps(mut self) -> Self {
        self.wraps = true;
        self
    }
}

/// A column of words.
pub(super) fn left<T>(head: &str, cell: impl Fn(&T) -> Cell + 'static) -> Column<T> {
    Column { head: head.to_owned(), right: false, wide: false, wraps: false, spare: 0, cell: Box::new(cell) }
}

/// A column of numbers.
pub(super) fn right<T>(head: &str, cell: impl Fn(&T) -> Cell + 'static) -> Column<T> {
    Column { head: head.to_owned(), right: true, wide: false, wraps: false, spare: 0, cell: Box::new(cell) }
}

/// Lays a table out; ends with a line break.
pub(super) fn table<T>(columns: Vec<Column<T>>, rows: &[T], look: Look) -> String {
    let mut columns: Vec<_> = columns.into_iter().filter(|column| look.wide || !column.wide).collect();
    let mut cells: Vec<Vec<Cell>> =
        rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()).collect();
    if !look.drawn {
        return plain(&columns, &cells);
    }
    let missing = look.width.map_or_else(String::new, |width| spare(&mut columns, &mut cells, width));
    format!("{}{}", drawn(&columns, cells, look), fold(&missing, look.width))
}

/// Takes out the columns that have no room, and says which.
fn spare<T>(columns: &mut Vec<Column<T>>, rows: &mut [Vec<Cell>], width: usize) -> String {
    let wanted = columns.iter().enumerate().map(|(index, column)| {
        let places = rows.iter().map(|row| row[index].text.chars().count());
        let width = places.chain([column.head.chars().count()]).max().unwrap_or(0);
        fit::Wanted { width, wraps: column.wraps, spare: column.spare }
    });
    let mut out = fit::left_out(&wanted.collect::<Vec<_>>(), width);
    if out.is_empty() {
        return String::new();
    }
    out.sort_unstable();
    let heads: Vec<String> = out.iter().map(|index| columns[*index].head.clone()).collect();
    for index in out.into_iter().rev() {
        columns.remove(index);
        rows.iter_mut().for_each(|row| drop(row.remove(index)));
    }
    format!("no room for {}: -o wide\n", heads.join(", "))
}

fn drawn<T>(columns: &[Column<T>], rows: Vec<Vec<Cell>>, look: Look) -> String {
    let colour = look.colour;
    let mut table = comfy_table::Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .apply_modifier(modifiers::UTF8_ROUND_CORNERS)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = look.width.and_then(|width| u16::try_from(width).ok()) {
        table.set_width(width);
    }
    table.set_header(columns.iter().map(|column| Drawn::new(&column.head).add_attribute(Attribute::Bold)));
    for (index, column) in columns.iter().enumerate() {
        let Some(drawn) = table.column_mut(index) else { continue };
        if column.right {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
        if !column.wraps {
            drawn.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| match tint(cell.tone).filter(|_| colour) {
            Some(color) => Drawn::new(cell.text).fg(color),
            None => Drawn::new(cell.text),
        }));
    }
    format!("{table}\n")
}

fn tint(tone: Tone) -> Option<Color> {
    match tone {
        Tone::Neutral => None,
        Tone::Good => Some(Color::Green),
        Tone::Attention => Some(Color::Yellow),
        Tone::Bad => Some(Color::Red),
    }
}

/// Columns aligned by spaces; an empty place is a dash, so that words can be counted.
fn plain<T>(columns: &[Column<T>], rows: &[Vec<Cell>]) -> String {
    let heads = columns.iter().map(|column| column.head.as_str()).collect();
    let texts = rows.iter().map(|row| row.iter().map(|cell| dash(&cell.text)).collect());
    let lines: Vec<Vec<&str>> = std::iter::once(heads).chain(texts).collect();
    let width = |index: usize| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(columns).zip(&widths).map(|((word, column), &width)| match column.right {
            true => format!("{word:>width$}"),
            false => format!("{word:<width$}"),
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A text in its colour.
pub(super) fn paint(text: &str, tone: Tone, look: Look) -> String {
    let code = match tone {
        Tone::Neutral => "1",
        Tone::Good => "32",
        Tone::Attention => "33",
        Tone::Bad => "31",
    };
    let text = visible::lines(text);
    if look.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column<(&'static str, u64)>> {
        vec![
            left("NAME", |row: &(&str, u64)| Cell::new(row.0)),
            right("COUNT", |row: &(&str, u64)| Cell::toned(row.1, Tone::Bad)),
            left("MORE", |_: &(&str, u64)| Cell::new("")).wide(),
        ]
    }

    #[test]
    fn plain_columns_are_aligned_and_never_empty() {
        let rows = [("web", 5), ("much-longer", 12345)];
        let text = table(columns(), &rows, Look { wide: true, ..Look::default() });
        assert_eq!(text, "NAME         COUNT  MORE\nweb              5  -\nmuch-longer  12345  -\n");
    }

    #[test]
    fn columns_without_room_are_named() {
        let spare = || {
            vec![
                left("NAME", |row: &(&str, u64)| Cell::new(row.0)),
                right("COUNT", |row: &(&str, u64)| Cell::new(row.1)).spare(1),
            ]
        };
        let look = |width| Look { drawn: true, width: Some(width), ..Look::default() };
        let text = table(spare(), &[("a-name-that-is-long", 5)], look(26));
        assert!(text.ends_with("\nno room for COUNT: -o wide\n") && !text.contains("│ COUNT"), "{text}");
        let text = table(spare(), &[("a-name-that-is-long", 5)], look(80));
        assert!(text.contains("COUNT") && !text.contains("no room"), "{text}");
    }

    #[test]
    fn nothing_that_others_chose_reaches_the_terminal_as_an_order() {
        let rows = [("a\x1b[2Jb\nc", 1)];
        for look in [Look::default(), Look { drawn: true, ..Look::default() }] {
            let text = table(columns(), &rows, look);
            assert!(text.contains("a\\x1b[2Jb\\nc") && !text.contains('\x1b'), "{text}");
        }
        let text = table(columns(), &rows, Look { drawn: true, colour: true, ..Look::default() });
        assert_eq!(seen(&text, true), text, "all colours of a table are known");
        for tone in [Tone::Neutral, Tone::Good, Tone::Attention, Tone::Bad] {
            let colour = Look { colour: true, ..Look::default() };
            let painted = paint("x", tone, colour);
            assert_eq!(seen(&painted, true), painted);
            let text =
                table(vec![left("A", move |_: &()| Cell::toned("x", tone))], &[()], Look { drawn: true, ..colour });
            assert_eq!(seen(&text, true), text);
        }
        let hostile = "a\x1b[31mred\x1b[0m \x1b[8mhidden \x1b]0;title\x07 \u{9b}2J\r\n";
        assert_eq!(seen(hostile, true), "a\x1b[31mred\x1b[0m \\x1b[8mhidden \\x1b]0;title\\x07 \\u{9b}2J\\r\n");
        assert!(!seen(hostile, false).contains('\x1b'));
    }

    #[test]
    fn wide_columns_are_left_out() {
        assert_eq!(table(columns(), &[("web", 5)], Look::default()), "NAME  COUNT\nweb       5\n");
    }

    #[test]
    fn drawn_tables_have_lines_and_colours_only_when_asked() {
        let text = table(columns(), &[("web", 5)], Look { drawn: true, ..Look::default() });
        assert!(text.contains('│') && !text.contains('\x1b'), "{text}");
        let text = table(columns(), &[("web", 5)], Look { drawn: true, colour: true, ..Look::default() });
        assert!(text.contains("\x1b["), "{text}");
    }
}
