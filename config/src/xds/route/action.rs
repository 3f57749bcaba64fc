//! What becomes of a request: forward or redirect, with mirrors and timeouts, which Envoy keeps in the action.

use std::time::Duration;

use http::StatusCode;

use super::super::at::{At, Unsupported, take};
use super::super::pb::route as proto;
use super::super::{balance, fields, own};
use super::proto::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use super::proto::route::Action as Proto;
use super::proto::route_action::{
    ClusterNotFoundResponseCode, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy,
};
use super::rewrite::{self, PathFields};
use super::{RedirectCode, backends, retry};
use crate::model::{
    Action, Forward, Fraction, HashOn, Mirror, PathMatch, Redirect, Retry, Rewrite, Route, RouteMatch,
    Timeouts,
};

/// Envoy's own, where a route says nothing.
const ENVOY_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What Envoy keeps in an action besides where a request goes.
#[derive(Default)]
pub(super) struct Common {
    pub mirrors: Vec<Mirror>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub hash: Vec<HashOn>,
}

pub(super) fn encode(route: &Route, own: &mut own::Route) -> Proto {
    match &route.action {
        Action::Forward(forward) => {
            let action = forward_action(route, forward, own);
            if forward.backends.iter().any(|backend| backend.weight > 0) {
                return Proto::Route(action);
            }
            // Envoy refuses weighted clusters without weight. It answers as the Gateway API asks; what was meant goes along.
            own.action = Some(action);
            let status = u32::from(StatusCode::INTERNAL_SERVER_ERROR.as_u16());
            Proto::DirectResponse(proto::DirectResponseAction { status, ..Default::default() })
        }
        Action::Redirect(redirect) => {
            if !route.mirrors.is_empty() || route.timeouts != Timeouts::default() || !route.hash.is_empty() {
                own.action = Some(common(route));
            }
            Proto::Redirect(redirect_action(redirect, &route.matches.path, own))
        }
    }
}

/// Mirrors, timeouts, retries and hashes.
fn common(route: &Route) -> proto::RouteAction {
    let or_none = |limit: Option<Duration>| Some(fields::duration(limit.unwrap_or_default()));
    proto::RouteAction {
        timeout: or_none(route.timeouts.request),
        idle_timeout: or_none(route.timeouts.stream_idle),
        max_stream_duration: route.timeouts.stream.map(|stream| MaxStreamDuration {
            max_stream_duration: Some(fields::duration(stream)),
            ..Default::default()
        }),
        hash_policy: route.hash.iter().map(balance::hash::encode).collect(),
        retry_policy: retry::encode(route.retry.as_deref(), route.timeouts.backend_request),
        request_mirror_policies: route
            .mirrors
            .iter()
            .map(|mirror| RequestMirrorPolicy {
                cluster: mirror.cluster.to_string(),
                runtime_fraction: fields::fraction(mirror.fraction),
                disable_shadow_host_suffix_append: true,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn forward_action(route: &Route, forward: &Forward, own: &mut own::Route) -> proto::RouteAction {
    let (path, exact) = rewrite::path_fields(forward.rewrite.path.as_ref(), &route.matches.path);
    if !exact {
        own.rewrite = Some((&forward.rewrite).into());
    }
    proto::RouteAction {
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError as i32,
        cluster_specifier: Some(backends::encode(&forward.backends, own)),
        host_rewrite_specifier: forward
            .rewrite
            .host
            .as_deref()
            .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.into())),
        // `%` begins a variable of Envoy's.
        path_rewrite: path.full.unwrap_or_default().replace('%', "%%"),
        prefix_rewrite: path.prefix.unwrap_or_default(),
        regex_rewrite: path.regex,
        ..common(route)
    }
}

fn redirect_action(redirect: &Redirect, matched: &PathMatch, own: &mut own::Route) -> proto::RedirectAction {
    let (path, exact) = rewrite::path_fields(redirect.path.as_ref(), matched);
    if !exact {
        own.rewrite = Some((&Rewrite { host: None, path: redirect.path.clone() }).into());
    }
    proto::RedirectAction {
        host_redirect: redirect.host.as_deref().unwrap_or_default().into(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        response_code: match redirect.status.as_u16() {
            301 => RedirectCode::MovedPermanently,
            303 => RedirectCode::SeeOther,
            307 => RedirectCode::TemporaryRedirect,
            308 => RedirectCode::PermanentRedirect,
            _ => RedirectCode::Found, // The model has no other.
        } as i32,
        scheme_rewrite_specifier: redirect
            .scheme
            .as_deref()
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.into())),
        path_rewrite_specifier: path
            .full
            .map(PathRewriteSpecifier::PathRedirect)
            .or(path.prefix.map(PathRewriteSpecifier::PrefixRewrite))
            .or(path.regex.map(PathRewriteSpecifier::RegexRewrite)),
        ..Default::default()
    }
}

pub(super) fn decode(
    action: Option<Proto>,
    mut own: own::Route,
    foreign: bool,
    matches: &RouteMatch,
    at: &At<'_>,
) -> Result<(Action, Common), Unsupported> {
    match action {
        Some(Proto::Route(action)) => decode_forward(action, own, foreign, &matches.path, &at.field("route")),
        Some(Proto::Redirect(redirect)) => {
            let metadata = at.field("metadata");
            let common = match own.action.take() {
                Some(action) => decode_common(&action, foreign, &own::at(&metadata).field("action"))?,
                None => Default::default(),
            };
            let redirect = decode_redirect(redirect, own.rewrite, &matches.path, &at.field("redirect"))?;
            Ok((Action::Redirect(redirect), common))
        }
        Some(Proto::DirectResponse(_)) => match own.action.take() {
            Some(action) => {
                let metadata = at.field("metadata");
                decode_forward(action, own, foreign, &matches.path, &own::at(&metadata).field("action"))
            }
            None => Err(at.field("direct_response").unsupported()),
        },
        Some(Proto::FilterAction(_)) => Err(at.field("filter_action").unsupported()),
        Some(Proto::NonForwardingAction(_)) => Err(at.field("non_forwarding_action").unsupported()),
        None => Err(at.field("action").missing()),
    }
}

fn decode_forward(
    action: proto::RouteAction,
    own: own::Route,
    foreign: bool,
    matched: &PathMatch,
    at: &At<'_>,
) -> Result<(Action, Common), Unsupported> {
    let common = decode_common(&action, foreign, at)?;
    take! { at, action => proto::RouteAction;
        read {
            prefix_rewrite, regex_rewrite, path_rewrite, host_rewrite_specifier, cluster_specifier, upgrade_configs
        }
        // All but the first two are read by `decode_common`.
        ignore {
            cluster_not_found_response_code, priority, request_mirror_policies, timeout, idle_timeout, retry_policy,
            max_stream_duration, hash_policy
        }
        refuse {
            metadata_match, path_rewrite_policy, append_x_forwarded_host, flush_timeout, early_data_policy,
            retry_policy_typed_config, rate_limits, include_vh_rate_limits, cors,
            max_grpc_timeout, grpc_timeout_offset, internal_redirect_policy, internal_redirect_action,
            max_internal_redirects, hedge_policy
        }
    };
    if let Some(i) = upgrade_configs.iter().position(|upgrade| {
        upgrade.connect_config.is_some() || upgrade.enabled.is_some_and(|enabled| !enabled.value)
    }) {
        return Err(at.index("upgrade_configs", i).refuse("every upgrade is passed on"));
    }
    let host = match host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => fields::some_arc(host),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if !auto.value => None,
        Some(_) => {
            return Err(at.field("host_rewrite_specifier").refuse("only host_rewrite_literal is supported"));
        }
    };
    let rewrite = match rewrite::ours(own.rewrite) {
        Some(rewrite) => rewrite,
        None => {
            let path = PathFields {
                full: unescaped(path_rewrite, &at.field("path_rewrite"))?,
                prefix: (!prefix_rewrite.is_empty()).then_some(prefix_rewrite),
                regex: regex_rewrite,
            };
            Rewrite { host, path: rewrite::decode(path, matched, ("prefix_rewrite", "regex_rewrite"), at)? }
        }
    };
    let backends = backends::decode(cluster_specifier, own.backends, &rewrite, at)?;
    Ok((Action::Forward(Forward { backends, rewrite }), common))
}

fn decode_common(action: &proto::RouteAction, foreign: bool, at: &At<'_>) -> Result<Common, Unsupported> {
    let mut mirrors = Vec::with_capacity(action.request_mirror_policies.len());
    for (i, policy) in action.request_mirror_policies.iter().enumerate() {
        let at = at.index("request_mirror_policies", i);
        take! { at, policy.clone() => RequestMirrorPolicy;
            read { cluster, runtime_fraction }
            ignore { disable_shadow_host_suffix_append, trace_sampled }
            refuse { cluster_header, request_headers_mutations, host_rewrite_literal }
        };
        let fraction = fields::optional_fraction(runtime_fraction, &at.field("runtime_fraction"))?;
        mirrors
            .push(Mirror { cluster: cluster.as_str().into(), fraction: fraction.unwrap_or(Fraction::ALL) });
    }
    let request = fields::optional_duration(action.timeout, &at.field("timeout"))?;
    let stream_idle = fields::optional_duration(action.idle_timeout, &at.field("idle_timeout"))?;
    let (backend_request, retry) = match action.retry_policy.clone() {
        Some(policy) => retry::decode(policy, foreign, &at.field("retry_policy"))?,
        None => (None, None),
    };
    let stream = decode_stream(action.max_stream_duration, &at.field("max_stream_duration"))?;
    let unless_zero = |limit: Duration| (!limit.is_zero()).then_some(limit);
    let timeouts = Timeouts {
        request: unless_zero(request.unwrap_or(ENVOY_REQUEST_TIMEOUT)),
        backend_request: backend_request.and_then(unless_zero),
        stream_idle: stream_idle.and_then(unless_zero),
        stream: stream.and_then(unless_zero),
    };
    let hash = balance::hash::decode(action.hash_policy.clone(), "hash_policy", at)?;
    Ok(Common { mirrors, timeouts, retry, hash })
}

/// A caller's `grpc-timeout` holds here in any case; a ceiling of 0 asks for that.
fn decode_stream(limits: Option<MaxStreamDuration>, at: &At<'_>) -> Result<Option<Duration>, Unsupported> {
    take! { at, limits.unwrap_or_default() => MaxStreamDuration;
        read { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }
        ignore {}
        refuse {}
    };
    for (name, given) in [
        ("grpc_timeout_header_max", grpc_timeout_header_max),
        ("grpc_timeout_header_offset", grpc_timeout_header_offset),
    ] {
        let at = at.field(name);
        if fields::optional_duration(given, &at)?.is_some_and(|given| !given.is_zero()) {
            return Err(at.refuse("only 0 is supported"));
        }
    }
    fields::optional_duration(max_stream_duration, &at.field("max_stream_duration"))
}

fn decode_redirect(
    redirect: proto::RedirectAction,
    own: Option<own::Rewrite>,
    matched: &PathMatch,
    at: &At<'_>,
) -> Result<Redirect, Unsupported> {
    take! { at, redirect => proto::RedirectAction;
        read { host_redirect, port_redirect, response_code, scheme_rewrite_specifier, path_rewrite_specifier }
        ignore {}
        refuse { strip_query }
    };
    let status = match RedirectCode::try_from(response_code) {
        Ok(RedirectCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectCode::Found) => StatusCode::FOUND,
        Ok(RedirectCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => return Err(at.field("response_code").unsupported()),
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => match scheme.as_str() {
            "http" | "https" => Some(scheme.into()),
            _ => return Err(at.field("scheme_redirect").refuse("only http and https are supported")),
        },
    };
    let port = match port_redirect {
        0 => None,
        number => Some(fields::port(number, &at.field("port_redirect"))?),
    };
    let path = match rewrite::ours(own) {
        Some(rewrite) => rewrite.path,
        None => {
            let mut path = PathFields::default();
            match path_rewrite_specifier {
                None => {}
                Some(PathRewriteSpecifier::PathRedirect(full)) => path.full = Some(full),
                Some(PathRewriteSpecifier::PathRewrite(_)) => {
                    return Err(at.field("path_rewrite").unsupported());
                }
                Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => path.prefix = Some(prefix),
                Some(PathRewriteSpecifier::RegexRewrite(regex)) => path.regex = Some(regex),
            }
            rewrite::decode(path, matched, ("prefix_rewrite", "regex_rewrite"), at)?
        }
    };
    Ok(Redirect { status, scheme, host: fields::some_arc(host_redirect), port, path })
}

/// `None` for an empty field; `%%` is a percent sign, a single one begins a variable.
fn unescaped(path: String, at: &At<'_>) -> Result<Option<String>, Unsupported> {
    if path.replace("%%", "").contains('%') {
        return Err(at.refuse("variables are not supported; a literal % is written %%"));
    }
    Ok((!path.is_empty()).then(|| path.replace("%%", "%")))
}
