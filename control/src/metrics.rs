//! What the control plane counts about itself, and the page Prometheus scrapes.
//!
//! Labels are closed sets: no name of a proxy or an object is one.

use outrigger_config::diagnostic::Severity;
use outrigger_config::model::ResourceKind;
use outrigger_config::registry::Registry;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder,
};

use crate::rate_limit::Counts;

#[derive(Debug)]
pub struct Metrics {
    registry: prometheus::Registry,
    pub proxies: IntGauge,
    pub streams: IntCounter,
    pub generation: IntGauge,
    /// From a change of the sources until a proxy has acknowledged all of it that concerns it.
    pub convergence: Histogram,
    findings: IntGaugeVec,
    objects: IntGauge,
    /// By what became of the request: `issued`, or the reason of the refusal.
    certificates: IntCounterVec,
    /// When the CA's own certificates end.
    ca_expiry: IntGaugeVec,
    pub roots: IntGauge,
    kinds: [KindMetrics; 5],
    /// Of the rate limit call.
    pub limits: Counts,
}

/// Of one kind of resource, handles resolved.
#[derive(Debug)]
pub struct KindMetrics {
    pub responses: IntCounter,
    pub resources: IntCounter,
    pub removed: IntCounter,
    pub acks: IntCounter,
    pub nacks: IntCounter,
    pub refused: IntCounter,
}

/// Seconds.
const CONVERGENCE: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];

impl Metrics {
    pub fn new() -> Self {
        let registry = prometheus::Registry::new();
        let counters = |name: &str, help: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &["kind"]).expect(FIXED);
            registry.register(Box::new(family.clone())).expect(FIXED);
            family
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect(FIXED);
            registry.register(Box::new(gauge.clone())).expect(FIXED);
            gauge
        };
        let responses = counters("outrigger_control_responses_total", "Responses sent to proxies.");
        let resources = counters("outrigger_control_resources_sent_total", "Resources in these responses.");
        let removed = counters("outrigger_control_resources_removed_total", "Names answered as not there.");
        let acks = counters("outrigger_control_acks_total", "Responses a proxy applied.");
        let nacks = counters("outrigger_control_nacks_total", "Responses a proxy refused something of.");
        let refused = counters("outrigger_control_resources_refused_total", "Resources a proxy refused.");
        let kinds = ResourceKind::ALL.map(|kind| {
            let label = [word(kind)];
            KindMetrics {
                responses: responses.with_label_values(&label),
                resources: resources.with_label_values(&label),
                removed: removed.with_label_values(&label),
                acks: acks.with_label_values(&label),
                nacks: nacks.with_label_values(&label),
                refused: refused.with_label_values(&label),
            }
        });
        let streams =
            IntCounter::new("outrigger_control_streams_total", "Streams opened by proxies.").expect(FIXED);
        let findings =
            Opts::new("outrigger_control_findings", "What is wrong, or worth knowing, in the manifests.");
        let findings = IntGaugeVec::new(findings, &["severity"]).expect(FIXED);
        let convergence = HistogramOpts::new(
            "outrigger_control_convergence_seconds",
            "From a change of the manifests until a proxy it concerns has acknowledged it.",
        );
        let convergence = Histogram::with_opts(convergence.buckets(CONVERGENCE.to_vec())).expect(FIXED);
        registry.register(Box::new(streams.clone())).expect(FIXED);
        registry.register(Box::new(findings.clone())).expect(FIXED);
        registry.register(Box::new(convergence.clone())).expect(FIXED);
        let certificates = Opts::new(
            "outrigger_control_certificates_total",
            "Requests for certificates, by what became of them.",
        );
        let certificates = IntCounterVec::new(certificates, &["result"]).expect(FIXED);
        registry.register(Box::new(certificates.clone())).expect(FIXED);
        let expiry = Opts::new(
            "outrigger_control_ca_expiry_timestamp_seconds",
            "When the root that signs, and the certificate that signs below it, end, in seconds since 1970.",
        );
        let ca_expiry = IntGaugeVec::new(expiry, &["certificate"]).expect(FIXED);
        registry.register(Box::new(ca_expiry.clone())).expect(FIXED);
        let generation =
            gauge("outrigger_control_generation", "Changes of the manifests since the start, plus one.");
        generation.set(1);
        Self {
            proxies: gauge("outrigger_control_connected_proxies", "Proxies connected now."),
            objects: gauge("outrigger_control_objects", "Objects in force."),
            ca_expiry,
            roots: gauge("outrigger_control_ca_roots", "Root certificates that are believed."),
            certificates,
            generation,
            streams,
            convergence,
            findings,
            kinds,
            limits: Counts::new(&registry),
            registry,
        }
    }

    pub fn kind(&self, kind: ResourceKind) -> &KindMetrics {
        &self.kinds[ResourceKind::ALL.iter().position(|known| *known == kind).expect("ALL has every kind")]
    }

    /// `result` is one of a closed set: `issued` or a refusal's reason.
    pub(crate) fn certificates(&self, result: &'static str) -> IntCounter {
        self.certificates.with_label_values(&[result])
    }

    /// Seconds since 1970.
    pub(crate) fn ca_expires(&self, root: i64, issuer: i64) {
        self.ca_expiry.with_label_values(&["root"]).set(root);
        self.ca_expiry.with_label_values(&["issuer"]).set(issuer);
    }

    pub(crate) fn read(&self, registry: &Registry) {
        self.objects.set(registry.objects().count() as i64);
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let found = registry.diagnostics().iter().filter(|finding| finding.severity == severity).count();
            self.findings.with_label_values(&[severity.to_string()]).set(found as i64);
        }
    }

    /// Prometheus' text format.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page).expect("writing to memory never fails");
        String::from_utf8_lossy(&page).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const FIXED: &str = "names and labels are fixed, valid and registered once";

/// The `kind` label, and the key in the API.
pub fn word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Listener => "listener",
        ResourceKind::RouteTable => "route_table",
        ResourceKind::Cluster => "cluster",
        ResourceKind::Endpoints => "endpoints",
        ResourceKind::Secret => "secret",
    }
}
