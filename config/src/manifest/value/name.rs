//! Names: of objects, labels, environment variables.

use super::{Checked, fits, text_value};

text_value! {
    /// An RFC 1123 label, as namespaces, services and ports are named.
    Label,
    "a DNS label (1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit)",
    { "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "minLength": 1, "maxLength": 63 },
    |text| fits(is_label(text))
}

text_value! {
    /// An RFC 1123 subdomain, as most objects, route rules and listeners are named.
    Name,
    "a name (1 to 253 of a-z, 0-9, - and ., each part beginning and ending with a letter or digit)",
    { "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "minLength": 1, "maxLength": 253 },
    |text| fits(is_subdomain(text))
}

text_value! {
    /// A label's key: a name, with an optional prefix that is a domain.
    LabelKey,
    "a label key (up to 63 of A-Z, a-z, 0-9, -, _ and ., with an optional domain and / before it)",
    { "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" },
    qualified
}

text_value! {
    /// An annotation's key. As Kubernetes does it: like a label's, in any case.
    AnnotationKey,
    "an annotation key (up to 63 of A-Z, a-z, 0-9, -, _ and ., with an optional domain and / before it)",
    { "pattern": "^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" },
    |text| qualified(&text.to_ascii_lowercase())
}

text_value! {
    /// A label's value; may be empty.
    LabelValue,
    "a label value (at most 63 of A-Z, a-z, 0-9, -, _ and ., beginning and ending with a letter or digit)",
    { "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", "maxLength": 63 },
    |text| fits(text.is_empty() || is_qualified_part(text))
}

text_value! {
    /// What a port speaks: an IANA service name or a prefixed name such as `kubernetes.io/h2c`.
    AppProtocol,
    "an application protocol such as http, grpc, tcp or kubernetes.io/h2c",
    { "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" },
    qualified
}

text_value! {
    /// The name of an environment variable.
    EnvName,
    "a variable name (A-Z, a-z, 0-9, _, - and ., not beginning with a digit)",
    { "pattern": "^[A-Za-z_.-][A-Za-z0-9_.-]*$" },
    |text| fits(
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    )
}

pub(super) fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

pub(super) fn is_subdomain(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|part| {
            // Kubernetes bounds the whole name, not each part of it.
            let bytes = part.as_bytes();
            !bytes.is_empty()
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
        })
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

fn qualified(text: &str) -> Checked {
    match text.split_once('/') {
        Some((prefix, name)) => fits(is_subdomain(prefix) && is_qualified_part(name)),
        None => fits(is_qualified_part(text)),
    }
}
