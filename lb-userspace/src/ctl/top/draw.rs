//! Draws the model: two lines of head, tabs, the pane's table, and the keys. Knows nothing of terminals but their size.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row as TableRow, Table},
};

use super::model::{Column, Model, Pane, Row, Tone};

const HELP: &str = "\
 Tab, arrows, 1-4   another pane
 s                  sort by name, or by rate
 up, down, PgUp/Dn  scroll
 p                  pause, and go on
 q, Esc             end

 IN and OUT are as clients see them; with DSR the
 answers do not pass the balancer, and are not counted.
 P99 is of all requests since the worker started.";

pub(super) fn all(frame: &mut Frame<'_>, model: &Model) {
    let rows =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]);
    let [head, tabs, body, foot] = rows.areas(frame.area());
    let lines: Vec<Line<'_>> = model.head().into_iter().map(|(text, tone)| Line::styled(text, style(tone))).collect();
    frame.render_widget(Paragraph::new(lines), head);
    frame.render_widget(Paragraph::new(titles(model.pane())), tabs);
    frame.render_widget(table(model, body), body);
    let keys = "q quit  Tab pane  s sort  p pause  ? help";
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
    if model.wants_help() {
        help(frame);
    }
}

fn titles(shown: Pane) -> Line<'static> {
    let title = |(number, pane): (usize, Pane)| {
        let text = format!(" {} {} ", number + 1, pane.title());
        let style = if pane == shown { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Span::styled(text, style)
    };
    Line::from_iter(Pane::ALL.into_iter().enumerate().map(title))
}

fn table(model: &Model, area: Rect) -> Table<'static> {
    let columns = model.columns();
    let visible = usize::from(area.height.saturating_sub(2));
    let rows = model.rows();
    let count = rows.len();
    let shown: Vec<TableRow<'static>> =
        rows.into_iter().skip(model.offset()).take(visible).map(|row| line(columns, row)).collect();
    let heads = columns.iter().map(|(head, _, right)| aligned((*head).to_owned(), *right));
    let more = count.saturating_sub(model.offset() + shown.len());
    let below = if more > 0 { format!(" {more} more below ") } else { String::new() };
    // The first column takes what is left: names are the longest.
    let widths = columns.iter().enumerate().map(|(index, (_, width, _))| match index {
        0 => Constraint::Min(*width),
        _ => Constraint::Length(*width),
    });
    Table::new(shown, widths)
        .header(TableRow::new(heads).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(1)
        .block(Block::new().borders(Borders::TOP).title_bottom(below))
}

fn line(columns: &[Column], row: Row) -> TableRow<'static> {
    let tone = row.tone;
    let cells = row.cells.into_iter().zip(columns).map(|(text, (_, _, right))| aligned(text, *right));
    TableRow::new(cells.collect::<Vec<_>>()).style(style(tone))
}

fn aligned(text: String, right: bool) -> Cell<'static> {
    let alignment = if right { Alignment::Right } else { Alignment::Left };
    Cell::new(Text::from(text).alignment(alignment))
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Attention => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn help(frame: &mut Frame<'_>) {
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(0) + 2;
    let area = frame.area();
    let (width, height) = (area.width.min(60), area.height.min(lines));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" lbctl top ")), place);
}
