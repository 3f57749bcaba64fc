//! From watched directories to views.
//!
//! Owns the one place where a new state of the files becomes a new generation, and says in the log what is wrong with it. The
//! burst of writes that a change consists of is waited out (100 ms of quiet, 1 s at most), unless all of it so far are endpoints and
//! instances, and in files that were replaced or removed whole: these are passed on within milliseconds.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_config::diagnostic::{Diagnostic, Severity};
use outrigger_config::model::Root;
use outrigger_config::registry::{Registry, Store};
use outrigger_config::source::{Directory, Moment, Watch};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::experiments::Experiments;
use crate::metrics::Metrics;
use crate::view::View;

/// Directories being followed; ends when dropped.
#[derive(Debug)]
pub struct Source {
    publisher: Arc<Publisher>,
    _watch: Watch,
}

/// Makes one view after the other, of what the files and the CA say.
#[derive(Debug)]
struct Publisher {
    /// Held from the look at the newest view until the next has taken its place.
    turn: Mutex<()>,
    views: watch::Sender<Arc<View>>,
    metrics: Arc<Metrics>,
    experiments: Arc<Experiments>,
}

impl Publisher {
    fn publish(&self, view: View) {
        self.metrics.generation.set(view.generation() as i64);
        // Nobody listening means that the server is going down.
        let _ = self.views.send(Arc::new(view));
    }
}

impl Source {
    /// Reads everything once before it returns, so that the first proxy is answered from the whole. Blocks on the file system then.
    pub fn start(
        paths: &[PathBuf],
        metrics: Arc<Metrics>,
        experiments: Arc<Experiments>,
    ) -> io::Result<(Self, watch::Receiver<Arc<View>>)> {
        let mut directory = Directory::new(paths);
        let files = directory.read();
        let mut store = Store::new();
        let registry = store.update(&files);
        let mut said = report(&registry, &HashSet::new());
        tracing::info!(files = files.len(), objects = registry.objects().count(), "manifests read");
        metrics.read(&registry);
        let standing = experiments.follow(&registry);
        let (views, newest) = watch::channel(Arc::new(View::first(registry, standing)));
        let publisher = Arc::new(Publisher { turn: Mutex::default(), views, metrics, experiments });
        let publish = publisher.clone();
        let watch = Watch::start_glancing(directory, files, move |files, moment| {
            let registry = store.update(&files);
            let _turn = publish.turn.lock();
            let before = publish.views.borrow().clone();
            if Arc::ptr_eq(&registry, before.registry()) {
                return;
            }
            let standing = publish.experiments.follow(&registry);
            let view = View::next(&before, registry, standing);
            if moment == Moment::Glance && !view.is_endpoints_only() {
                return;
            }
            said = report(view.registry(), &said);
            publish.metrics.read(view.registry());
            let generation = view.generation();
            if view.is_endpoints_only() {
                tracing::debug!(generation, "endpoints changed");
            } else {
                tracing::info!(generation, "manifests changed");
            }
            publish.publish(view);
        })?;
        Ok((Self { publisher, _watch: watch }, newest))
    }

    /// For whoever stops experiments.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.publisher.clone())
    }

    /// From now on proxies believe in these roots. Says nothing where they do already.
    pub fn believe(&self, roots: Arc<[Root]>) {
        let _turn = self.publisher.turn.lock();
        let before = self.publisher.views.borrow().clone();
        if *before.roots() != roots {
            self.publisher.publish(View::believing(&before, roots));
        }
    }
}

/// Stops experiments. Outlives the source, and then stops nothing.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Publisher>);

/// What became of it.
#[derive(Debug)]
pub struct Stopped {
    /// `NAMESPACE/NAME` of the policies whose experiments ran.
    pub policies: Vec<String>,
    /// Whether they stay stopped when the control plane is started again, or why not.
    pub kept: Result<(), String>,
}

impl Stopper {
    /// One policy's, or all. Proxies are told at once.
    pub fn stop(&self, policy: Option<&str>) -> Stopped {
        let publisher = &self.0;
        let _turn = publisher.turn.lock();
        let (policies, written) = publisher.experiments.stop(policy);
        if !policies.is_empty() {
            tracing::warn!(?policies, "experiments were stopped");
            let before = publisher.views.borrow().clone();
            publisher.publish(View::experimenting(&before, publisher.experiments.standing()));
        }
        let kept = match (publisher.experiments.is_kept(), written) {
            (_, Err(error)) => Err(error.to_string()),
            (false, Ok(())) => Err("this control plane was given no file to write it down in".into()),
            (true, Ok(())) => Ok(()),
        };
        Stopped { policies, kept }
    }
}

/// Logs what is wrong and was not said before, and what no longer is.
fn report(registry: &Registry, said: &HashSet<String>) -> HashSet<String> {
    let now: HashSet<String> = registry.diagnostics().iter().map(|finding| say(finding, said)).collect();
    for fixed in said.difference(&now) {
        tracing::info!("no longer: {fixed}");
    }
    now
}

fn say(finding: &Diagnostic, said: &HashSet<String>) -> String {
    let text = finding.to_string();
    if !said.contains(&text) {
        match finding.severity {
            Severity::Error => tracing::error!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Note => tracing::debug!("{text}"),
        }
    }
    text
}
