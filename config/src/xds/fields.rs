//! Pieces that several resources have in common: packing, durations, addresses, string matchers, header edits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use prost::Name;

use super::at::{At, Unsupported, take};
use super::own::LONGEST;
use super::pb;
use crate::model::{Fraction, HeaderEdits, Pattern, StringMatch};

pub(super) fn pack<T: Name>(message: &T) -> pb::Any {
    pb::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

pub(super) fn unpack<T: Name + Default>(any: &pb::Any, at: &At<'_>) -> Result<T, Unsupported> {
    if any.type_url != T::type_url() {
        return Err(at.refuse(format!("{:?} is not supported here; {:?} is", any.type_url, T::type_url())));
    }
    T::decode(any.value.as_slice()).map_err(|e| at.refuse(format!("not a {}: {e}", T::NAME)))
}

/// From the stream this came by.
pub(super) fn ads() -> Option<pb::core::ConfigSource> {
    Some(pb::core::ConfigSource {
        resource_api_version: pb::core::ApiVersion::V3 as i32,
        config_source_specifier: Some(pb::core::config_source::ConfigSourceSpecifier::Ads(
            pb::core::AggregatedConfigSource {},
        )),
        ..Default::default()
    })
}

pub(super) fn from_ads(source: Option<pb::core::ConfigSource>, at: &At<'_>) -> Result<(), Unsupported> {
    use pb::core::config_source::ConfigSourceSpecifier::{Ads, Self_};
    match source.and_then(|source| source.config_source_specifier) {
        Some(Ads(_) | Self_(_)) => Ok(()),
        _ => Err(at.refuse("not supported; only `ads` and `self` are")),
    }
}

pub(super) fn duration(duration: Duration) -> pb::Duration {
    let duration = duration.min(LONGEST);
    pb::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

pub(super) fn optional_duration(
    duration: Option<pb::Duration>,
    at: &At<'_>,
) -> Result<Option<Duration>, Unsupported> {
    let Some(pb::Duration { seconds, nanos }) = duration else { return Ok(None) };
    let (Ok(seconds), Ok(nanos @ ..1_000_000_000)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return Err(at.refuse(format!("{seconds} s {nanos} ns is not a duration")));
    };
    let duration = Duration::new(seconds, nanos);
    if duration > LONGEST {
        return Err(at.refuse(format!("{seconds} s is over ten years")));
    }
    Ok(Some(duration))
}

pub(super) fn uint32(value: u32) -> Option<pb::UInt32Value> {
    Some(pb::UInt32Value { value })
}

pub(super) fn bool_value(value: bool) -> Option<pb::BoolValue> {
    Some(pb::BoolValue { value })
}

pub(super) fn port(port: u32, at: &At<'_>) -> Result<u16, Unsupported> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| at.refuse(format!("{port} is not a port (1 to 65535)")))
}

/// `host` is an IP address or, where the field allows one, a name.
pub(super) fn address(host: &str, port: u16) -> Option<pb::core::Address> {
    Some(pb::core::Address {
        address: Some(pb::core::address::Address::SocketAddress(pb::core::SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(pb::core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    })
}

pub(super) fn host_and_port(
    address: Option<pb::core::Address>,
    at: &At<'_>,
) -> Result<(String, u16), Unsupported> {
    use pb::core::socket_address::PortSpecifier;
    let Some(pb::core::address::Address::SocketAddress(socket)) = address.and_then(|a| a.address) else {
        return Err(at.refuse("not supported; only `socket_address` is"));
    };
    let at = at.field("socket_address");
    take! { at, socket => pb::core::SocketAddress;
        read { address, port_specifier }
        ignore { ipv4_compat }
        refuse { protocol, resolver_name, network_namespace_filepath }
    }
    let Some(PortSpecifier::PortValue(number)) = port_specifier else {
        return Err(at.refuse("has no port_value"));
    };
    Ok((address, port(number, &at.field("port_value"))?))
}

pub(super) fn socket_address(
    address: Option<pb::core::Address>,
    at: &At<'_>,
) -> Result<SocketAddr, Unsupported> {
    let (host, port) = host_and_port(address, at)?;
    let ip: IpAddr = host
        .parse()
        .map_err(|_| at.field("socket_address").refuse(format!("{host:?} is not an IP address")))?;
    Ok(SocketAddr::new(ip, port))
}

pub(super) fn fraction(fraction: Fraction) -> Option<pb::core::RuntimeFractionalPercent> {
    Some(pb::core::RuntimeFractionalPercent {
        default_value: Some(pb::percent::FractionalPercent {
            numerator: fraction.millionths(),
            denominator: pb::percent::fractional_percent::DenominatorType::Million as i32,
        }),
        runtime_key: String::new(),
    })
}

/// `None` where it is left out, which Envoy takes for all.
pub(super) fn optional_fraction(
    fraction: Option<pb::core::RuntimeFractionalPercent>,
    at: &At<'_>,
) -> Result<Option<Fraction>, Unsupported> {
    // Runtime keys are Envoy's own overrides; without its runtime the default value holds.
    optional_percent(fraction.and_then(|f| f.default_value), &at.field("default_value"))
}

pub(super) fn optional_percent(
    percent: Option<pb::percent::FractionalPercent>,
    at: &At<'_>,
) -> Result<Option<Fraction>, Unsupported> {
    use pb::percent::fractional_percent::DenominatorType;
    let Some(percent) = percent else { return Ok(None) };
    let denominator = match DenominatorType::try_from(percent.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return Err(at.field("denominator").unsupported()),
    };
    Fraction::new(percent.numerator, denominator)
        .map(Some)
        .ok_or_else(|| at.refuse(format!("{}/{denominator} is over one", percent.numerator)))
}

pub(super) fn regex(source: &str) -> pb::matcher::RegexMatcher {
    pb::matcher::RegexMatcher { regex: source.to_owned(), engine_type: None }
}

pub(super) fn pattern(matcher: &pb::matcher::RegexMatcher, at: &At<'_>) -> Result<Pattern, Unsupported> {
    Pattern::new(&matcher.regex).map_err(|e| at.field("regex").refuse(e))
}

pub(super) fn string_matcher(value: &StringMatch) -> pb::matcher::StringMatcher {
    use pb::matcher::string_matcher::MatchPattern;
    pb::matcher::StringMatcher {
        ignore_case: false,
        match_pattern: Some(match value {
            StringMatch::Exact(text) => MatchPattern::Exact(text.to_string()),
            StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern.as_str())),
        }),
    }
}

/// Prefix, suffix, contains and matches without regard to case become the regular expression that says the same.
pub(super) fn string_match(
    matcher: pb::matcher::StringMatcher,
    at: &At<'_>,
) -> Result<StringMatch, Unsupported> {
    use pb::matcher::string_matcher::MatchPattern;
    let fold = matcher.ignore_case;
    let converted = |text: String| {
        let flags = if fold { "(?is)" } else { "(?s)" };
        Pattern::new(&format!("{flags}{text}")).map(StringMatch::Regex).map_err(|e| at.refuse(e))
    };
    match matcher.match_pattern {
        Some(MatchPattern::Exact(text)) if !fold => Ok(StringMatch::Exact(text.into())),
        Some(MatchPattern::Exact(text)) => converted(regex::escape(&text)),
        Some(MatchPattern::Prefix(text)) => converted(format!("{}.*", regex::escape(&text))),
        Some(MatchPattern::Suffix(text)) => converted(format!(".*{}", regex::escape(&text))),
        Some(MatchPattern::Contains(text)) => converted(format!(".*{}.*", regex::escape(&text))),
        // Envoy ignores `ignore_case` beside a regular expression.
        Some(MatchPattern::SafeRegex(regex)) => {
            pattern(&regex, &at.field("safe_regex")).map(StringMatch::Regex)
        }
        Some(MatchPattern::Custom(_)) => Err(at.field("custom").unsupported()),
        None => Err(at.field("match_pattern").missing()),
    }
}

/// Any value, even an empty one.
pub(super) fn present() -> StringMatch {
    StringMatch::Regex(Pattern::new("(?s).*").expect("a fixed, valid expression"))
}

/// The pair of fields (`*_headers_to_add`, `*_headers_to_remove`) that stands in a route and in a weighted cluster.
pub(super) fn header_edits(edits: &HeaderEdits) -> (Vec<pb::core::HeaderValueOption>, Vec<String>) {
    use pb::core::header_value_option::HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let set = edits.set.iter().map(|pair| (pair, OverwriteIfExistsOrAdd));
    let add = edits.add.iter().map(|pair| (pair, AppendIfExistsOrAdd));
    let add = set.chain(add).map(|((name, value), action)| {
        // A single `%` begins a variable of Envoy's.
        let (value, raw_value) = match str::from_utf8(value.as_bytes()) {
            Ok(text) => (text.replace('%', "%%"), Vec::new()),
            Err(_) => (String::new(), percent_doubled(value.as_bytes())),
        };
        pb::core::HeaderValueOption {
            keep_empty_value: value.is_empty() && raw_value.is_empty(),
            header: Some(pb::core::HeaderValue { key: name.as_str().to_owned(), value, raw_value }),
            append_action: action as i32,
            ..Default::default()
        }
    });
    (add.collect(), edits.remove.iter().map(|name| name.as_str().to_owned()).collect())
}

pub(super) fn header_edits_of(
    add: Vec<pb::core::HeaderValueOption>,
    remove: Vec<String>,
    (add_at, remove_at): (&'static str, &'static str),
    at: &At<'_>,
) -> Result<HeaderEdits, Unsupported> {
    use pb::core::header_value_option::HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let mut edits = HeaderEdits::default();
    for (i, name) in remove.iter().enumerate() {
        edits.remove.push(header_name(name, &at.index(remove_at, i))?);
    }
    for (i, option) in add.into_iter().enumerate() {
        let at = at.index(add_at, i);
        take! { at, option => pb::core::HeaderValueOption;
            read { header, append, append_action, keep_empty_value }
            ignore {}
            refuse {}
        }
        let header = header.ok_or_else(|| at.field("header").missing())?;
        let name = header_name(&header.key, &at.field("header").field("key"))?;
        let bytes = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
        if bytes.is_empty() && !keep_empty_value {
            continue; // What Envoy does: the edit is dropped.
        }
        let value_at = at.field("header");
        let value = HeaderValue::from_bytes(&percent_single(bytes, &value_at)?)
            .map_err(|_| value_at.field("value").refuse("not a header value"))?;
        // `append` is the older spelling and wins where it is present.
        let action = match append {
            Some(append) if append.value => Ok(AppendIfExistsOrAdd),
            Some(_) => Ok(OverwriteIfExistsOrAdd),
            None => pb::core::header_value_option::HeaderAppendAction::try_from(append_action),
        };
        match action {
            Ok(OverwriteIfExistsOrAdd) => edits.set.push((name, value)),
            Ok(AppendIfExistsOrAdd) => edits.add.push((name, value)),
            _ => return Err(at.field("append_action").unsupported()),
        }
    }
    Ok(edits)
}

pub(super) fn header_name(name: &str, at: &At<'_>) -> Result<HeaderName, Unsupported> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| at.refuse(format!("{name:?} is not a header name")))
}

pub(super) fn some_arc(text: String) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn percent_doubled(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'%' { 2 } else { 1 })).collect()
}

fn percent_single(bytes: Vec<u8>, at: &At<'_>) -> Result<Vec<u8>, Unsupported> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.into_iter();
    while let Some(byte) = rest.next() {
        if byte == b'%' && rest.next() != Some(b'%') {
            return Err(at.field("value").refuse("variables are not supported; a literal % is written %%"));
        }
        out.push(byte);
    }
    Ok(out)
}
