//! What became of an object, for `outrigger status` and `outrigger check`.

use std::fmt;

use crate::diagnostic::Diagnostic;
use crate::manifest::ObjectKey;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// What the cross-checks found in it; also among [`super::Registry::diagnostics`].
    pub findings: Vec<Diagnostic>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// In force, as far as its findings do not say otherwise.
    #[default]
    Accepted,
    /// Nothing of it has any effect; why.
    Ignored(String),
    /// Everything it says is decided by another object; why that one.
    Overridden { by: ObjectKey, why: String },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("Accepted"),
            Self::Ignored(why) => write!(f, "Ignored: {why}"),
            Self::Overridden { by, why } => write!(f, "Overridden by {by}: {why}"),
        }
    }
}
