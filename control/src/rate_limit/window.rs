//! A window that slides: what was used within the last unit of time, kept as two numbers.
//!
//! Counts by whole units, and takes of the unit before the share that still lies within one unit of now, as if its use had been even. So there is no edge at which
//! all is allowed twice. Told the time, in milliseconds; reads no clock. `take.lua` does the same in Redis, and a test compares the two.

/// What may be used, and is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub limit: u32,
    /// Milliseconds; 1 or more.
    pub unit: u64,
    /// Negative: given back.
    pub hits: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub fits: bool,
    /// What may still be used now.
    pub remaining: u32,
    /// Milliseconds until the unit ends; of what does not fit, until it will if nobody else uses anything.
    pub reset: u64,
}

/// The use of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Which unit since the beginning of time.
    index: u64,
    before: u64,
    current: u64,
}

impl Window {
    /// As it is at `now`, and what was used of it; nothing is counted yet.
    pub fn at(self, now: u64, ask: Ask) -> (Self, u64, Answer) {
        let (mut index, mut elapsed) = (now / ask.unit, now % ask.unit);
        let (mut before, mut current) = (self.before, self.current);
        if self.index > index {
            // Another server's clock was ahead.
            (index, elapsed) = (self.index, 0);
        } else if self.index + 1 == index {
            (before, current) = (current, 0);
        } else if self.index != index {
            (before, current) = (0, 0);
        }
        // In floating point, as Redis reckons.
        let share = before as f64 * (ask.unit - elapsed) as f64 / ask.unit as f64;
        let used = share.ceil() as u64 + current;
        let fits = ask.hits < 0 || used.saturating_add(ask.hits.unsigned_abs()) <= u64::from(ask.limit);
        let left = u64::from(ask.limit).saturating_sub(used);
        let remaining = u32::try_from(left).expect("at most the limit");
        let at = Self { index, before, current };
        let reset = if fits { ask.unit - elapsed } else { at.wait(elapsed, ask) };
        (at, used, Answer { fits, remaining, reset })
    }

    /// Milliseconds until the hits fit; until the unit ends where they never will.
    fn wait(self, elapsed: u64, ask: Ask) -> u64 {
        let hits = ask.hits.unsigned_abs();
        let Some(room) = u64::from(ask.limit).checked_sub(hits) else { return ask.unit - elapsed };
        // How far into a unit the share of the one before has come down to `room`.
        let from = |before: u64, room: u64| {
            let left =
                if before > room { room as f64 * ask.unit as f64 / before as f64 } else { ask.unit as f64 };
            ask.unit - (left.floor() as u64).min(ask.unit)
        };
        match room.checked_sub(self.current) {
            Some(room) => from(self.before, room).saturating_sub(elapsed).max(1),
            None => ask.unit - elapsed + from(self.current, room),
        }
    }

    /// Counts what was asked for, on a window that is as it is now.
    pub fn count(&mut self, ask: Ask) {
        self.current = self.current.saturating_add_signed(ask.hits);
    }

    /// Whether nothing of it matters any more.
    pub fn is_over(self, now: u64, unit: u64) -> bool {
        self.index + 1 < now / unit
    }
}

impl Answer {
    /// After the asked for was counted.
    pub fn counted(self, ask: Ask, used: u64) -> Self {
        let used = used.saturating_add_signed(ask.hits);
        let left = u64::from(ask.limit).saturating_sub(used);
        Self { remaining: u32::try_from(left).expect("at most the limit"), ..self }
    }
}
