//! `grpc.health.v1.Health/Check`: the question, and what an answer says.
//!
//! Owns the message's bytes. Never opens a connection: whoever asks has one (the app's probes, health checks of endpoints).

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;

pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// Of an answer, bytes; it has a handful.
pub const LONGEST_ANSWER: usize = 4096;

/// The body of the question; an empty `service` is the server as a whole.
pub fn question(service: &str) -> Bytes {
    let message = CheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    // Not compressed, and its length.
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("names of services are bounded far below 4 GiB"));
    frame.put_slice(&message);
    frame.freeze()
}

/// Whether an answer says SERVING, or what whoever answered does instead.
pub fn judge(head: &HeaderMap, trailers: Option<&HeaderMap>, body: &[u8]) -> Result<(), String> {
    let status = trailers.and_then(|trailers| trailers.get(STATUS)).or_else(|| head.get(STATUS));
    if status.is_none_or(|status| status != "0") {
        let code = status.and_then(|status| status.to_str().ok()).unwrap_or("missing");
        return Err(format!("answers its health check with grpc-status {code}{}", hint(code)));
    }
    let [0, _, _, _, _, message @ ..] = body else {
        return Err("answers its health check without a message".to_owned());
    };
    let answer = CheckResponse::decode(message)
        .map_err(|error| format!("answers its health check with no message of gRPC: {error}"))?;
    match answer.status {
        SERVING => Ok(()),
        other => Err(format!("says {:?} of itself", STATUSES.get(other as usize).unwrap_or(&"?"))),
    }
}

const STATUS: &str = "grpc-status";

fn hint(code: &str) -> &'static str {
    match code {
        "5" => " (NOT_FOUND): it knows no such service",
        "12" => " (UNIMPLEMENTED): it has no health service",
        _ => "",
    }
}

const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}
