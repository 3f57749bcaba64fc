//! What became of an object, for `outrigger status` and `outrigger check`.

use std::fmt;

use crate::manifest::ObjectKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// What is still worth knowing, one sentence each: a target decided by another policy, a field without effect.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In force, as far as its notes do not say otherwise.
    Accepted,
    /// Nothing of it has any effect; why.
    Ignored(String),
    /// Everything it says is decided by another object; why that one.
    Overridden { by: ObjectKey, why: String },
}

impl Default for Status {
    fn default() -> Self {
        Self { state: State::Accepted, notes: vec![] }
    }
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
