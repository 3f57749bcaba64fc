//! What the route kinds have in common: parents, backends, header edits, mirrors.

use std::sync::Arc;

use crate::manifest::route::{self, BackendKind, HeaderModifier, ParentKind, ValueMatch};
use crate::manifest::value::Hostname;
use crate::model::{Fraction, HeaderEdits, HeaderMatch, HostPattern, ServiceRef, StringMatch};
use crate::registry::route::{BackendRef, BackendTo, Mirror, Parent, ParentTarget};

use super::Identity;

pub(super) fn parents(id: &Identity<'_>, parents: &[route::ParentRef]) -> Vec<Parent> {
    let parent = |(i, parent): (usize, &route::ParentRef)| {
        let (namespace, name) = (id.namespace_or(parent.namespace.as_ref()), parent.name.shared());
        Parent {
            target: match parent.kind {
                ParentKind::Service => ParentTarget::Service(ServiceRef { namespace, name }),
                ParentKind::Gateway => ParentTarget::Gateway(namespace, name),
                ParentKind::Other { .. } => ParentTarget::Other,
            },
            section: parent.section_name.as_ref().map(|name| name.shared()),
            port: parent.port.map(|port| port.get()),
            field: format!("spec.parentRefs[{i}]").into(),
        }
    };
    parents.iter().enumerate().map(parent).collect()
}

pub(super) fn hostnames(hostnames: &[Hostname]) -> Vec<HostPattern> {
    hostnames.iter().filter_map(|name| HostPattern::parse(name)).collect()
}

/// `field` is the reference's own path.
pub(super) fn backend(id: &Identity<'_>, reference: &route::BackendRef, field: String) -> BackendRef {
    let (namespace, name) = (id.namespace_or(reference.namespace.as_ref()), reference.name.shared());
    let to = match &reference.kind {
        BackendKind::Service { port } => {
            BackendTo::Service { service: ServiceRef { namespace, name }, port: port.get() }
        }
        BackendKind::Other { group, kind, .. } => {
            BackendTo::Unknown { group: group.as_str().into(), kind: kind.as_str().into(), namespace, name }
        }
    };
    BackendRef { to, field: field.into() }
}

/// `field` is the path of the filter.
pub(super) fn mirror(id: &Identity<'_>, mirror: &route::Mirror, field: &str) -> Mirror {
    let (numerator, denominator) = mirror.share.as_fraction();
    Mirror {
        to: backend(id, &mirror.backend, format!("{field}.requestMirror.backendRef")),
        fraction: Fraction::new(numerator, denominator)
            .expect("a manifest's share is at most one, of something"),
    }
}

pub(super) fn edits(modifier: &HeaderModifier) -> HeaderEdits {
    let name = |name: &str| {
        http::HeaderName::from_bytes(name.as_bytes()).expect("a manifest's header name is a token")
    };
    let fields = |fields: &[route::HeaderField]| {
        fields
            .iter()
            .map(|field| {
                let value = http::HeaderValue::from_bytes(field.value.as_bytes())
                    .expect("a manifest's header value has no control characters");
                (name(&field.name), value)
            })
            .collect()
    };
    HeaderEdits {
        remove: modifier.remove.iter().map(|removed| name(removed)).collect(),
        set: fields(&modifier.set),
        add: fields(&modifier.add),
    }
}

pub(super) fn header_matches(headers: &[route::HeaderMatch]) -> Vec<HeaderMatch> {
    headers
        .iter()
        .map(|header| HeaderMatch {
            name: http::HeaderName::from_bytes(header.name.as_bytes())
                .expect("a manifest's header name is a token"),
            value: string_match(&header.value),
        })
        .collect()
}

pub(super) fn string_match(value: &ValueMatch) -> StringMatch {
    match value {
        ValueMatch::Exact(text) => StringMatch::Exact(text.as_str().into()),
        ValueMatch::Regex(pattern) => StringMatch::Regex(pattern.clone()),
    }
}

pub(super) fn rule_field(index: usize) -> Arc<str> {
    format!("spec.rules[{index}]").into()
}
