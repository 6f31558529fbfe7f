//! How sure one can be of a finding: a number that follows from its evidence.

/// How sure a finding is, as a number that follows from its evidence.
///
/// It begins with what was seen:
///
/// | seen | confidence |
/// | --- | --- |
/// | the program's own decision, or the kernel's own word | 0.97 |
/// | no decision, but *n* waits of the same length (n ≥ 3) | 0.85 − 0.45 / n: 0.70 for 3, 0.81 for 10 |
/// | no decision, and too few waits to compare | 0.50 |
///
/// and is multiplied by the factor of each [`Doubt`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Confidence(f64);

/// A reason to be less sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The error was not text that could be read; that of a deadline is not. (0.9;
    /// not where the same wait came again and again)
    ReasonUnread,
    /// Which connection the decision was about was concluded from the close that followed. (0.93)
    ConnectionInferred,
    /// Which setting it was was concluded from another goroutine's doing. (0.9)
    SettingInferred,
    /// Which of several settings it was could not be told. (0.9)
    SettingUnknown,
    /// Which request was being served was concluded from time, method and path. (0.95)
    RequestInferred,
    /// Several requests, or connections, would have fitted. (0.8)
    Ambiguous,
    /// Only one end of the connection was seen. (0.95)
    OneEnd,
    /// No quick request of the same kind was seen, so that it is slow is judged by its length alone.
    /// (0.85)
    NothingToCompare,
    /// That it queued in Go's scheduler was concluded from who had the processors. (0.9)
    QueueInferred,
    /// The window ended before it was over. (0.9)
    NotOver,
    /// Records were lost. (0.9)
    Losses,
}

impl Doubt {
    fn factor(self) -> f64 {
        match self {
            Self::RequestInferred | Self::OneEnd => 0.95,
            Self::ConnectionInferred => 0.93,
            Self::ReasonUnread
            | Self::SettingInferred
            | Self::SettingUnknown
            | Self::QueueInferred
            | Self::NotOver
            | Self::Losses => 0.9,
            Self::NothingToCompare => 0.85,
            Self::Ambiguous => 0.8,
        }
    }
}

impl Confidence {
    /// The decision itself, or the kernel's own word, was seen.
    pub const SEEN: Self = Self(0.97);

    /// `waits` of the same length were seen, and no decision.
    #[must_use]
    pub fn from_timing(waits: usize) -> Self {
        if waits < 3 {
            Self(0.5)
        } else {
            Self(0.85 - 0.45 / waits as f64)
        }
    }

    /// A number given before.
    #[must_use]
    pub fn of(number: f64) -> Self {
        Self(number.clamp(0.0, 1.0))
    }

    /// With one more doubt.
    #[must_use]
    pub fn but(self, doubt: Doubt) -> Self {
        Self(self.0 * doubt.factor())
    }

    /// With several more doubts; each counts once.
    #[must_use]
    pub fn but_all(self, doubts: &[Doubt]) -> Self {
        let mut counted: Vec<Doubt> = Vec::new();
        for doubt in doubts {
            if !counted.contains(doubt) {
                counted.push(*doubt);
            }
        }
        counted.into_iter().fold(self, Self::but)
    }

    /// The number, to two digits.
    #[must_use]
    pub fn number(self) -> f64 {
        (self.0 * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_grows_with_the_number_of_equal_waits_and_stays_below_a_seen_decision() {
        let of = |waits| Confidence::from_timing(waits);
        assert_eq!(of(1).number(), 0.5);
        assert_eq!(of(3).number(), 0.7);
        assert!(of(3) < of(10));
        assert!(of(1_000_000) < Confidence::SEEN);
    }

    #[test]
    fn a_doubt_counts_once() {
        let doubts = [Doubt::Ambiguous, Doubt::Ambiguous, Doubt::OneEnd];
        assert_eq!(Confidence::SEEN.but_all(&doubts).number(), 0.74);
    }
}
