//! Certificates and what is trusted.

use super::*;

pub(crate) fn secret() -> impl Strategy<Value = Secret> {
    (secret_name(), text(), text()).prop_map(|(name, certificate_chain, private_key)| Secret {
        name,
        certificate_chain,
        private_key,
    })
}

pub(crate) fn trust_bundle() -> impl Strategy<Value = TrustBundle> {
    // Any bytes: the codec carries certificates and does not read them.
    let root = vec(any::<u8>(), 1..200).prop_map(Root::new);
    (name(), vec(root, 1..4))
        .prop_map(|(domain, roots)| TrustBundle::new(domain, roots).expect("there is at least one root"))
}
