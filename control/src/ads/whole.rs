//! The older form of the protocol, in which every message says the whole state ("state of the world"): what gRPC libraries speak, and
//! Envoy where it is told to.
//!
//! Translates between it and the delta form, in which alone sessions think. A request's whole list of names becomes what is new in it and
//! what is gone from it; a response about listeners or clusters is filled up with everything else the client was told of that kind, since
//! there a missing resource is a removed one. Of other kinds a response says what it has to say and no more; that one of them is gone cannot
//! be said, and the client learns it with the resource that named it. A first request without names means all there is in both forms. Never
//! decides what a client is told.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_config::model::ResourceKind;
use outrigger_config::xds::names;
use outrigger_config::xds::pb::Any;
use outrigger_config::xds::pb::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

/// One stream's translation.
#[derive(Debug, Default)]
pub(super) struct Whole {
    kinds: BTreeMap<ResourceKind, Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    names: BTreeSet<String>,
    /// What the client has, where every response must say all of it.
    told: BTreeMap<String, Any>,
}

impl Whole {
    pub(super) fn request(&mut self, request: DiscoveryRequest) -> DeltaDiscoveryRequest {
        let mut delta = DeltaDiscoveryRequest {
            node: request.node,
            type_url: request.type_url,
            response_nonce: request.response_nonce,
            error_detail: request.error_detail,
            ..Default::default()
        };
        let Some(kind) = names::kind(&delta.type_url) else { return delta };
        let known = self.kinds.entry(kind).or_default();
        let asked: BTreeSet<String> = request.resource_names.into_iter().collect();
        delta.resource_names_subscribe = asked.difference(&known.names).cloned().collect();
        delta.resource_names_unsubscribe = known.names.difference(&asked).cloned().collect();
        for name in &delta.resource_names_unsubscribe {
            known.told.remove(name);
        }
        known.names = asked;
        delta
    }

    pub(super) fn response(&mut self, delta: DeltaDiscoveryResponse) -> DiscoveryResponse {
        let kind = names::kind(&delta.type_url);
        let says_all = matches!(kind, Some(ResourceKind::Listener | ResourceKind::Cluster));
        let changed = delta.resources.into_iter().filter_map(|one| Some((one.name, one.resource?)));
        let resources = match kind {
            Some(kind) if says_all => {
                let known = self.kinds.entry(kind).or_default();
                known.told.extend(changed);
                for name in &delta.removed_resources {
                    known.told.remove(name);
                }
                known.told.values().cloned().collect()
            }
            _ => changed.map(|(_, resource)| resource).collect(),
        };
        DiscoveryResponse {
            version_info: delta.system_version_info,
            resources,
            type_url: delta.type_url,
            nonce: delta.nonce,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_config::xds::pb::discovery::Resource;

    use super::*;

    fn asks(kind: ResourceKind, resource_names: &[&str]) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: names::type_url(kind).into(),
            resource_names: resource_names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    fn says(kind: ResourceKind, there: &[&str], gone: &[&str]) -> DeltaDiscoveryResponse {
        let resource = |name: &&str| Resource {
            name: name.to_string(),
            resource: Some(Any { type_url: String::new(), value: name.as_bytes().to_vec() }),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            type_url: names::type_url(kind).into(),
            resources: there.iter().map(resource).collect(),
            removed_resources: gone.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    fn heard(response: DiscoveryResponse) -> Vec<String> {
        response.resources.into_iter().map(|any| String::from_utf8(any.value).expect("a name")).collect()
    }

    #[test]
    fn lists_of_names_become_differences() {
        let mut whole = Whole::default();
        let mut asked = |names: &[&str]| {
            let delta = whole.request(asks(ResourceKind::Endpoints, names));
            (delta.resource_names_subscribe, delta.resource_names_unsubscribe)
        };
        assert_eq!(asked(&["a", "b"]), (vec!["a".into(), "b".into()], vec![]));
        assert_eq!(asked(&["a", "b"]), (vec![], vec![]), "an acknowledgement repeats them");
        assert_eq!(asked(&["b", "c"]), (vec!["c".into()], vec!["a".into()]));
        assert_eq!(asked(&[]), (vec![], vec!["b".into(), "c".into()]));
    }

    #[test]
    fn listeners_and_clusters_are_always_said_whole() {
        for kind in [ResourceKind::Listener, ResourceKind::Cluster] {
            let mut whole = Whole::default();
            whole.request(asks(kind, &["a", "b", "c"]));
            assert_eq!(heard(whole.response(says(kind, &["a"], &["c"]))), ["a"]);
            assert_eq!(heard(whole.response(says(kind, &["b"], &[]))), ["a", "b"]);
            assert_eq!(
                heard(whole.response(says(kind, &[], &["a"]))),
                ["b"],
                "a missing one is a removed one"
            );
            whole.request(asks(kind, &["a", "c"]));
            assert_eq!(heard(whole.response(says(kind, &["c"], &[]))), ["c"], "b was given up");
        }
    }

    #[test]
    fn of_other_kinds_only_the_change_is_said() {
        let mut whole = Whole::default();
        whole.request(asks(ResourceKind::Endpoints, &["a", "b"]));
        assert_eq!(heard(whole.response(says(ResourceKind::Endpoints, &["a"], &[]))), ["a"]);
        assert_eq!(heard(whole.response(says(ResourceKind::Endpoints, &["b"], &["a"]))), ["b"]);
    }
}
