//! The names of one kind that a proxy subscribed to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use outrigger_config::model::ResourceKind;
use outrigger_config::resolve::Subscriber;
use outrigger_config::xds::Refusal;
use outrigger_config::xds::pb::discovery::DeltaDiscoveryRequest;
use tonic::Status;

use super::Phase;
use crate::view::View;

/// Destinations of one proxy (design.md 2.3), and one more: its own listener.
const MAX_LISTENERS: usize = 2_001;
/// Route tables, clusters, endpoints, secrets: several to a destination.
const MAX_OTHERS: usize = 10_000;
/// The longest name we make has a host of 253 bytes in it.
const MAX_NAME_BYTES: usize = 1_024;

/// Means everything there is, where it stands among the names subscribed to.
const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub struct Names {
    all: BTreeMap<Arc<str>, Name>,
    /// Those whose proxy has not been told what holds now.
    make: BTreeSet<Arc<str>>,
    /// Those it has and that are gone.
    gone: BTreeSet<Arc<str>>,
    wildcard: bool,
    begun: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Name {
    told: Told,
    /// What the proxy last accepted.
    applied: Told,
    /// The version it refused, and why; until it accepts another.
    refused: Option<(Told, Refusal)>,
    /// Not asked for by name.
    implied: bool,
    /// Implied before and no longer: to be taken back, whether the resource is still there or not.
    leaving: bool,
}

/// What a proxy was told of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    #[default]
    Nothing,
    Absent,
    Has(Arc<str>),
}

/// How far a proxy is with a name, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has what holds.
    Applied,
    /// It knows that there is nothing.
    Absent,
    Refused,
    /// Said and not answered, or yet to be said.
    Pending,
}

impl Name {
    pub fn state(&self) -> State {
        match (&self.refused, &self.told) {
            (Some((refused, _)), told) if refused == told => State::Refused,
            (_, Told::Has(version)) if self.applied == Told::Has(version.clone()) => State::Applied,
            (_, Told::Absent) if self.applied == Told::Absent => State::Absent,
            _ => State::Pending,
        }
    }

    /// The version the proxy works with.
    pub fn applied(&self) -> Option<&Arc<str>> {
        match &self.applied {
            Told::Has(version) => Some(version),
            Told::Nothing | Told::Absent => None,
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.refused.as_ref().filter(|(refused, _)| *refused == self.told).map(|(_, refusal)| refusal)
    }
}

impl Names {
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Name)> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a name waits to be told.
    pub(super) fn is_stale(&self, name: &str) -> bool {
        self.make.contains(name) || self.gone.contains(name)
    }

    pub(super) fn has_said_all(&self) -> bool {
        self.make.is_empty() && self.gone.is_empty()
    }

    pub(super) fn subscribe(
        &mut self,
        kind: ResourceKind,
        who: &Subscriber,
        view: &View,
        request: DeltaDiscoveryRequest,
    ) -> Result<(), Status> {
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name, kind, who, view);
        }
        // A first request without names means all of them, of the two kinds that have that (xDS, "wildcard").
        let has_wildcard = matches!(kind, ResourceKind::Listener | ResourceKind::Cluster);
        let bare = !self.begun && request.resource_names_subscribe.is_empty();
        self.begun = true;
        let mut versions: HashMap<String, String> = request.initial_resource_versions;
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                self.wildcard = has_wildcard;
                continue;
            }
            let limit = if kind == ResourceKind::Listener { MAX_LISTENERS } else { MAX_OTHERS };
            if name.len() > MAX_NAME_BYTES || self.all.len() >= limit {
                let text = format!("at most {limit} names of a kind and {MAX_NAME_BYTES} bytes a name");
                return Err(Status::resource_exhausted(text));
            }
            // A name that is asked for again is answered again: the proxy may have dropped what it had (xDS, "delta").
            let told = versions.remove(&name).map_or(Told::Nothing, |version| Told::Has(version.into()));
            let name: Arc<str> = name.into();
            self.all.insert(name.clone(), Name { applied: told.clone(), told, ..Name::default() });
            self.compare(name, kind, who, view);
        }
        self.wildcard |= bare && has_wildcard;
        if self.wildcard {
            // What it kept from an earlier stream without having asked for it by name.
            for (name, version) in versions.into_iter().filter(|(name, _)| name.len() <= MAX_NAME_BYTES) {
                let told = Told::Has(version.into());
                let known = Name { applied: told.clone(), told, implied: true, ..Name::default() };
                let name: Arc<str> = name.into();
                if self.all.len() < MAX_OTHERS && !self.all.contains_key(&name) {
                    self.all.insert(name.clone(), known);
                    self.compare(name, kind, who, view);
                }
            }
        }
        if self.wildcard {
            self.imply(kind, who, view);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, name: &str, kind: ResourceKind, who: &Subscriber, view: &View) {
        if name == WILDCARD {
            self.wildcard = false;
            self.all.retain(|_, name| !name.implied);
            self.make.retain(|name| self.all.contains_key(name));
            self.gone.retain(|name| self.all.contains_key(name));
            return;
        }
        self.all.remove(name);
        self.make.remove(name);
        self.gone.remove(name);
        if self.wildcard {
            self.imply(kind, who, view);
        }
    }

    /// Brings the names of a wildcard subscription in line with the view.
    fn imply(&mut self, kind: ResourceKind, who: &Subscriber, view: &View) {
        let mut implied = view.implied(who, kind);
        implied.retain(|name| view.entry(who, kind, name).is_some());
        for name in &implied {
            let known = self.all.entry(name.clone()).or_insert_with(|| Name {
                implied: true,
                leaving: true,
                ..Name::default()
            });
            if known.leaving {
                known.leaving = false;
                self.compare(name.clone(), kind, who, view);
            }
        }
        let left: Vec<_> = self
            .all
            .iter()
            .filter(|(name, known)| known.implied && !known.leaving && !implied.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            let Some(known) = self.all.get_mut(&name) else { continue };
            known.leaving = true;
            if matches!(known.told, Told::Has(_)) {
                self.compare(name, kind, who, view);
            } else {
                self.make.remove(&name);
                self.all.remove(&name);
            }
        }
    }

    pub(super) fn advance(&mut self, kind: ResourceKind, who: &Subscriber, before: u64, view: &View) {
        if self.wildcard {
            self.imply(kind, who, view);
        }
        let touched: Vec<_> = self
            .all
            .keys()
            .filter(|name| self.is_stale(name) || view.may_differ(before, who, kind, name))
            .cloned()
            .collect();
        for name in touched {
            self.compare(name, kind, who, view);
        }
    }

    /// Decides whether and when the name has to be spoken of.
    fn compare(&mut self, name: Arc<str>, kind: ResourceKind, who: &Subscriber, view: &View) {
        self.make.remove(&name);
        self.gone.remove(&name);
        let Some(known) = self.all.get(&name) else { return };
        let entry = if known.leaving { None } else { view.entry(who, kind, &name) };
        match (&known.told, entry) {
            (Told::Has(version), Some(entry)) if version == entry.version() => {}
            (Told::Absent, None) => {}
            (Told::Has(_), None) => {
                self.gone.insert(name);
            }
            (Told::Nothing | Told::Absent | Told::Has(_), _) => {
                self.make.insert(name);
            }
        }
    }

    pub(super) fn take_stale(&mut self, phase: Phase) -> Option<Arc<str>> {
        match phase {
            Phase::Make => self.make.pop_first(),
            Phase::Break => self.gone.pop_first(),
        }
    }

    pub(super) fn tell(&mut self, name: &str, told: Told) {
        let Some(known) = self.all.get_mut(name) else { return };
        if known.implied && told == Told::Absent {
            self.all.remove(name);
        } else {
            known.told = told;
        }
    }

    /// Takes in the answer to a response; how many of its resources were refused.
    pub(super) fn answered(&mut self, told: Vec<(Arc<str>, Told)>, refusals: Vec<Refusal>) -> usize {
        let mut refusals: HashMap<String, Refusal> =
            refusals.into_iter().map(|refusal| (refusal.name.clone(), refusal)).collect();
        let mut refused = 0;
        for (name, told) in told {
            let Some(known) = self.all.get_mut(&name) else { continue };
            match refusals.remove(&*name) {
                Some(refusal) => {
                    known.refused = Some((told, refusal));
                    refused += 1;
                }
                None => {
                    known.applied = told;
                    known.refused = None;
                }
            }
        }
        refused
    }
}
