//! Cross-origin answers: Envoy's CORS filter, configured on the route.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::at::{At, Unsupported, take};
use super::super::fields;
use super::super::pb::{self, cors as proto};
use crate::model::Cors;

const FILTER: &str = "envoy.filters.http.cors";

/// What `*` inside an origin stands for.
const ANY_LABELS: &str = "[^/]+";

pub(super) fn encode(cors: &Cors) -> (String, pb::Any) {
    use pb::matcher::string_matcher::MatchPattern;
    let origins = cors.allow_origins.iter().map(|origin| {
        let pattern = match &**origin {
            // Envoy takes this very text for any origin.
            "*" => MatchPattern::Exact("*".into()),
            origin if origin.contains('*') => MatchPattern::SafeRegex(fields::regex(&wildcard(origin))),
            origin => MatchPattern::Exact(origin.to_owned()),
        };
        pb::matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
    });
    let policy = proto::CorsPolicy {
        allow_origin_string_match: origins.collect(),
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.as_secs().to_string(),
        allow_credentials: fields::bool_value(cors.allow_credentials),
        ..Default::default()
    };
    (FILTER.to_owned(), fields::pack(&policy))
}

pub(super) fn decode(configs: HashMap<String, pb::Any>, at: &At<'_>) -> Result<Option<Cors>, Unsupported> {
    let mut cors = None;
    for (name, any) in configs {
        let at = at.key("typed_per_filter_config", &name);
        if any.type_url != <proto::CorsPolicy as prost::Name>::type_url() {
            return Err(at.refuse(format!("{:?} is not supported", any.type_url)));
        }
        if cors.replace(policy(fields::unpack(&any, &at)?, &at)?).is_some() {
            return Err(at.refuse("a second CORS policy"));
        }
    }
    Ok(cors)
}

fn policy(policy: proto::CorsPolicy, at: &At<'_>) -> Result<Cors, Unsupported> {
    use pb::matcher::string_matcher::MatchPattern;
    take! { at, policy => proto::CorsPolicy;
        read { allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials }
        ignore {}
        refuse { filter_enabled, shadow_enabled, allow_private_network_access, forward_not_matching_preflights }
    };
    let mut allow_origins = Vec::with_capacity(allow_origin_string_match.len());
    for (i, matcher) in allow_origin_string_match.into_iter().enumerate() {
        let at = at.index("allow_origin_string_match", i);
        let origin = match matcher.match_pattern {
            Some(MatchPattern::Exact(origin)) if !matcher.ignore_case => Some(origin),
            Some(MatchPattern::SafeRegex(regex)) => unwildcard(&regex.regex),
            _ => None,
        };
        let origin = origin.ok_or_else(|| at.refuse("an origin is exact or has * for its leading labels"))?;
        allow_origins.push(origin.into());
    }
    let max_age = match max_age.as_str() {
        "" => DEFAULT_MAX_AGE,
        seconds => {
            let seconds = seconds.parse::<u32>();
            Duration::from_secs(
                seconds.map_err(|_| at.field("max_age").refuse("not a number of seconds"))?.into(),
            )
        }
    };
    Ok(Cors {
        allow_origins,
        allow_credentials: allow_credentials.is_some_and(|allowed| allowed.value),
        allow_methods: list(&allow_methods),
        allow_headers: list(&allow_headers),
        expose_headers: list(&expose_headers),
        max_age,
    })
}

/// Gateway API `HTTPCORSFilter.maxAge`.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5);

fn list(text: &str) -> Vec<Arc<str>> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Into::into).collect()
}

fn wildcard(origin: &str) -> String {
    origin.split('*').map(regex::escape).collect::<Vec<_>>().join(ANY_LABELS)
}

/// The reverse of [`wildcard`], for exactly what it makes.
fn unwildcard(regex: &str) -> Option<String> {
    let origin = regex.replace(ANY_LABELS, "*").replace('\\', "");
    (origin.contains('*') && wildcard(&origin) == regex).then_some(origin)
}
