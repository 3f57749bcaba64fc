//! One resolved resource, versioned once and encoded at most once for each kind of client.

use std::sync::{Arc, OnceLock};

use outrigger_config::model::Resource;
use outrigger_config::xds::{self, Client, pb};

#[derive(Debug)]
pub struct Entry {
    resource: Resource,
    version: Arc<str>,
    /// One for each kind of client, made when the first needs it: after a restart of the control plane most already have it.
    encoded: [OnceLock<pb::Any>; Client::ALL.len()],
}

impl Entry {
    pub(super) fn new(resource: Resource) -> Self {
        let version = resource.version().to_string().into();
        Self { resource, version, encoded: Default::default() }
    }

    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub fn encoded(&self, client: Client) -> &pb::Any {
        self.encoded[client as usize].get_or_init(|| xds::encode_for(&self.resource, client))
    }
}
