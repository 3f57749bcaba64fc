//! Certificates with their keys, for the gateways that may have them and for nobody else.

use crate::model::Secret;
use crate::registry::Registry;

use super::Subscriber;

impl Registry {
    /// A key goes only to a Gateway one of whose listeners refers to it, and is allowed to.
    pub(super) fn secret(&self, who: &Subscriber, name: &str) -> Option<Secret> {
        let Subscriber::Gateway { namespace, name: gateway } = who else { return None };
        let (secret_namespace, secret_name) = name.split_once('/')?;
        let gateway = self.gateway(namespace, gateway)?;
        let referred =
            gateway.listeners.iter().flat_map(|listener| listener.certificates()).any(|reference| {
                *reference.namespace == *secret_namespace
                    && *reference.name == *secret_name
                    && self.certificate(gateway, reference).is_ok()
            });
        if !referred {
            return None;
        }
        self.tls_secret(secret_namespace, secret_name).cloned()
    }
}
