//! All that a CA has to remember, and the steps in which its root is replaced.
//!
//! ```text
//! steady ──add──► both roots believed, old one signs ──sign──► both believed, new one signs ──remove──► steady
//! ```
//! Between two steps everybody has to have heard of the first: what is signed after a step verifies with what was believed before it,
//! and the other way round. Pure: told the time, and whether all have heard.

use std::time::{Duration, SystemTime};

use outrigger_config::model::Root;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, Issuer};
use super::x509::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// Of this form. Others are refused.
    version: u32,
    /// All whose roots are believed.
    authorities: Vec<Authority>,
    /// The id of the one that signs.
    signing: String,
    /// The longest life of any leaf that may be about. Seconds.
    longest_life: u64,
    /// The life leaves may be given now, where that is shorter. Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<u64>,
    /// When the life leaves may be given was changed last. Seconds since 1970.
    #[serde(default)]
    life_since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<Rotation>,
}

/// A root on its way to replace the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// The id of the new authority.
    pub to: String,
    pub phase: Phase,
    /// When the phase began. Seconds since 1970.
    pub since: u64,
    /// How long at least everybody has to hear of a phase. Seconds.
    pub settle: u64,
    /// Whether control planes take the next steps by themselves.
    pub automatic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The new root is believed; the old authority signs.
    Added,
    /// The new authority signs; the old root is still believed.
    Signing,
}

/// What is done to begin, go on with and end a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Add,
    Sign,
    Remove,
}

/// What keeps a step from being taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    #[error("no rotation is under way; it begins with `add`")]
    NoRotation,
    #[error("a rotation to root {0} is under way; end it first")]
    UnderWay(String),
    #[error("the new root signs already; what is left is to `remove` the old one")]
    SignsAlready,
    #[error("the new root does not sign yet; that comes before the old one can be removed")]
    DoesNotSign,
    #[error("root {0} is believed already")]
    Known(String),
    #[error("not all proxies may have heard of the new root; wait {0} s")]
    Unheard(u64),
    #[error("certificates of the old root may be in use for {0} s more")]
    InUse(u64),
}

/// Of [`State::version`].
const VERSION: u32 = 1;

/// After a change of the life of leaves, before a shorter one is taken up: control planes that read different manifests would else outdo each other
/// every second.
const LIFE_RESTS: Duration = Duration::from_secs(3_600);

/// Whoever signs has taken up a shorter life by then.
const LIFE_SPREADS: Duration = Duration::from_secs(600);

impl State {
    pub fn new(authority: Authority, longest_life: Duration) -> Self {
        Self {
            version: VERSION,
            signing: authority.id.clone(),
            authorities: vec![authority],
            longest_life: longest_life.as_secs(),
            life: None,
            life_since: 0,
            rotation: None,
        }
    }

    /// Reads what [`Self::to_json`] wrote, and makes sure that it can be used.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let state: Self = serde_json::from_slice(text)
            .map_err(|error| Error::Wrong(format!("line {} is not what is expected", error.line())))?;
        if state.version != VERSION {
            return Err(Error::Wrong(format!("version {} is not {VERSION}", state.version)));
        }
        for authority in &state.authorities {
            authority.root_certificate()?;
        }
        state.issuer()?;
        let is_there = |id: &str| state.authorities.iter().any(|authority| authority.id == id);
        match &state.rotation {
            Some(rotation) if !is_there(&rotation.to) => {
                Err(Error::Wrong(format!("authority {} is missing", rotation.to)))
            }
            _ => Ok(state),
        }
    }

    /// With all keys.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("texts, numbers and lists become JSON")
    }

    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// The life leaves may be given now.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.life.unwrap_or(self.longest_life))
    }

    pub fn signing(&self) -> Result<&Authority, Error> {
        let found = self.authorities.iter().find(|authority| authority.id == self.signing);
        found.ok_or_else(|| Error::Wrong(format!("authority {} is missing", self.signing)))
    }

    pub fn issuer(&self) -> Result<Issuer, Error> {
        self.signing()?.issuer()
    }

    /// The roots that are believed now.
    pub fn roots(&self) -> Result<Vec<Root>, Error> {
        let root = |authority: &Authority| Ok(Root::new(authority.root_certificate()?.as_ref()));
        self.authorities.iter().map(root).collect()
    }

    /// The state in which leaves may live this long and no longer; `None` if there is nothing to change now. A longer life holds at once, a
    /// shorter one when the last change has rested. Those that were given a longer one are waited for before they are forgotten.
    pub fn with_life(&self, life: Duration, now: SystemTime) -> Option<Self> {
        let (life, now) = (life.as_secs(), seconds(now));
        let limit = self.life.unwrap_or(self.longest_life);
        let rested = now >= self.life_since.saturating_add(LIFE_RESTS.as_secs());
        if life > limit || (life < limit && rested) {
            let longest_life = self.longest_life.max(life);
            let life = (life < longest_life).then_some(life);
            return Some(Self { longest_life, life, life_since: now, ..self.clone() });
        }
        let gone = self.life_since.saturating_add(self.longest_life).saturating_add(LIFE_SPREADS.as_secs());
        let longest_life = self.life.filter(|_| now >= gone)?;
        Some(Self { longest_life, life: None, ..self.clone() })
    }

    /// With a new intermediate, when it is time for one; `None` before.
    pub fn renewed(&self, now: SystemTime) -> Result<Option<Self>, Error> {
        let Some(renewed) = self.signing()?.renewed(now)? else { return Ok(None) };
        Ok(Some(self.replacing(renewed)))
    }

    /// Takes up a given authority whose root is believed already: it signs from now on in the place of the one that did under that root.
    pub fn with_issuer(&self, given: Authority) -> Option<Self> {
        let known = self.authorities.iter().find(|authority| authority.root == given.root)?;
        Some(self.replacing(Authority { id: known.id.clone(), root_key: known.root_key.clone(), ..given }))
    }

    fn replacing(&self, authority: Authority) -> Self {
        let mut state = self.clone();
        for known in &mut state.authorities {
            if known.id == authority.id {
                known.clone_from(&authority);
            }
        }
        state
    }

    /// Begins a rotation: the root of `authority` is believed from now on.
    pub fn add(
        &self,
        authority: Authority,
        settle: Duration,
        automatic: bool,
        now: SystemTime,
    ) -> Result<Self, NotNow> {
        if let Some(rotation) = &self.rotation {
            return Err(NotNow::UnderWay(rotation.to.clone()));
        }
        if self.authorities.iter().any(|known| known.root == authority.root || known.id == authority.id) {
            return Err(NotNow::Known(authority.id));
        }
        let mut state = self.clone();
        state.rotation = Some(Rotation {
            to: authority.id.clone(),
            phase: Phase::Added,
            since: seconds(now),
            settle: settle.as_secs(),
            automatic,
        });
        state.authorities.push(authority);
        Ok(state)
    }

    /// The new authority signs from now on. `force` does so before the time is up.
    pub fn sign(&self, force: bool, now: SystemTime) -> Result<Self, NotNow> {
        let rotation = self.rotation.as_ref().ok_or(NotNow::NoRotation)?;
        if rotation.phase != Phase::Added {
            return Err(NotNow::SignsAlready);
        }
        let due = rotation.since.saturating_add(rotation.settle);
        match due.saturating_sub(seconds(now)) {
            0 => {}
            _ if force => {}
            left => return Err(NotNow::Unheard(left)),
        }
        let mut state = self.clone();
        state.signing.clone_from(&rotation.to);
        state.rotation = Some(Rotation { phase: Phase::Signing, since: seconds(now), ..rotation.clone() });
        Ok(state)
    }

    /// Ends the rotation: the old root is believed no longer. `force` does so while certificates of it may be in use.
    pub fn remove(&self, force: bool, now: SystemTime) -> Result<Self, NotNow> {
        let rotation = self.rotation.as_ref().ok_or(NotNow::NoRotation)?;
        if rotation.phase != Phase::Signing {
            return Err(NotNow::DoesNotSign);
        }
        let due = rotation.since.saturating_add(self.longest_life).saturating_add(rotation.settle);
        match due.saturating_sub(seconds(now)) {
            0 => {}
            _ if force => {}
            left => return Err(NotNow::InUse(left)),
        }
        let mut state = self.clone();
        state.authorities.retain(|authority| authority.id == rotation.to);
        state.rotation = None;
        Ok(state)
    }

    /// The step that a control plane takes now by itself.
    ///
    /// `all_heard`: whether all proxies it knows have the present roots.
    pub fn due(&self, all_heard: bool, now: SystemTime) -> Option<(Step, Self)> {
        let rotation = self.rotation.as_ref().filter(|rotation| rotation.automatic)?;
        match rotation.phase {
            Phase::Added if all_heard => Some((Step::Sign, self.sign(false, now).ok()?)),
            Phase::Added => None,
            Phase::Signing => Some((Step::Remove, self.remove(false, now).ok()?)),
        }
    }
}

pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
