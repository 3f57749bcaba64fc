//! HTTP/1.1 between two sidecars with mTLS whose connections are carried by one of HTTP/2: an app and its client see what they see without.

mod bodies;
mod heads;
mod lives;
mod scene;
