//! Health checks of endpoints whose readiness nobody else watches.
//!
//! One worker asks, once for the whole proxy, and only endpoints of [`Health::Unknown`] in clusters that are in use and want it. An endpoint
//! counts as well until its first answer. What is found out stands in the endpoint; where it makes one usable or not, the cluster gets a new set of
//! endpoints. Questions go the way requests go (connection, mTLS, HTTP version). Never chooses an endpoint.
//!
//! That all endpoints fail is no reason to use them anyway: as with readiness, requests wait a moment and then are told why (503
//! `no_endpoint`). A check that is wrong is seen at once, and one that is right spares the callers what would fail slowly.

mod probe;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use outrigger_config::model::{Health, HealthCheck};
use rand::RngExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Checks, Cluster, Endpoint, EndpointId, Pools};
use crate::mesh::Mesh;
use crate::telemetry::{self, Metrics};
use crate::worker::Worker;

/// The clusters whose endpoints are to be asked.
pub type Watched = watch::Receiver<Vec<Weak<Cluster>>>;

/// Follows which clusters are in use. On the background runtime, where the inventory may be locked.
pub async fn follow(mesh: Arc<Mesh>, watched: watch::Sender<Vec<Weak<Cluster>>>) {
    let mut revision = mesh.inventory().lock().revision.subscribe();
    loop {
        // What was received takes effect within some seconds (`discovery::apply`), so that it is looked at for a while.
        for _ in 0..LOOKS {
            let wanted: Vec<_> = {
                let content = mesh.inventory().lock();
                let checked = content.clusters.values().filter(|cluster| checks(cluster).is_some());
                checked.map(Arc::downgrade).collect()
            };
            watched.send_if_modified(|before| {
                let same = before.len() == wanted.len()
                    && before.iter().zip(&wanted).all(|(before, now)| before.ptr_eq(now));
                *before = wanted;
                !same
            });
            sleep(LOOK).await;
        }
        if revision.changed().await.is_err() {
            return;
        }
    }
}

const LOOKS: usize = 8;
const LOOK: Duration = Duration::from_secs(1);

/// Asks for as long as the worker runs.
pub async fn run(worker: Rc<Worker>, watched: Watched) {
    let metrics = worker.shared.telemetry.metrics.clone();
    Checker { pools: worker.pools.clone(), metrics, worker: worker.id, asked: HashMap::new() }
        .run(watched)
        .await;
}

struct Checker {
    pools: Rc<Pools>,
    metrics: Arc<Metrics>,
    worker: telemetry::Worker,
    /// Who is being asked, and the task that does it.
    asked: HashMap<EndpointId, Asked>,
}

struct Asked {
    cluster: Weak<Cluster>,
    endpoint: Weak<Endpoint>,
    task: AbortHandle,
}

impl Checker {
    async fn run(mut self, mut watched: Watched) {
        loop {
            let clusters: Vec<_> = watched.borrow_and_update().iter().filter_map(Weak::upgrade).collect();
            let idle = clusters.is_empty() && self.asked.is_empty();
            self.settle(clusters);
            // Endpoints come and go within a cluster that stays.
            let changed = async {
                match idle {
                    true => watched.changed().await,
                    false => timeout(LOOK, watched.changed()).await.unwrap_or(Ok(())),
                }
            };
            if changed.await.is_err() {
                return;
            }
        }
    }

    fn settle(&mut self, clusters: Vec<Arc<Cluster>>) {
        let mut wanted = HashMap::new();
        for cluster in clusters {
            if checks(&cluster).is_none() {
                continue;
            }
            for endpoint in cluster.endpoints().iter().filter(|one| one.health() == Health::Unknown) {
                wanted.insert(endpoint.id, (cluster.clone(), endpoint.clone()));
            }
        }
        self.asked.retain(|id, Asked { cluster, endpoint, task }| {
            let stays = wanted.remove(id).is_some();
            if !stays {
                task.abort();
                // Nobody knows any more; where it is watched by somebody else now, that is who decides.
                if let (Some(cluster), Some(endpoint)) = (cluster.upgrade(), endpoint.upgrade()) {
                    cluster.checked(&endpoint, Checks::None, None);
                }
            }
            stays
        });
        for (id, (cluster, endpoint)) in wanted {
            let asking = Asking {
                pools: self.pools.clone(),
                cluster: Arc::downgrade(&cluster),
                endpoint: Arc::downgrade(&endpoint),
                metrics: self.metrics.clone(),
                worker: self.worker,
                streak: Streak::default(),
            };
            let task = tokio::task::spawn_local(asking.run()).abort_handle();
            let (cluster, endpoint) = (Arc::downgrade(&cluster), Arc::downgrade(&endpoint));
            self.asked.insert(id, Asked { cluster, endpoint, task });
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.asked.values().for_each(|asked| asked.task.abort());
    }
}

fn checks(cluster: &Cluster) -> Option<Arc<HealthCheck>> {
    cluster.settings().balance.health_check.clone()
}

/// One endpoint, asked again and again.
struct Asking {
    pools: Rc<Pools>,
    cluster: Weak<Cluster>,
    endpoint: Weak<Endpoint>,
    metrics: Arc<Metrics>,
    worker: telemetry::Worker,
    streak: Streak,
}

impl Asking {
    async fn run(mut self) {
        // Not all endpoints at once, and none much later than it is first used.
        let mut wait = jittered(Duration::ZERO, FIRST_WITHIN);
        loop {
            sleep(wait).await;
            let (Some(cluster), Some(endpoint)) = (self.cluster.upgrade(), self.endpoint.upgrade()) else {
                return;
            };
            let Some(check) = checks(&cluster) else { return };
            let begun = Instant::now();
            let asking = probe::ask(&self.pools, &cluster, &endpoint, &check.probe);
            let answer = match timeout(check.timeout, asking).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {:?}", check.timeout)),
            };
            self.metrics.health_check(self.worker, cluster.settings().service.as_ref(), answer.is_ok());
            if let Some(checks) = self.streak.after(answer.is_ok(), &check) {
                tell(&cluster, &endpoint, answer.as_ref().err());
                cluster.checked(&endpoint, checks, answer.err());
            }
            let spread = check.interval / 5;
            let interval = jittered(check.interval - spread / 2, spread);
            wait = (begun + interval).saturating_duration_since(Instant::now());
        }
    }
}

/// The first questions of endpoints that become known together are spread over this.
const FIRST_WITHIN: Duration = Duration::from_millis(100);

fn jittered(least: Duration, spread: Duration) -> Duration {
    least + spread.mul_f32(rand::rng().random())
}

fn tell(cluster: &Cluster, endpoint: &Endpoint, failure: Option<&String>) {
    let (cluster, endpoint) = (&cluster.settings().name, &endpoint.address);
    match failure {
        Some(error) => tracing::warn!(%cluster, %endpoint, error, "an endpoint fails its health checks"),
        None => tracing::info!(%cluster, %endpoint, "an endpoint passes its health checks"),
    }
}

/// Answers in a row.
#[derive(Debug, Default)]
struct Streak {
    /// What counts; `None` before the first answer.
    well: Option<bool>,
    /// Answers that said otherwise since.
    against: u8,
}

impl Streak {
    /// What holds from now on, where this answer changes it.
    fn after(&mut self, well: bool, check: &HealthCheck) -> Option<Checks> {
        let enough = match (self.well, well) {
            (None, _) => 1,
            (Some(before), now) if before == now => {
                self.against = 0;
                return None;
            }
            (Some(_), true) => check.healthy_threshold,
            (Some(_), false) => check.unhealthy_threshold,
        };
        self.against += 1;
        if self.against < enough {
            return None;
        }
        *self = Self { well: Some(well), against: 0 };
        Some(if well { Checks::Passed } else { Checks::Failed })
    }
}

#[cfg(test)]
mod tests;
