//! Answers questions from a tree of objects (RFC 2741 §7.2.3). Pure.

use std::{collections::BTreeMap, ops::Bound};

use super::pdu::{Oid, Question, Range, Value};

/// All objects, in the order that SNMP walks them.
pub(super) type Tree = BTreeMap<Oid, Value>;

/// Repetitions of a question for many, at most: an answer is one PDU.
const MOST_REPETITIONS: usize = 64;

/// Values of an answer, at most.
const MOST_VALUES: usize = 1024;

pub(super) fn answer(question: &Question, tree: &Tree) -> Vec<(Oid, Value)> {
    match question {
        Question::Get(ranges) => ranges.iter().map(|range| get(range, tree)).collect(),
        Question::Next(ranges) => ranges.iter().map(|range| next(range, tree)).collect(),
        Question::Bulk { ranges, non_repeaters, repetitions } => bulk(ranges, *non_repeaters, *repetitions, tree),
    }
}

fn get(range: &Range, tree: &Tree) -> (Oid, Value) {
    let found = tree.get(&range.start).cloned();
    (range.start.clone(), found.unwrap_or(Value::NoSuchObject))
}

fn next(range: &Range, tree: &Tree) -> (Oid, Value) {
    let from = if range.include { Bound::Included(&range.start) } else { Bound::Excluded(&range.start) };
    let mut after = tree.range::<Oid, _>((from, Bound::Unbounded));
    match after.next().filter(|(oid, _)| range.end.is_empty() || **oid < range.end) {
        Some((oid, value)) => (oid.clone(), value.clone()),
        None => (range.start.clone(), Value::EndOfView),
    }
}

fn bulk(ranges: &[Range], non_repeaters: usize, repetitions: usize, tree: &Tree) -> Vec<(Oid, Value)> {
    let (once, repeated) = ranges.split_at(non_repeaters.min(ranges.len()));
    let mut values: Vec<_> = once.iter().map(|range| next(range, tree)).collect();
    let mut repeated = repeated.to_vec();
    for _ in 0..repetitions.min(MOST_REPETITIONS) {
        if values.len() + repeated.len() > MOST_VALUES {
            break;
        }
        let mut all_ended = true;
        for range in &mut repeated {
            let (oid, value) = next(range, tree);
            if value != Value::EndOfView {
                all_ended = false;
                (range.start, range.include) = (oid.clone(), false);
            }
            values.push((oid, value));
        }
        if all_ended {
            break;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        [(vec![1, 1], 11), (vec![1, 2], 12), (vec![1, 2, 3], 123), (vec![2, 1], 21)]
            .into_iter()
            .map(|(oid, number)| (oid, Value::Gauge(number)))
            .collect()
    }

    fn range(start: &[u32], include: bool, end: &[u32]) -> Range {
        Range { start: start.to_vec(), include, end: end.to_vec() }
    }

    #[test]
    fn the_next_is_within_the_range() {
        let tree = tree();
        let next = |start: &[u32], include, end: &[u32]| next(&range(start, include, end), &tree);
        assert_eq!(next(&[1], false, &[]), (vec![1, 1], Value::Gauge(11)));
        assert_eq!(next(&[1, 1], false, &[]), (vec![1, 2], Value::Gauge(12)));
        assert_eq!(next(&[1, 1], true, &[]), (vec![1, 1], Value::Gauge(11)));
        assert_eq!(next(&[1, 2, 3], false, &[2]), (vec![1, 2, 3], Value::EndOfView));
        assert_eq!(next(&[1, 2, 3], false, &[]), (vec![2, 1], Value::Gauge(21)));
        assert_eq!(next(&[9], true, &[]), (vec![9], Value::EndOfView));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let question = Question::Get(vec![range(&[1, 2], false, &[]), range(&[7], false, &[])]);
        let expected = [(vec![1, 2], Value::Gauge(12)), (vec![7], Value::NoSuchObject)];
        assert_eq!(answer(&question, &tree()), expected);
    }

    #[test]
    fn many_are_bounded_and_end() {
        let bulk = |repetitions| {
            let ranges = vec![range(&[1], false, &[]), range(&[1, 2], false, &[2])];
            answer(&Question::Bulk { ranges, non_repeaters: 1, repetitions }, &tree())
        };
        let expected =
            [(vec![1, 1], Value::Gauge(11)), (vec![1, 2, 3], Value::Gauge(123)), (vec![1, 2, 3], Value::EndOfView)];
        assert_eq!(bulk(2), expected);
        assert_eq!(bulk(usize::MAX), expected, "nothing comes after the end");
        assert_eq!(bulk(0).len(), 1);
    }
}
