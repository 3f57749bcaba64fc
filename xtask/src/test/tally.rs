//! The sum of the result lines that test binaries print.

use std::fmt;

/// Reads cargo test's output in pieces of any size and adds up its `test result:` lines.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    line: Vec<u8>,
}

impl Tally {
    pub fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
    }

    /// Moves tests that returned early for want of a counterpart from passed to skipped.
    pub fn skip(&mut self, tests: usize) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    /// Tests that ran to an end.
    pub fn ran(&self) -> usize {
        self.passed + self.failed
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let Some((_, counts)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<usize>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// A result line is far shorter; longer lines come from tests that print, and are no result.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\n\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
        test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 1.20s\n";

    #[test]
    fn sums_every_result_line_however_the_output_is_cut() {
        for size in 1..OUTPUT.len() {
            let mut tally = Tally::default();
            OUTPUT.as_bytes().chunks(size).for_each(|piece| tally.read(piece));
            assert_eq!(tally.to_string(), "41 passed, 1 failed, 3 skipped", "pieces of {size}");
        }
    }

    #[test]
    fn a_test_that_returned_early_did_not_pass() {
        let mut tally = Tally::default();
        tally.read(OUTPUT.as_bytes());
        tally.skip(2);
        assert_eq!(tally.to_string(), "39 passed, 1 failed, 5 skipped");
        assert_eq!(tally.ran(), 40);
    }
}
