//! Configuration from manifests, without a control plane: the proxy resolves for itself what one would have pushed.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_config::model::Version;
use outrigger_config::registry::{Registry, Store};
use outrigger_config::resolve::Subscriber;
use outrigger_config::source::{Directory, Watch};
use tokio::sync::mpsc;

use super::{Change, Event, Key, Source, SourceEnd};

/// Registries read but not taken up yet; the watching thread waits.
const REGISTRIES: usize = 1;

impl Source {
    /// The manifests below `paths`, followed as they change. What is wrong with them is logged, each finding once.
    pub fn files(paths: Vec<PathBuf>, who: Subscriber) -> std::io::Result<Self> {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let (source, end) = Self::new(&names.join(", "));
        let mut directory = Directory::new(paths);
        let files = directory.read();
        let mut store = Store::new();
        let first = store.update(&files);
        let mut reported = BTreeSet::new();
        report(&first, &mut reported);
        let (registries, changed) = mpsc::channel(REGISTRIES);
        let watch = Watch::start(directory, files, move |files| {
            let registry = store.update(&files);
            report(&registry, &mut reported);
            // Nobody listens any more: the process ends.
            let _ = registries.blocking_send(registry);
        })?;
        tokio::spawn(follow(end, first, changed, watch, who));
        Ok(source)
    }
}

fn report(registry: &Registry, reported: &mut BTreeSet<String>) {
    let findings: BTreeSet<String> = registry.diagnostics().iter().map(ToString::to_string).collect();
    for finding in findings.difference(reported) {
        tracing::warn!("{finding}");
    }
    *reported = findings;
}

async fn follow(
    mut end: SourceEnd,
    mut registry: Arc<Registry>,
    mut changed: mpsc::Receiver<Arc<Registry>>,
    watch: Watch,
    who: Subscriber,
) {
    if end.events.send(Event::Connected).await.is_err() {
        return;
    }
    // What was told last; `None` is "there is none".
    let mut told: HashMap<Key, Option<Version>> = HashMap::new();
    loop {
        let wanted = end.wanted.borrow_and_update().clone();
        told.retain(|key, _| wanted.contains(key));
        let mut changes = Vec::new();
        for key in wanted.iter() {
            let resource = registry.resolve(&who, key.0, &key.1);
            let version = resource.as_ref().map(|resource| resource.version());
            if told.get(key) != Some(&version) {
                told.insert(key.clone(), version);
                changes.push(resource.map_or_else(|| Change::Absent(key.clone()), Change::There));
            }
        }
        if !changes.is_empty() && end.events.send(Event::update(changes).0).await.is_err() {
            break;
        }
        tokio::select! {
            next = changed.recv() => match next {
                Some(next) => registry = next,
                None => break,
            },
            wanted = end.wanted.changed() => if wanted.is_err() { break },
        }
    }
    // It joins its thread, which may be waiting for us.
    drop(changed);
    drop(watch);
}
