//! Rewrites of path and host.
//!
//! Envoy replaces a prefix byte by byte; the Gateway API replaces whole segments (`/foo` by `/` makes `/bar` of `/foo/bar`, not
//! `//bar`). Where the two differ Envoy gets a regular expression that does it right, and we read our metadata.

use super::super::at::{At, Unsupported};
use super::super::pb::matcher::RegexMatchAndSubstitute;
use super::super::{fields, own};
use crate::model::{PathMatch, PathRewrite, Rewrite};

/// The fields of a route or redirect action that change a path. At most one is set.
#[derive(Default)]
pub(super) struct PathFields {
    /// `None` or a whole path.
    pub(super) full: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) regex: Option<RegexMatchAndSubstitute>,
}

/// The second says whether decoding gives the same back.
pub(super) fn path_fields(rewrite: Option<&PathRewrite>, matched: &PathMatch) -> (PathFields, bool) {
    match rewrite {
        None => (PathFields::default(), true),
        Some(PathRewrite::Full(path)) => {
            (PathFields { full: Some(path.to_string()), ..Default::default() }, !path.is_empty())
        }
        Some(PathRewrite::Prefix { matched: prefix, replacement }) => {
            let bytewise = !replacement.is_empty() && !replacement.ends_with('/') && &**prefix != "/";
            if bytewise && *matched == PathMatch::Prefix(prefix.clone()) {
                (PathFields { prefix: Some(replacement.to_string()), ..Default::default() }, true)
            } else {
                let regex = segments(prefix, replacement);
                (PathFields { regex: Some(regex), ..Default::default() }, false)
            }
        }
    }
}

/// Replaces whole segments, and leaves one slash between what was put in and what stays.
fn segments(prefix: &str, replacement: &str) -> RegexMatchAndSubstitute {
    let literal = replacement.trim_end_matches('/').replace('\\', "\\\\");
    RegexMatchAndSubstitute {
        pattern: Some(fields::regex(&format!("^{}/*", regex::escape(prefix.trim_end_matches('/'))))),
        substitution: format!("{literal}/"),
    }
}

pub(super) fn decode(
    fields: PathFields,
    matched: &PathMatch,
    (prefix_field, regex_field): (&'static str, &'static str),
    at: &At<'_>,
) -> Result<Option<PathRewrite>, Unsupported> {
    if fields.regex.is_some() {
        return Err(at.field(regex_field).unsupported());
    }
    match (fields.full, fields.prefix, matched) {
        (Some(_), Some(_), _) => Err(at.field(prefix_field).refuse("there are two rewrites of the path")),
        (Some(path), None, _) => Ok(Some(PathRewrite::Full(path.into()))),
        // Byte by byte and by segments is the same here: the replacement neither ends with a slash nor does the prefix.
        (None, Some(replacement), PathMatch::Prefix(prefix))
            if &**prefix != "/" && !replacement.ends_with('/') =>
        {
            Ok(Some(PathRewrite::Prefix { matched: prefix.clone(), replacement: replacement.into() }))
        }
        (None, Some(_), _) => Err(at
            .field(prefix_field)
            .refuse("only on a path_separated_prefix, and without a trailing slash")),
        (None, None, _) => Ok(None),
    }
}

/// Our metadata's word, which makes the fields irrelevant.
pub(super) fn ours(own: Option<own::Rewrite>) -> Option<Rewrite> {
    own.map(Into::into)
}
