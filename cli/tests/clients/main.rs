//! Clients as users have them, calling through two sidecars of a mesh that `outrigger up` runs: curl, gRPC for Python, WebSocket, h2load,
//! redis-cli, Python's requests, Node. Each gets the variables `up` gave to an app of the mesh, and nothing else.

mod bodies;
mod curl;
mod examples;
mod gateway;
mod grpc;
mod languages;
mod scene;
mod streams;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "made for all tests with a whole mesh; this one has its own load")]
mod support;
mod websocket;
