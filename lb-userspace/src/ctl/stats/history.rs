//! `lbctl stats --since`: histories as a line each, with what was least, usual and most.

use crate::{
    control::history::{HistoryView, Question, SeriesView},
    ctl::{
        args,
        client::{Client, query_path},
        failure::Failure,
        output::{Cell, Column, Look, Output, left, right, table},
        views::about,
    },
};

/// Columns of a line of blocks, and what they are at least where the terminal is narrow.
const WIDTH: usize = 40;
const LEAST_WIDTH: usize = 10;

/// Heights of blocks, the least first.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn run(client: &Client, output: &Output, since_s: u64, arguments: &args::Stats) -> Result<(), Failure> {
    let series = if arguments.series.is_empty() { "*".to_owned() } else { arguments.series.join(",") };
    let question = Question { series: Some(series), since_s: Some(since_s) };
    let answer = client.get::<HistoryView>(&query_path("history", &question)?)?;
    output.answer(&answer, |view, look| text(&view.series, look))?;
    if answer.value.series.is_empty() && !output.is_json() {
        let names = if answer.value.names.is_empty() { "none yet".to_owned() } else { answer.value.names.join(", ") };
        output.note(&format!("no series of that name; there is: {names}"));
    }
    Ok(())
}

fn text(series: &[SeriesView], look: Look) -> String {
    /// What the other columns need beside names.
    const OTHERS: usize = 41;
    let names = series.iter().map(|series| series.name.len()).max().unwrap_or(0);
    let width = look.width.map_or(WIDTH, |width| width.saturating_sub(names + OTHERS).clamp(LEAST_WIDTH, WIDTH));
    let columns: Vec<Column<SeriesView>> = vec![
        left("SERIES", |series: &SeriesView| Cell::new(&series.name)),
        right("NOW", |series: &SeriesView| Cell::new(shown(series.values.iter().rev().find_map(|value| *value)))),
        right("LEAST", |series: &SeriesView| Cell::new(shown(known(series).reduce(f32::min)))).spare(2),
        right("MEAN", |series: &SeriesView| Cell::new(shown(mean(known(series))))).spare(1),
        right("MOST", |series: &SeriesView| Cell::new(shown(known(series).reduce(f32::max)))),
        left("OVER TIME", move |series: &SeriesView| Cell::new(line(&series.values, width))),
    ];
    table(columns, series, look)
}

fn known(series: &SeriesView) -> impl Iterator<Item = f32> {
    series.values.iter().flatten().copied()
}

fn mean(values: impl Iterator<Item = f32>) -> Option<f32> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + f64::from(value), count + 1));
    (count > 0).then(|| (sum / f64::from(count)) as f32)
}

fn shown(value: Option<f32>) -> String {
    match value {
        None => "-".to_owned(),
        // Shares and slow rates.
        Some(value) if value > 0.0 && value < 10.0 => format!("{value:.2}"),
        Some(value) => about(value.into()),
    }
}

/// Values as blocks: zero is the lowest, the greatest of them the highest; what is not known is a gap.
fn line(values: &[Option<f32>], width: usize) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f32::max);
    let block = |share: f32| BLOCKS[((share * 7.0).round() as usize).min(BLOCKS.len() - 1)];
    let columns = values.len().min(width);
    let part = |column: usize| &values[column * values.len() / columns..(column + 1) * values.len() / columns];
    let shown = (0..columns).map(|column| match mean(part(column).iter().flatten().copied()) {
        None => ' ',
        Some(_) if most <= 0.0 => BLOCKS[0],
        Some(value) => block(value / most),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_relative_to_the_greatest_and_gaps_are_seen() {
        assert_eq!(line(&[Some(0.0), Some(50.0), None, Some(100.0)], WIDTH), "▁▅ █");
        assert_eq!(line(&[Some(0.0), Some(0.0)], WIDTH), "▁▁");
        assert_eq!(line(&[], WIDTH), "");
        let many: Vec<Option<f32>> = (0..600).map(|n| Some(n as f32)).collect();
        let drawn = line(&many, WIDTH);
        assert_eq!((drawn.chars().count(), drawn.chars().next(), drawn.chars().last()), (WIDTH, Some('▁'), Some('█')));
    }

    #[test]
    fn a_series_is_a_row() {
        let series = SeriesView {
            name: "packets.sent".into(),
            start_s: 0,
            step_s: 1,
            values: vec![None, Some(1.0), Some(2000.0), None],
        };
        let text = text(&[series], Look::default());
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["packets.sent", "2.0k", "1.00", "1.0k", "2.0k"], "{text}");
    }
}
