//! What the mesh should do: manifests in, a checked registry, the resolved model, the xDS codec.
//!
//! Read in this order: `manifest` (YAML objects) → `registry` (all of them cross-checked) → `resolve` (registry and
//! who is asking → model) → `model` (what a proxy runs on, and nothing else) → `xds` (model ⇄ Envoy v3 protobuf).
//! Never opens a socket or a connection. Files are read in `source` alone, for whoever asks: the control plane, the CLI and the
//! proxy's file mode.

pub mod diagnostic;
pub mod manifest;
pub mod model;
pub mod registry;
pub mod resolve;
pub mod source;
pub mod xds;
