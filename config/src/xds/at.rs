//! Where in a message something stands, and the refusal that names it.

use std::fmt;

/// Why a resource can't be used as it is. It is refused whole: nothing of it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unsupported {
    /// Protobuf field path from the resource's root, `virtual_hosts[0].routes[2].route.hash_policy`; empty for the whole.
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

/// A field path that costs nothing until it is printed: each step knows the one before.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    before: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'static str),
    Index(&'static str, usize),
    Key(&'static str, &'a str),
}

impl<'a> At<'a> {
    pub(super) const ROOT: At<'static> = At { before: None, step: Step::Field("") };

    pub(super) fn field(&'a self, name: &'static str) -> At<'a> {
        At { before: Some(self), step: Step::Field(name) }
    }

    pub(super) fn index(&'a self, name: &'static str, index: usize) -> At<'a> {
        At { before: Some(self), step: Step::Index(name, index) }
    }

    pub(super) fn key(&'a self, name: &'static str, key: &'a str) -> At<'a> {
        At { before: Some(self), step: Step::Key(name, key) }
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) -> Unsupported {
        Unsupported { path: self.to_string(), reason: reason.into() }
    }

    pub(super) fn unsupported(&self) -> Unsupported {
        self.refuse("not supported")
    }

    pub(super) fn missing(&self) -> Unsupported {
        self.refuse("missing")
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            fmt::Display::fmt(before, f)?;
            if before.before.is_some() {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Field(name) => f.write_str(name),
            Step::Index(name, index) => write!(f, "{name}[{index}]"),
            Step::Key(name, key) => write!(f, "{name}[{key:?}]"),
        }
    }
}

/// Takes a message apart completely, so that no field of it can be overlooked: `read` fields become variables,
/// `ignore`d ones change nothing about a request, and a `refuse`d one that is set refuses the resource by its path.
/// A field that a new release of the messages adds stops the build here.
macro_rules! take {
    (
        $at:expr, $value:expr => $($path:ident)::+;
        read { $($read:ident),* $(,)? }
        ignore { $($ignored:ident),* $(,)? }
        refuse { $($refused:ident),* $(,)? }
    ) => {
        #[allow(deprecated)] // A deprecated field is taken apart like any other.
        let $($path)::+ { $($read,)* $($ignored: _,)* $($refused,)* } = $value;
        $(if !$crate::xds::at::is_default(&$refused) {
            return Err($at.field(stringify!($refused)).unsupported());
        })*
    };
}
pub(super) use take;

/// What protobuf does not tell from absent.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_field_it_names() {
        let root = At::ROOT;
        let host = root.index("virtual_hosts", 2);
        let filter = host.key("typed_per_filter_config", "a.b");
        assert_eq!(root.refuse("bad").to_string(), "bad");
        assert_eq!(
            filter.field("x").unsupported().to_string(),
            "virtual_hosts[2].typed_per_filter_config[\"a.b\"].x: not supported"
        );
    }
}
