//! Rows up to a limit; those beyond it are counted, not made.

use crate::control::view::MapDump;

/// A dump in the making.
#[derive(Debug)]
pub(super) struct Rows {
    dump: MapDump,
    limit: usize,
}

impl Rows {
    pub(super) fn new(columns: &[&str], limit: usize) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { dump: MapDump { columns, ..MapDump::default() }, limit }
    }

    /// Whether further rows are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.dump.rows.len() >= self.limit
    }

    /// One more; `row` is not called when it is beyond the limit.
    pub(super) fn push(&mut self, row: impl FnOnce() -> Vec<String>) {
        if self.is_full() {
            self.skip(1);
        } else {
            self.dump.rows.push(row());
        }
    }

    /// So many that are not shown.
    pub(super) fn skip(&mut self, rows: u64) {
        self.dump.more += rows;
    }

    pub(super) fn finish(self, name: String) -> MapDump {
        MapDump { name, ..self.dump }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beyond_the_limit_are_counted_and_not_made() {
        let mut rows = Rows::new(&["n"], 2);
        for n in 0..2 {
            rows.push(|| vec![n.to_string()]);
        }
        rows.push(|| unreachable!("beyond the limit"));
        rows.skip(3);
        let dump = rows.finish("FLOWS".to_owned());
        assert_eq!((dump.name.as_str(), dump.rows.len(), dump.more), ("FLOWS", 2, 4));
    }
}
