//! One resolved resource, versioned once and encoded at most once.

use std::sync::{Arc, OnceLock};

use outrigger_config::model::Resource;
use outrigger_config::xds::{self, pb};

#[derive(Debug)]
pub struct Entry {
    resource: Resource,
    version: Arc<str>,
    /// Made when the first proxy needs it: after a restart of the control plane most already have it.
    encoded: OnceLock<pb::Any>,
}

impl Entry {
    pub(super) fn new(resource: Resource) -> Self {
        let version = resource.version().to_string().into();
        Self { resource, version, encoded: OnceLock::new() }
    }

    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub fn encoded(&self) -> &pb::Any {
        self.encoded.get_or_init(|| xds::encode(&self.resource))
    }
}
