//! What `up` shows: the merged log of all processes, each line behind the name of who wrote it.

use std::io::Write;
use std::rc::Rc;

use anstyle::{AnsiColor, Style};

/// Writes whole lines; colours only where the output is a terminal (and `NO_COLOR` is not set).
#[derive(Clone, Debug)]
pub struct Log(Rc<Settings>);

#[derive(Debug)]
struct Settings {
    width: usize,
}

/// The name `up` itself speaks under.
pub const OURSELVES: &str = "outrigger";

impl Log {
    /// `width` is the length of the longest name.
    pub fn new(width: usize) -> Self {
        Self(Rc::new(Settings { width }))
    }

    pub fn line(&self, name: &str, text: &str) {
        let style = colour(name);
        let mut out = anstream::stdout().lock();
        // A reader that went away (a closed pipe) ends the output, not the mesh.
        let _ = writeln!(out, "{style}{name:width$}{style:#} | {text}", width = self.0.width);
    }

    pub fn say(&self, text: &str) {
        for line in text.lines() {
            self.line(OURSELVES, line);
        }
    }
}

/// Always the same colour for the same name.
fn colour(name: &str) -> Style {
    const COLOURS: [AnsiColor; 10] = [
        AnsiColor::Cyan,
        AnsiColor::Yellow,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightCyan,
        AnsiColor::BrightYellow,
        AnsiColor::BrightGreen,
        AnsiColor::BrightMagenta,
        AnsiColor::BrightBlue,
    ];
    if name == OURSELVES {
        return Style::new().bold();
    }
    let sum = name.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    Style::new().fg_color(Some(COLOURS[sum % COLOURS.len()].into()))
}
