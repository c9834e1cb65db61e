//! The time of log lines as text, made once a second.

use std::{fmt::Write, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

/// The text of a second, in UTC.
#[derive(Debug, Default)]
pub(super) struct TimeText {
    /// The second that the texts are of; `None`: of none yet.
    second: Option<u64>,
    clf: String,
    iso: String,
}

impl TimeText {
    /// Makes the texts for a time since 1970, if they are of another second.
    pub(super) fn set(&mut self, at: Duration) {
        if self.second == Some(at.as_secs()) {
            return;
        }
        self.second = Some(at.as_secs());
        let second = i64::try_from(at.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
        // A clock beyond the year 9999 shows 1970.
        let now = second.unwrap_or_default().to_zoned(TimeZone::UTC);
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = usize::try_from(now.month() - 1).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or("");
        let (year, day, hour, minute, second) = (now.year(), now.day(), now.hour(), now.minute(), now.second());
        self.clf.clear();
        self.iso.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.clf, "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000");
        let _ = write!(self.iso, "{year}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", now.month());
    }

    /// `21/Nov/2026:11:57:09 +0000`.
    pub(super) fn clf(&self) -> &str {
        &self.clf
    }

    /// `2026-11-21T11:57:09`: fraction and `Z` are the line's.
    pub(super) fn iso(&self) -> &str {
        &self.iso
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_their_texts() {
        let mut time = TimeText::default();
        for (second, clf, iso) in [
            (0, "01/Jan/1970:00:00:00 +0000", "1970-01-01T00:00:00"),
            (951_825_600, "29/Feb/2000:12:00:00 +0000", "2000-02-29T12:00:00"),
            (1_795_262_229, "21/Nov/2026:11:57:09 +0000", "2026-11-21T11:57:09"),
            (u64::MAX, "01/Jan/1970:00:00:00 +0000", "1970-01-01T00:00:00"),
        ] {
            time.set(Duration::from_secs(second));
            assert_eq!((time.clf(), time.iso()), (clf, iso));
        }
    }
}
