//! What a request has to look like.

use super::super::at::{At, Unsupported, take};
use super::super::fields;
use super::super::pb::route as proto;
use super::proto::header_matcher::HeaderMatchSpecifier;
use super::proto::query_parameter_matcher::QueryParameterMatchSpecifier;
use super::proto::route_match::PathSpecifier;
use crate::model::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, StringMatch};
use http::Method;

const METHOD: &str = ":method";

pub(super) fn encode(matches: &RouteMatch) -> proto::RouteMatch {
    let method = matches.method.as_ref().map(|method| StringMatch::Exact(method.as_str().into()));
    let headers = matches.headers.iter().map(|header| header_matcher(header.name.as_str(), &header.value));
    proto::RouteMatch {
        path_specifier: Some(match &matches.path {
            PathMatch::Exact(path) => PathSpecifier::Path(path.to_string()),
            PathMatch::Prefix(prefix) if &**prefix == "/" => PathSpecifier::Prefix("/".into()),
            PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.to_string()),
            PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(fields::regex(pattern.as_str())),
        }),
        headers: method.iter().map(|method| header_matcher(METHOD, method)).chain(headers).collect(),
        query_parameters: matches
            .query
            .iter()
            .map(|query| proto::QueryParameterMatcher {
                name: query.name.to_string(),
                query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(
                    fields::string_matcher(&query.value),
                )),
            })
            .collect(),
        ..Default::default()
    }
}

pub(super) fn header_matcher(name: &str, value: &StringMatch) -> proto::HeaderMatcher {
    proto::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(fields::string_matcher(value))),
        ..Default::default()
    }
}

pub(super) fn decode(message: proto::RouteMatch, at: &At<'_>) -> Result<RouteMatch, Unsupported> {
    take! { at, message => proto::RouteMatch;
        read { case_sensitive, headers, query_parameters, path_specifier }
        ignore {}
        refuse { runtime_fraction, cookies, grpc, tls_context, dynamic_metadata, filter_state }
    };
    if case_sensitive.is_some_and(|sensitive| !sensitive.value) {
        return Err(at.field("case_sensitive").refuse("paths are compared with regard to case"));
    }
    let mut method = None;
    let mut decoded = Vec::with_capacity(headers.len());
    for (i, header) in headers.into_iter().enumerate() {
        let at = at.index("headers", i);
        let name = header.name.clone();
        let value = header_value(header, &at)?;
        if name != METHOD {
            decoded.push(HeaderMatch { name: fields::header_name(&name, &at.field("name"))?, value });
            continue;
        }
        let parsed = match &value {
            StringMatch::Exact(text) => Method::from_bytes(text.as_bytes()).ok(),
            StringMatch::Regex(_) => None,
        };
        let parsed = parsed.ok_or_else(|| at.refuse("a method is compared with one exact token"))?;
        if method.replace(parsed).is_some() {
            return Err(at.refuse("a second condition on the method"));
        }
    }
    let mut query = Vec::with_capacity(query_parameters.len());
    for (i, parameter) in query_parameters.into_iter().enumerate() {
        let at = at.index("query_parameters", i);
        let value = match parameter.query_parameter_match_specifier {
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                fields::string_match(matcher, &at.field("string_match"))?
            }
            Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => fields::present(),
            Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
                return Err(at.field("present_match").unsupported());
            }
        };
        query.push(QueryMatch { name: parameter.name.into(), value });
    }
    Ok(RouteMatch { path: path(path_specifier, at)?, method, headers: decoded, query })
}

fn path(specifier: Option<PathSpecifier>, at: &At<'_>) -> Result<PathMatch, Unsupported> {
    match specifier {
        Some(PathSpecifier::Path(path)) => Ok(PathMatch::Exact(path.into())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => Ok(PathMatch::prefix(&prefix)),
        Some(PathSpecifier::Prefix(prefix)) if prefix.is_empty() || prefix == "/" => {
            Ok(PathMatch::prefix("/"))
        }
        // Not by whole segments: `/api` matches `/apiary`, too.
        Some(PathSpecifier::Prefix(prefix)) => Pattern::new(&format!("(?s){}.*", regex::escape(&prefix)))
            .map(PathMatch::Regex)
            .map_err(|e| at.field("prefix").refuse(e)),
        Some(PathSpecifier::SafeRegex(regex)) => {
            fields::pattern(&regex, &at.field("safe_regex")).map(PathMatch::Regex)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => Err(at.field("connect_matcher").unsupported()),
        Some(PathSpecifier::PathMatchPolicy(_)) => Err(at.field("path_match_policy").unsupported()),
        None => Err(at.field("path_specifier").missing()),
    }
}

pub(super) fn header_value(header: proto::HeaderMatcher, at: &At<'_>) -> Result<StringMatch, Unsupported> {
    take! { at, header => proto::HeaderMatcher;
        read { header_match_specifier }
        ignore { name }
        refuse { invert_match, treat_missing_header_as_empty }
    };
    use super::super::pb::matcher::string_matcher::MatchPattern;
    let older = |pattern, field| {
        let matcher = super::pb::matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) };
        fields::string_match(matcher, &at.field(field))
    };
    #[allow(deprecated)] // The older spellings say the same as `string_match`.
    match header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            fields::string_match(matcher, &at.field("string_match"))
        }
        Some(HeaderMatchSpecifier::PresentMatch(true)) | None => Ok(fields::present()),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => Err(at.field("present_match").unsupported()),
        Some(HeaderMatchSpecifier::RangeMatch(_)) => Err(at.field("range_match").unsupported()),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => older(MatchPattern::Exact(text), "exact_match"),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => older(MatchPattern::Prefix(text), "prefix_match"),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => older(MatchPattern::Suffix(text), "suffix_match"),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            older(MatchPattern::Contains(text), "contains_match")
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            older(MatchPattern::SafeRegex(regex), "safe_regex_match")
        }
    }
}
