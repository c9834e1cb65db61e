//! Points of one length: the last ones, in a ring. Pure.

use std::{collections::VecDeque, time::Duration};

use super::SeriesView;

/// See the module. A point that is not known is no number.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    step: u64,
    room: usize,
    /// Number of the point that is being made: its time divided by the length.
    current: u64,
    sum: f64,
    count: u32,
    /// The points before it, the oldest first.
    points: VecDeque<f32>,
}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        let bits = |ring: &Self| ring.points.iter().map(|point| point.to_bits()).collect::<Vec<_>>();
        (self.step, self.room, self.current, self.count) == (other.step, other.room, other.current, other.count)
            && self.sum.to_bits() == other.sum.to_bits()
            && bits(self) == bits(other)
    }
}

impl Ring {
    pub(super) fn new(step: Duration, room: usize) -> Self {
        Self { step: step.as_secs().max(1), room, current: 0, sum: 0.0, count: 0, points: VecDeque::new() }
    }

    /// A ring as it was kept: its finished points, of which the last one has this number.
    pub(super) fn of(step: u64, room: usize, last: u64, points: impl Iterator<Item = f32>) -> Self {
        let mut ring = Self::new(Duration::from_secs(step), room);
        ring.current = last + 1;
        ring.points = points.collect();
        ring
    }

    /// Number of the last finished point, and the points.
    pub(super) fn finished(&self) -> (u64, &VecDeque<f32>) {
        (self.current.saturating_sub(1), &self.points)
    }

    /// Time of the newest value, in seconds.
    pub(super) fn last(&self) -> u64 {
        self.current.saturating_mul(self.step)
    }

    pub(super) fn add(&mut self, now: u64, value: f32) {
        let number = now / self.step;
        if self.count == 0 && self.points.is_empty() {
            self.current = number;
        }
        if number < self.current {
            return;
        }
        if number > self.current {
            self.push(self.mean());
            let gap = usize::try_from(number - self.current - 1).unwrap_or(usize::MAX);
            for _ in 0..gap.min(self.room) {
                self.push(f32::NAN);
            }
            (self.current, self.sum, self.count) = (number, 0.0, 0);
        }
        self.sum += f64::from(value);
        self.count += 1;
    }

    /// The points since then, and the one that is being made.
    pub(super) fn view(&self, name: &str, since: u64, now: u64) -> SeriesView {
        let last = now / self.step;
        let wanted = usize::try_from(since.div_ceil(self.step)).unwrap_or(usize::MAX).clamp(1, self.room);
        let first = (last + 1).saturating_sub(wanted as u64);
        let oldest = self.current.saturating_sub(self.points.len() as u64);
        let point = |number: u64| {
            let value = if number == self.current {
                self.mean()
            } else {
                let place = number.checked_sub(oldest).and_then(|place| usize::try_from(place).ok());
                place.and_then(|place| self.points.get(place)).copied().unwrap_or(f32::NAN)
            };
            Some(value).filter(|value| value.is_finite())
        };
        let values = (first..=last).map(point).collect();
        SeriesView { name: name.to_owned(), start_s: first * self.step, step_s: self.step, values }
    }

    fn mean(&self) -> f32 {
        if self.count == 0 { f32::NAN } else { (self.sum / f64::from(self.count)) as f32 }
    }

    fn push(&mut self, point: f32) {
        // One place is that of the point that is being made.
        if self.points.len() + 1 >= self.room {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}
