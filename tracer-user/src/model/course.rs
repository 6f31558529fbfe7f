//! How something that is read again and again went over the window: the first reading, the last, and
//! evenly thinned ones between.

use crate::event::BootInstant;

/// Readings kept; when there are more, every second one goes.
const KEPT: usize = 128;

/// Readings of one thing, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course<T> {
    first: (BootInstant, T),
    last: (BootInstant, T),
    between: Vec<(BootInstant, T)>,
    /// How many there were, and of how many one is kept.
    read: u64,
    every: u64,
}

impl<T: Clone> Course<T> {
    /// The first reading.
    pub(super) fn new(at: BootInstant, read: T) -> Self {
        Self {
            first: (at, read.clone()),
            last: (at, read.clone()),
            between: vec![(at, read)],
            read: 1,
            every: 1,
        }
    }

    /// The next one.
    pub(super) fn go_on(&mut self, at: BootInstant, read: T) {
        if self.between.len() >= KEPT {
            let mut stays = false;
            self.between.retain(|_| {
                stays = !stays;
                stays
            });
            self.every *= 2;
        }
        if self.read.is_multiple_of(self.every) {
            self.between.push((at, read.clone()));
        }
        self.read += 1;
        self.last = (at, read);
    }
}

impl<T> Course<T> {
    /// The first reading and when it was taken.
    #[must_use]
    pub fn first(&self) -> &(BootInstant, T) {
        &self.first
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> &(BootInstant, T) {
        &self.last
    }

    /// Those that are kept, the first among them, the last as a rule not; oldest first.
    pub fn readings(&self) -> impl Iterator<Item = &(BootInstant, T)> {
        self.between.iter()
    }

    /// The last reading not after `at`; `None` before the first.
    #[must_use]
    pub fn at(&self, at: BootInstant) -> Option<&T> {
        if at >= self.last.0 {
            return Some(&self.last.1);
        }
        let read = self.between.partition_point(|(when, _)| *when <= at);
        let (_, read) = self.between.get(read.checked_sub(1)?)?;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_stays_small_and_true() {
        let mut course = Course::new(BootInstant(0), 0);
        for second in 1..1_000 {
            course.go_on(BootInstant(second), second);
        }
        assert!(course.between.len() <= KEPT);
        assert_eq!(course.at(BootInstant(2_000)), Some(&999));
        let middle = *course.at(BootInstant(500)).unwrap();
        assert!((480..=500).contains(&middle), "{middle}");
        assert_eq!(course.first().1, 0);
    }
}
