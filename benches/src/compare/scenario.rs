//! What is measured: how the proxies stand, what is sent through them, and what is counted.

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// On the command line, and in the JSON.
    pub name: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub setting: Setting,
    pub load: Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// CPU time, user and system, of the proxies together for one request or connection.
    MicrosEach,
    /// Bodies carried for one second of CPU time.
    MegabytesPerSecond,
    /// Resident memory that an open connection costs.
    BytesEach,
    /// Resident memory of a proxy, or its program's size.
    Mebibytes,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::MicrosEach => "CPU µs each",
            Self::MegabytesPerSecond => "MB a CPU second",
            Self::BytesEach => "bytes each",
            Self::Mebibytes => "MiB",
        }
    }

    pub fn more_is_better(self) -> bool {
        self == Self::MegabytesPerSecond
    }
}

/// How the proxies stand between client and app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub hops: Hops,
    pub http: Http,
    /// Services that the proxy knows beside the one that is called.
    pub others: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// A gateway; ours as `--gateway`.
    One,
    /// The same, with TLS 1.3 to its clients.
    OneTls,
    /// A callee's sidecar alone: its clients bring mTLS.
    Callee,
    /// A caller's sidecar and a callee's, mTLS between them.
    Two,
}

/// On every leg, as far as the proxy can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// As fast as it goes: h2load.
    Closed { connections: usize, streams: usize, body: Body },
    /// At a fixed rate of requests a second, whatever the answers do; latency is counted from when each was due.
    Rate { connections: usize, per_second: u32 },
    /// A connection for each request.
    Connections { tls: Tls },
    /// Connections that have had one answer each, and then nothing.
    Idle,
    /// Nothing: what the proxy keeps when it is ready.
    Start,
    /// Nothing at all: the size of its program.
    Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// GET, answered with 1 KiB.
    Small,
    /// POST of 100 bytes, answered with 1 KiB.
    Post,
    /// GET, answered with 1 MiB.
    Large,
}

impl Body {
    pub fn path(self) -> &'static str {
        match self {
            Self::Small | Self::Post => "/1k",
            Self::Large => "/1m",
        }
    }

    pub fn answered(self) -> u64 {
        match self {
            Self::Small | Self::Post => 1 << 10,
            Self::Large => 1 << 20,
        }
    }
}

/// What a new connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    None,
    /// Only the server shows a certificate.
    Server,
    /// Both do.
    Mutual {
        resumed: bool,
    },
}

const fn one(http: Http) -> Setting {
    Setting { hops: Hops::One, http, others: 0 }
}
const fn two(http: Http) -> Setting {
    Setting { hops: Hops::Two, http, others: 0 }
}
const TLS: Setting = Setting { hops: Hops::OneTls, http: Http::One, others: 0 };
const CALLEE: Setting = Setting { hops: Hops::Callee, http: Http::One, others: 0 };

const H1: Load = Load::Closed { connections: 64, streams: 1, body: Body::Small };
const H2: Load = Load::Closed { connections: 8, streams: 16, body: Body::Post };
const BULK: Load = Load::Closed { connections: 16, streams: 1, body: Body::Large };

/// In the order of the table.
pub const SCENARIOS: [Scenario; 22] = [
    row("h1", "HTTP/1.1 keep-alive, 64 connections, 1 KB", Unit::MicrosEach, one(Http::One), H1),
    row(
        "rate",
        "HTTP/1.1 at 2,000 requests a second, 64 connections",
        Unit::MicrosEach,
        one(Http::One),
        Load::Rate { connections: 64, per_second: 2_000 },
    ),
    row(
        "h2",
        "HTTP/2 cleartext, 8 connections × 16 streams, POST 100 B",
        Unit::MicrosEach,
        one(Http::Two),
        H2,
    ),
    row("tls", "TLS 1.3 to the client, HTTP/1.1 keep-alive, 64 connections, 1 KB", Unit::MicrosEach, TLS, H1),
    row("two-h1", "two hops, mTLS between, HTTP/1.1, 64 connections", Unit::MicrosEach, two(Http::One), H1),
    row(
        "two-h1-4",
        "two hops, mTLS between, HTTP/1.1, 4 connections",
        Unit::MicrosEach,
        two(Http::One),
        Load::Closed { connections: 4, streams: 1, body: Body::Small },
    ),
    row(
        "two-h1-16",
        "two hops, mTLS between, HTTP/1.1, 16 connections",
        Unit::MicrosEach,
        two(Http::One),
        Load::Closed { connections: 16, streams: 1, body: Body::Small },
    ),
    row(
        "two-h1-256",
        "two hops, mTLS between, HTTP/1.1, 256 connections",
        Unit::MicrosEach,
        two(Http::One),
        Load::Closed { connections: 256, streams: 1, body: Body::Small },
    ),
    row(
        "two-rate",
        "two hops, mTLS between, HTTP/1.1 at 2,000 requests a second, 64 connections",
        Unit::MicrosEach,
        two(Http::One),
        Load::Rate { connections: 64, per_second: 2_000 },
    ),
    row(
        "two-h2",
        "two hops, mTLS between, HTTP/2, 8 connections × 16 streams, POST 100 B",
        Unit::MicrosEach,
        two(Http::Two),
        H2,
    ),
    row("bulk", "1 MB bodies, plain", Unit::MegabytesPerSecond, one(Http::One), BULK),
    row("bulk-tls", "1 MB bodies, TLS 1.3 to the client", Unit::MegabytesPerSecond, TLS, BULK),
    row(
        "new",
        "new plain connection for each request",
        Unit::MicrosEach,
        one(Http::One),
        Load::Connections { tls: Tls::None },
    ),
    row(
        "new-tls",
        "new TLS 1.3 connection for each request",
        Unit::MicrosEach,
        TLS,
        Load::Connections { tls: Tls::Server },
    ),
    row(
        "handshake",
        "full mTLS handshake for each request",
        Unit::MicrosEach,
        CALLEE,
        Load::Connections { tls: Tls::Mutual { resumed: false } },
    ),
    row(
        "resume",
        "resumed mTLS session for each request",
        Unit::MicrosEach,
        CALLEE,
        Load::Connections { tls: Tls::Mutual { resumed: true } },
    ),
    row("idle", "idle HTTP/1.1 connection", Unit::BytesEach, one(Http::One), Load::Idle),
    row("idle-tls", "idle HTTP/1.1 connection, TLS 1.3", Unit::BytesEach, TLS, Load::Idle),
    row(
        "idle-mtls",
        "idle HTTP/1.1 connection to a callee's sidecar, mTLS",
        Unit::BytesEach,
        CALLEE,
        Load::Idle,
    ),
    row("idle-h2", "idle HTTP/2 connection", Unit::BytesEach, one(Http::Two), Load::Idle),
    row(
        "start",
        "resident at start, ten services",
        Unit::Mebibytes,
        Setting { others: 9, ..one(Http::One) },
        Load::Start,
    ),
    row("program", "size of the program", Unit::Mebibytes, one(Http::One), Load::Program),
];

const fn row(name: &'static str, what: &'static str, unit: Unit, setting: Setting, load: Load) -> Scenario {
    Scenario { name, what, unit, setting, load }
}
