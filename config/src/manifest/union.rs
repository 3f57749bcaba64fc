//! Unions as Kubernetes writes them: a `type`, and of several members the one that it calls for.

use super::decode::member_error;

/// The member that type `kind` calls for. `members` says of each member of the union whether it is set.
pub fn chosen<T>(
    kind: &str,
    wanted: &str,
    value: Option<T>,
    members: &[(&'static str, bool)],
) -> Result<T, String> {
    if let Some((other, _)) = members.iter().find(|(name, set)| *set && *name != wanted) {
        return Err(member_error(other, format!("does not go with type {kind}, which takes `{wanted}`")));
    }
    value.ok_or_else(|| member_error(wanted, format!("is required with type {kind}, and missing")))
}

/// Checks that exactly one member is set, where no `type` says which.
pub fn exactly_one(members: &[(&'static str, bool)]) -> Result<(), String> {
    let mut set = members.iter().filter(|(_, set)| *set).map(|(name, _)| name);
    match (set.next(), set.next()) {
        (Some(_), None) => Ok(()),
        (Some(first), Some(second)) => {
            Err(member_error(second, format!("cannot be set together with `{first}`")))
        }
        (None, _) => {
            let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
            Err(format!("one of these is required: {}", names.join(", ")))
        }
    }
}
