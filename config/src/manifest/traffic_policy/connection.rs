//! `connection`: what the sidecars of callers and callees have between them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Between two proxies of ours, with mTLS; what an app or a client sees of it is the same in any case. A proxy that does not know of it gets HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionSection {
    /// Whether HTTP/1.1 connections share one of HTTP/2, each as a stream of it. Default Never.
    #[serde(default)]
    pub multiplex_http1: MultiplexHttp1,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum MultiplexHttp1 {
    #[default]
    Never,
    /// While so many requests are under way to an endpoint at a time that it costs less CPU; each worker of a caller finds that out for itself.
    WhenBusy,
    /// Also where it costs more, for fewer connections.
    Always,
}
