//! The name an endpoint has in session cookies.

use xxhash_rust::xxh64::xxh64;

use crate::upstream::Endpoint;

/// Equal in all proxies; says nothing of the endpoint to whoever does not know its address.
pub(super) fn name(endpoint: &Endpoint) -> u64 {
    let workload = endpoint.workload.as_deref().unwrap_or_default();
    xxh64(format!("{}|{workload}", endpoint.address).as_bytes(), SEED)
}

/// "session" in ASCII: apart from the hashes requests are placed by.
const SEED: u64 = 0x0073_6573_7369_6f6e;
