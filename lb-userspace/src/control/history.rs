//! Histories: the main counters over time, in three resolutions, each a ring of fixed size. Pure: the time comes in as an
//! argument. Fed by `daemon` every second; shown by the admin API.

pub mod file;
mod ring;
mod sample;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use self::ring::Ring;
pub use self::sample::sample;

/// Length of a point in seconds, and how many are kept: ten minutes, six hours, thirty days.
pub const RESOLUTIONS: [(u64, usize); 3] = [(1, 600), (10, 2160), (300, 8640)];

/// Series that are kept: 45 KiB each. What has no place in it is not kept at all; totals come first, then virtual servers by name.
pub const MOST_SERIES: usize = 256;

/// A series that got no point for so long, in seconds, makes room for another.
const FORGOTTEN_AFTER: u64 = 30 * 86_400;

/// All series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    series: BTreeMap<String, Series>,
}

/// A series in all resolutions.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    rings: [Ring; 3],
}

/// Which histories to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// Names, with commas between them; a `*` at the end of one stands for any text. Without it, only the names are listed.
    pub series: Option<String>,
    /// How far back, in seconds; 600 when it is not said. The finest resolution that reaches so far is shown.
    pub since_s: Option<u64>,
}

/// `GET /api/v1/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HistoryView {
    /// All names there are.
    pub names: Vec<String>,
    /// Those that were asked for.
    pub series: Vec<SeriesView>,
}

/// A series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SeriesView {
    /// Name.
    pub name: String,
    /// Time of the first point, in seconds since 1970.
    pub start_s: u64,
    /// Length of a point, in seconds.
    pub step_s: u64,
    /// Means over each point's time, the oldest first; `null`: nothing is known.
    pub values: Vec<Option<f32>>,
}

impl History {
    /// Takes the values of one second. `now`: seconds since 1970, never less than before.
    pub fn add(&mut self, now: u64, values: &[(String, f32)]) {
        for (name, value) in values {
            if !self.series.contains_key(name) {
                if self.series.len() >= MOST_SERIES {
                    self.forget(now);
                }
                if self.series.len() >= MOST_SERIES {
                    continue;
                }
                self.series.insert(name.clone(), Series::new());
            }
            if let Some(series) = self.series.get_mut(name) {
                series.rings.iter_mut().for_each(|ring| ring.add(now, *value));
            }
        }
    }

    /// Those that were asked for.
    #[must_use]
    pub fn show(&self, question: &Question, now: u64) -> HistoryView {
        let since = question.since_s.unwrap_or(600);
        let wanted: Vec<&str> = question.series.as_deref().unwrap_or_default().split(',').map(str::trim).collect();
        let fits = |name: &str| {
            wanted.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *wanted,
            })
        };
        let reaches = |&(step, count): &(u64, usize)| step * count as u64 >= since;
        let resolution = RESOLUTIONS.iter().position(reaches).unwrap_or(RESOLUTIONS.len() - 1);
        let view = |(name, series): (&String, &Series)| series.rings[resolution].view(name, since, now);
        HistoryView {
            names: self.series.keys().cloned().collect(),
            series: self.series.iter().filter(|(name, _)| fits(name)).map(view).collect(),
        }
    }

    /// Those without a point for a long time.
    fn forget(&mut self, now: u64) {
        self.series.retain(|_, series| series.rings[0].last() + FORGOTTEN_AFTER > now);
    }
}

impl Series {
    fn new() -> Self {
        Self { rings: RESOLUTIONS.map(|(step, count)| Ring::new(Duration::from_secs(step), count)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_100;

    fn question(series: &str, since_s: u64) -> Question {
        Question { series: Some(series.to_owned()), since_s: Some(since_s) }
    }

    #[test]
    fn the_finest_resolution_that_reaches_is_shown() {
        let mut history = History::default();
        for second in 0..4000 {
            history.add(START + second, &[("a.x".to_owned(), second as f32), ("b.x".to_owned(), 1.0)]);
        }
        let now = START + 3999;
        let view = history.show(&question("a.x", 60), now);
        let series = &view.series[0];
        assert_eq!((series.step_s, series.values.len(), series.start_s), (1, 60, now - 59));
        assert_eq!(series.values.last(), Some(&Some(3999.0)));
        let hour = &history.show(&question("a.*", 3600), now).series[0];
        assert_eq!((hour.step_s, hour.values.len()), (10, 360));
        assert_eq!(hour.start_s % 10, 0);
        // A point is the mean of its seconds.
        let at = |time: u64| hour.values[((time - hour.start_s) / 10) as usize];
        assert_eq!(at(START + 3000), Some(3004.5));
        assert_eq!(history.show(&question("*", 86_400), now).series.len(), 2);
        assert_eq!(history.show(&Question::default(), now).series, []);
        assert_eq!(history.show(&Question::default(), now).names, ["a.x", "b.x"]);
    }

    #[test]
    fn what_was_not_seen_is_not_known() {
        let mut history = History::default();
        history.add(START, &[("a".to_owned(), 1.0)]);
        history.add(START + 3, &[("a".to_owned(), 4.0)]);
        let series = &history.show(&question("a", 5), START + 4).series[0];
        assert_eq!(series.values, [Some(1.0), None, None, Some(4.0), None]);
    }

    #[test]
    fn series_are_bounded_and_old_ones_make_room() {
        let mut history = History::default();
        let names = |prefix: &str| (0..MOST_SERIES).map(|n| (format!("{prefix}{n:03}"), 1.0)).collect::<Vec<_>>();
        history.add(START, &names("a"));
        history.add(START + 1, &names("b"));
        assert_eq!(history.show(&question("b*", 10), START + 1).series, []);
        history.add(START + FORGOTTEN_AFTER + 1, &names("b"));
        let view = history.show(&question("b*", 10), START + FORGOTTEN_AFTER + 1);
        assert_eq!((view.series.len(), view.names.len()), (MOST_SERIES, MOST_SERIES));
    }

    #[test]
    fn a_clock_that_jumps_costs_no_more_than_a_ring() {
        let mut history = History::default();
        history.add(START, &[("a".to_owned(), 1.0)]);
        history.add(START + 400_000_000, &[("a".to_owned(), 2.0)]);
        let series = &history.show(&question("a", 600), START + 400_000_000).series[0];
        assert_eq!(series.values.len(), 600);
        assert_eq!(series.values.iter().flatten().count(), 1);
        history.add(START, &[("a".to_owned(), 3.0)]);
        assert_eq!(
            history.show(&question("a", 600), START + 400_000_000).series[0],
            *series,
            "what is past is not written"
        );
    }
}
