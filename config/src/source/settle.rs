//! When a burst of changes is over.
//!
//! Pure: told the time, as the span since the watch began. Never sleeps and never reads.

use std::time::Duration;

/// Nothing has changed for this long: an editor or `cp -r` is done.
pub const QUIET: Duration = Duration::from_millis(100);
/// What changes without pause is read after this long nevertheless.
pub const LONGEST: Duration = Duration::from_secs(1);

/// Files that were put into place or removed in one step are whole at once, and may be looked at after this long: long
/// enough for the few that belong together.
pub const GLANCE: Duration = Duration::from_millis(5);
/// A glance that took long to read keeps the next one waiting for this many times as long.
const GLANCE_REST: u32 = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct Settle {
    stirred: Option<Stirred>,
    /// No glance before.
    rest: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Stirred {
    first: Duration,
    last: Duration,
    /// When something whole first came since the last reading.
    whole: Option<Duration>,
    /// Something may be half written.
    part: bool,
}

/// What is known of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file was renamed into place, or is gone.
    Whole,
    /// A file may be half written.
    Part,
    /// Of something that is no manifest, and may yet lead to some.
    Aside,
}

impl Settle {
    pub fn stir(&mut self, now: Duration, change: Change) {
        let stirred = self.stirred.get_or_insert(Stirred { first: now, last: now, whole: None, part: false });
        stirred.last = now;
        match change {
            Change::Whole => {
                stirred.whole.get_or_insert(now);
            }
            Change::Part => stirred.part = true,
            Change::Aside => {}
        }
    }

    /// When the burst is over; `None` while nothing has changed.
    pub fn due(&self) -> Option<Duration> {
        self.stirred.map(|stirred| (stirred.last + QUIET).min(stirred.first + LONGEST))
    }

    /// When to have a look before that; `None` where it could meet something half written.
    pub fn glance(&self) -> Option<Duration> {
        let stirred = self.stirred.filter(|stirred| !stirred.part)?;
        stirred.whole.map(|whole| (whole + GLANCE).max(self.rest))
    }

    /// A glance was had between two times; the burst goes on.
    pub fn glanced(&mut self, begun: Duration, now: Duration) {
        if let Some(stirred) = &mut self.stirred {
            stirred.whole = None;
        }
        self.rest = now + (now - begun) * GLANCE_REST;
    }

    /// Everything was read after the burst was over.
    pub fn calm(&mut self) {
        self.stirred = None;
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
        settle.stir(ms(1000), Change::Part);
        assert_eq!(settle.due(), Some(ms(1100)));
        settle.stir(ms(1050), Change::Whole);
        assert_eq!(settle.due(), Some(ms(1150)), "each change prolongs the wait");
        for t in (1060..2000).step_by(10) {
            settle.stir(ms(t), Change::Aside);
        }
        assert_eq!(settle.due(), Some(ms(2000)), "but never past a second");
    }

    #[test]
    fn what_is_whole_is_looked_at_before_the_burst_is_over() {
        let ms = Duration::from_millis;
        let mut settle = Settle::default();
        assert_eq!(settle.glance(), None);
        settle.stir(ms(1000), Change::Aside);
        assert_eq!(settle.glance(), None);
        settle.stir(ms(1002), Change::Whole);
        settle.stir(ms(1004), Change::Whole);
        assert_eq!(settle.glance(), Some(ms(1007)));
        settle.glanced(ms(1007), ms(1017));
        assert_eq!(settle.glance(), None, "nothing new");
        assert_eq!(settle.due(), Some(ms(1104)), "the burst is none the shorter for it");
        settle.stir(ms(1018), Change::Whole);
        assert_eq!(settle.glance(), Some(ms(1057)), "reading takes a fifth of the time at most");
        settle.stir(ms(1019), Change::Part);
        assert_eq!(settle.glance(), None, "half written");
        settle.calm();
        assert_eq!((settle.due(), settle.glance()), (None, None));
    }
}
