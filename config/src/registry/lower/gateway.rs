//! Gateway.

use crate::manifest::gateway::{
    Gateway as Manifest, GatewayListener, ListenerProtocol as Protocol, NamespacesFrom, SecretRef, TlsMode,
};
use crate::manifest::route::GATEWAY_GROUP;
use crate::model::HostPattern;
use crate::registry::gateway::{CertificateRef, From, Gateway, Listener, ListenerProtocol};
use crate::registry::route::RouteKind;

use super::Identity;

pub(in crate::registry) fn gateway(id: &Identity<'_>, manifest: &Manifest) -> Gateway {
    Gateway {
        namespace: id.namespace.clone(),
        name: id.name(),
        class: manifest.spec.gateway_class_name.shared(),
        listeners: manifest
            .spec
            .listeners
            .iter()
            .enumerate()
            .filter_map(|(i, manifest)| listener(id, manifest, format!("spec.listeners[{i}]")))
            .collect(),
        origin: id.origin(),
    }
}

fn listener(id: &Identity<'_>, manifest: &GatewayListener, field: String) -> Option<Listener> {
    let certificates = || {
        let refs = manifest.tls.iter().flat_map(|tls| &tls.certificate_refs).enumerate();
        refs.map(|(i, reference)| certificate(id, reference, format!("{field}.tls.certificateRefs[{i}]")))
            .collect()
    };
    let mode = manifest.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    let protocol = match (manifest.protocol, mode) {
        (Protocol::Http, _) => ListenerProtocol::Http,
        (Protocol::Https, _) => ListenerProtocol::Https(certificates()),
        (Protocol::Tcp, _) => ListenerProtocol::Tcp,
        (Protocol::Tls, TlsMode::Passthrough) => ListenerProtocol::TlsPassthrough,
        (Protocol::Tls, TlsMode::Terminate) => ListenerProtocol::TlsTerminate(certificates()),
        // A manifest with such a listener is refused.
        (Protocol::Udp, _) => return None,
    };
    let kinds = &manifest.allowed_routes.kinds;
    Some(Listener {
        name: manifest.name.shared(),
        port: manifest.port.get(),
        hostname: manifest.hostname.as_deref().and_then(HostPattern::parse).unwrap_or(HostPattern::Any),
        protocol,
        namespaces: match manifest.allowed_routes.namespaces.from {
            NamespacesFrom::All => From::All,
            NamespacesFrom::Same => From::Same,
            // A manifest with a selector is refused.
            NamespacesFrom::None | NamespacesFrom::Selector => From::None,
        },
        kinds: (!kinds.is_empty()).then(|| {
            kinds
                .iter()
                .filter(|kind| kind.group == GATEWAY_GROUP)
                .filter_map(|kind| RouteKind::from_name(&kind.kind))
                .collect()
        }),
        field: field.as_str().into(),
    })
}

fn certificate(id: &Identity<'_>, manifest: &SecretRef, field: String) -> CertificateRef {
    CertificateRef {
        namespace: id.namespace_or(manifest.namespace.as_ref()),
        name: manifest.name.shared(),
        other_kind: manifest.other_kind.as_ref().map(|other| match other.group.as_str() {
            "" => other.kind.as_str().into(),
            group => format!("{group}/{}", other.kind).into(),
        }),
        field: field.into(),
    }
}
