//! What Envoy's messages can't say: our own messages, `type.outrigger.dev/v1.*`.
//!
//! They travel packed under `metadata.typed_filter_metadata["outrigger.dev"]` of a listener, route, cluster or endpoint, and
//! hold only what the message around them leaves open. Tags are never reused; a field is only ever added, so that
//! a proxy and a control plane of different releases understand each other.

mod cluster;
mod listener;
mod reference;
mod route;

use std::time::Duration;

use prost::{Enumeration, Name};

use super::at::{At, Unsupported};
use super::{fields, pb};
use crate::model;

pub use cluster::*;
pub use listener::*;
pub use reference::*;
pub use route::*;

/// The key in `typed_filter_metadata`.
pub const METADATA_KEY: &str = "outrigger.dev";

macro_rules! packed {
    ($($message:ident)*) => {$(
        impl Name for $message {
            const NAME: &'static str = stringify!($message);
            const PACKAGE: &'static str = "v1";

            fn type_url() -> String {
                concat!("type.outrigger.dev/v1.", stringify!($message)).into()
            }
        }
    )*};
}
packed!(Destination Inbound Gateway Route Cluster Endpoint);

/// Enumerations that mirror one of the model's, variant by variant.
macro_rules! mirrored {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
        #[repr(i32)]
        pub enum $name { $($variant = $number),* }

        impl From<model::$name> for $name {
            fn from(value: model::$name) -> Self {
                match value { $(model::$name::$variant => Self::$variant),* }
            }
        }

        impl From<$name> for model::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
    )*};
}
mirrored! {
    Protocol { Detect = 0, Http = 1, Http2 = 2, Tcp = 3, Tls = 4 }
    Egress { AllowAny = 0, RegistryOnly = 1 }
    AccessLogMode { Off = 0, Errors = 1, All = 2 }
    UpstreamHttp { AsReceived = 0, Http1 = 1, Http2 = 2 }
    Multiplex { Never = 0, WhenBusy = 1, Always = 2 }
    BreakerMode { Enforce = 0, Observe = 1 }
    EjectionErrors { Gateway = 0, Server = 1 }
    MtlsMode { Permissive = 0, Strict = 1, Disabled = 2 }
    FaultAt { Caller = 0, CallerBehindRetries = 1, Callee = 2 }
    LimitHeaders { Always = 0, Refused = 1, Never = 2 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum GatewayProtocol {
    Http = 0,
    Https = 1,
    Tcp = 2,
    TlsPassthrough = 3,
    TlsTerminate = 4,
}

/// Metadata that holds `message`, and nothing else.
pub(super) fn metadata<T: Name>(message: &T) -> Option<pb::core::Metadata> {
    Some(pb::core::Metadata {
        typed_filter_metadata: [(METADATA_KEY.to_owned(), fields::pack(message))].into(),
        ..Default::default()
    })
}

/// Where our message stands in the resource, for refusals.
pub(super) fn at<'a>(metadata: &'a At<'a>) -> At<'a> {
    metadata.key("typed_filter_metadata", METADATA_KEY)
}

/// Our message out of `metadata`; `None` where another control plane made the resource. Other keys are the business of
/// whoever put them there.
pub(super) fn unpack<T: Name + Default>(
    metadata: Option<pb::core::Metadata>,
    at: &At<'_>,
) -> Result<Option<T>, Unsupported> {
    let Some(any) = metadata.and_then(|mut metadata| metadata.typed_filter_metadata.remove(METADATA_KEY))
    else {
        return Ok(None);
    };
    fields::unpack(&any, &self::at(&at.field("metadata"))).map(Some)
}

pub(super) fn enumeration<T: TryFrom<i32>, U: From<T>>(value: i32, at: &At<'_>) -> Result<U, Unsupported> {
    T::try_from(value).map(U::from).map_err(|_| at.refuse(format!("{value} is not known")))
}

/// Largest duration a message may carry. Far beyond any use, and far from any overflow when it is added to a time.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
