//! When a burst of changes is over.
//!
//! Pure: told the time, as the span since the watch began. Never sleeps and never reads.

use std::time::Duration;

/// Nothing has changed for this long: an editor or `cp -r` is done.
pub const QUIET: Duration = Duration::from_millis(100);
/// What changes without pause is read after this long nevertheless.
pub const LONGEST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub enum Settle {
    #[default]
    Calm,
    Stirred {
        first: Duration,
        last: Duration,
    },
}

impl Settle {
    pub fn stir(&mut self, now: Duration) {
        *self = match *self {
            Self::Calm => Self::Stirred { first: now, last: now },
            Self::Stirred { first, .. } => Self::Stirred { first, last: now },
        };
    }

    /// When to read; `None` while nothing has changed.
    pub fn due(&self) -> Option<Duration> {
        match *self {
            Self::Calm => None,
            Self::Stirred { first, last } => Some((last + QUIET).min(first + LONGEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_once_it_is_quiet_or_has_lasted_a_second() {
        let ms = Duration::from_millis;
        let mut settle = Settle::default();
        assert_eq!(settle.due(), None);
        settle.stir(ms(1000));
        assert_eq!(settle.due(), Some(ms(1100)));
        settle.stir(ms(1050));
        assert_eq!(settle.due(), Some(ms(1150)), "each change prolongs the wait");
        for t in (1060..2000).step_by(10) {
            settle.stir(ms(t));
        }
        assert_eq!(settle.due(), Some(ms(2000)), "but never past a second");
    }
}
