//! From the tree to typed manifests, through serde.
//!
//! Owns what a misfit says: where it stands, what was found, what is accepted, which known name is nearest.
//! Null is taken as Kubernetes takes it: as if the field were not there.
//! After one misfit the field is set aside and the rest is read again, so that one run reports them all.
//! Types that use serde's `flatten`, `untagged` or internal tags would lose the path: none here does.

use serde::de::DeserializeOwned;

use crate::diagnostic::Position;

use super::path::{FieldPath, Segment};
use super::tree::{Node, Value};

mod deserializer;
mod error;
mod words;

pub use error::{inside, member_error};
pub use words::{nearest, quoted, within};

/// More misfits than this in one object are not listed.
const MAX_MISFITS: usize = 20;
/// Readings of one object, those included that find nothing new.
const MAX_READINGS: usize = 100;

/// One field that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub path: FieldPath,
    pub at: Option<Position>,
    pub message: String,
}

/// Reads a typed value, or says everything that keeps it from being one.
pub fn decode<T: DeserializeOwned>(mut root: Node) -> Result<T, Vec<Misfit>> {
    let mut misfits: Vec<Misfit> = Vec::new();
    // Fields whose absence has been explained.
    let mut explained: Vec<FieldPath> = Vec::new();
    for _ in 0..MAX_READINGS {
        let error = match T::deserialize(&root) {
            Ok(value) if misfits.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let meant = error.meant;
        let misfit = error.into_misfit(&root);
        let removed = set_aside(&mut root, misfit.path.segments());
        // What surrounds a field that was set aside may fail only because the field is gone.
        if !explained.iter().any(|gone| gone.segments().starts_with(misfit.path.segments())) {
            explained.push(misfit.path.clone());
            // A misspelt field is the reason why the one that was meant is missing.
            explained.extend(meant.map(|meant| misfit.path.beside(meant)));
            misfits.push(misfit);
        }
        if !removed || misfits.len() == MAX_MISFITS {
            break;
        }
    }
    Err(misfits)
}

/// Takes the innermost thing on the path that can be taken out of the tree. False when nothing is left to take.
fn set_aside(root: &mut Node, path: &[Segment]) -> bool {
    (1..=path.len()).rev().any(|len| remove(root, &path[..len]))
}

fn remove(root: &mut Node, path: &[Segment]) -> bool {
    let Some((last, holder)) = path.split_last() else { return false };
    let mut node = root;
    for segment in holder {
        let next = match (segment, &mut node.value) {
            (Segment::Key(key), Value::Mapping(members)) => {
                members.iter_mut().find(|m| m.key == *key).map(|m| &mut m.node)
            }
            (Segment::Index(i), Value::Sequence(items)) => items.get_mut(*i),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    match (last, &mut node.value) {
        (Segment::Key(key), Value::Mapping(members)) => {
            let before = members.len();
            members.retain(|m| m.key != *key);
            members.len() < before
        }
        (Segment::Index(i), Value::Sequence(items)) => match items.get_mut(*i) {
            Some(item) if item.value != Value::SetAside => {
                item.value = Value::SetAside;
                true
            }
            _ => false,
        },
        _ => false,
    }
}
