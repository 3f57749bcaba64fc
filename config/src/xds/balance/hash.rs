//! What requests are hashed by: Envoy's `hash_policy`, which can say all of it.

use super::super::at::{At, Unsupported, take};
use super::super::fields;
use super::super::pb::route::route_action as proto;
use super::super::pb::route::route_action::hash_policy::PolicySpecifier;
use crate::model::{HashCookie, HashInput, HashOn};

pub(in super::super) fn encode(on: &HashOn) -> proto::HashPolicy {
    use proto::hash_policy::{ConnectionProperties, Cookie, Header, QueryParameter};
    let specifier = match &on.input {
        HashInput::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.as_str().to_owned(), ..Default::default() })
        }
        HashInput::Cookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.to_string(),
            ttl: cookie.ttl.map(fields::duration),
            path: cookie.path.as_deref().unwrap_or_default().to_owned(),
            ..Default::default()
        }),
        HashInput::Source => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashInput::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    proto::HashPolicy { terminal: on.terminal, policy_specifier: Some(specifier) }
}

pub(in super::super) fn decode(
    policies: Vec<proto::HashPolicy>,
    field: &'static str,
    at: &At<'_>,
) -> Result<Vec<HashOn>, Unsupported> {
    let one = |(i, policy): (usize, proto::HashPolicy)| {
        let at = at.index(field, i);
        Ok(HashOn { terminal: policy.terminal, input: input(policy.policy_specifier, &at)? })
    };
    policies.into_iter().enumerate().map(one).collect()
}

fn input(specifier: Option<PolicySpecifier>, at: &At<'_>) -> Result<HashInput, Unsupported> {
    use proto::hash_policy::{Cookie, Header};
    match specifier {
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            take! { at, header => Header;
                read { header_name }
                ignore {}
                refuse { regex_rewrite }
            };
            fields::header_name(&header_name, &at.field("header_name")).map(HashInput::Header)
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            let at = at.field("cookie");
            take! { at, cookie => Cookie;
                read { name, ttl, path }
                ignore {}
                refuse { attributes }
            };
            cookie_name(&name, &at.field("name"))?;
            cookie_path(&path, &at.field("path"))?;
            let ttl = fields::optional_duration(ttl, &at.field("ttl"))?;
            Ok(HashInput::Cookie(HashCookie { name: name.into(), ttl, path: fields::some_arc(path) }))
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
            Ok(HashInput::Source)
        }
        Some(PolicySpecifier::QueryParameter(parameter)) if !parameter.name.is_empty() => {
            Ok(HashInput::Query(parameter.name.into()))
        }
        Some(PolicySpecifier::FilterState(_)) => Err(at.field("filter_state").unsupported()),
        Some(PolicySpecifier::ConnectionProperties(_) | PolicySpecifier::QueryParameter(_)) | None => {
            Err(at.refuse("says nothing to hash"))
        }
    }
}

/// A token (RFC 6265 section 4.1.1): anything else would change the meaning of the header it stands in.
pub(in super::super) fn cookie_name(name: &str, at: &At<'_>) -> Result<(), Unsupported> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_ok() {
        return Ok(());
    }
    Err(at.refuse(format!("{name:?} is not the name of a cookie")))
}

/// Empty, or visible ASCII without `;`.
pub(in super::super) fn cookie_path(path: &str, at: &At<'_>) -> Result<(), Unsupported> {
    if path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
        return Ok(());
    }
    Err(at.refuse(format!("{path:?} is not the path of a cookie")))
}
