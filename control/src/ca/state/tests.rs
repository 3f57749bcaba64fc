use rcgen::KeyPair;

use super::*;
use crate::ca::x509;

const HOUR: Duration = Duration::from_secs(3_600);
const SETTLE: Duration = Duration::from_secs(600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn fresh() -> State {
    State::new(Authority::make(now()).unwrap(), 24 * HOUR)
}

/// The states of a rotation, each with when it began.
fn phases() -> Vec<(State, SystemTime)> {
    let steady = fresh();
    let added = steady.add(Authority::make(now()).unwrap(), SETTLE, true, now()).unwrap();
    let signs_at = now() + SETTLE;
    let signing = added.sign(false, signs_at).unwrap();
    let removed_at = signs_at + 24 * HOUR + SETTLE;
    let removed = signing.remove(false, removed_at).unwrap();
    vec![(steady, now()), (added, now()), (signing, signs_at), (removed, removed_at)]
}

/// Whether a leaf that `signer` gives out at `at` is good for one that believes what `verifier` says.
fn verifies(signer: &State, verifier: &State, at: SystemTime) -> bool {
    let key = KeyPair::generate().unwrap();
    let leaf = signer.issuer().unwrap().sign(&key, Vec::new(), HOUR, at).unwrap();
    let roots: Vec<_> = verifier.authorities.iter().map(|a| a.root_certificate().unwrap()).collect();
    x509::verify(&leaf.chain[0], &leaf.chain[1..], &roots, at).is_ok()
}

#[test]
fn neighbours_in_a_rotation_believe_each_other() {
    let phases = phases();
    for (i, (signer, _)) in phases.iter().enumerate() {
        for (j, (verifier, at)) in phases.iter().enumerate() {
            let good = verifies(signer, verifier, *at);
            if i.abs_diff(j) <= 1 {
                assert!(good, "a leaf of phase {i} with the roots of phase {j}");
            }
        }
    }
    // It would be no rotation otherwise.
    assert!(!verifies(&phases[0].0, &phases[3].0, phases[3].1));
    assert!(!verifies(&phases[3].0, &phases[0].0, phases[0].1));
}

#[test]
fn no_step_is_taken_early_or_twice() {
    let steady = fresh();
    let new = || Authority::make(now()).unwrap();
    assert_eq!(steady.sign(true, now()), Err(NotNow::NoRotation));
    assert_eq!(steady.remove(true, now()), Err(NotNow::NoRotation));
    let known = steady.authorities[0].clone();
    assert!(matches!(steady.add(known, SETTLE, true, now()), Err(NotNow::Known(_))));

    let added = steady.add(new(), SETTLE, true, now()).unwrap();
    assert!(matches!(added.add(new(), SETTLE, true, now()), Err(NotNow::UnderWay(_))));
    assert_eq!(added.remove(true, now()), Err(NotNow::DoesNotSign));
    assert_eq!(added.sign(false, now() + SETTLE / 2), Err(NotNow::Unheard(300)));
    assert!(added.sign(true, now()).is_ok());

    let signing = added.sign(false, now() + SETTLE).unwrap();
    assert_eq!(signing.sign(true, now()), Err(NotNow::SignsAlready));
    let left = (24 * HOUR + SETTLE).as_secs();
    assert_eq!(signing.remove(false, now() + SETTLE), Err(NotNow::InUse(left)));
    assert!(signing.remove(true, now() + SETTLE).is_ok());
}

#[test]
fn control_planes_go_on_by_themselves_when_all_have_heard() {
    let added = fresh().add(Authority::make(now()).unwrap(), SETTLE, true, now()).unwrap();
    assert!(added.due(true, now()).is_none(), "not before it has settled");
    assert!(added.due(false, now() + 1_000 * HOUR).is_none(), "not while one has not heard");
    let (step, signing) = added.due(true, now() + SETTLE).unwrap();
    assert_eq!((step, signing.rotation().unwrap().phase), (Step::Sign, Phase::Signing));
    assert!(signing.due(true, now() + 24 * HOUR).is_none());
    let (step, removed) = signing.due(false, now() + 24 * HOUR + 2 * SETTLE).unwrap();
    assert_eq!((step, removed.authorities.len()), (Step::Remove, 1));

    let by_hand = fresh().add(Authority::make(now()).unwrap(), SETTLE, false, now()).unwrap();
    assert!(by_hand.due(true, now() + 1_000 * HOUR).is_none());
}

#[test]
fn the_old_root_is_believed_as_long_as_the_longest_leaf_lives() {
    let longer = fresh().with_life(48 * HOUR, now()).unwrap();
    assert!(longer.with_life(48 * HOUR, now()).is_none(), "it is so already");
    let added = longer.add(Authority::make(now()).unwrap(), SETTLE, true, now()).unwrap();
    let signing = added.sign(true, now()).unwrap();
    assert_eq!(signing.remove(false, now() + 24 * HOUR), Err(NotNow::InUse((24 * HOUR + SETTLE).as_secs())));
}

/// How long after `at` the old root of a rotation that signs since then is believed.
fn believed_for(state: &State, at: SystemTime) -> Duration {
    static NEXT: std::sync::LazyLock<Authority> =
        std::sync::LazyLock::new(|| Authority::make(now()).unwrap());
    let added = state.add(NEXT.clone(), Duration::ZERO, true, at).unwrap();
    match added.sign(true, at).unwrap().remove(false, at) {
        Err(NotNow::InUse(left)) => Duration::from_secs(left),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_shorter_life_shortens_rotations_when_the_long_leaves_are_gone() {
    let day = 24 * HOUR;
    let shorter = fresh().with_life(HOUR, now()).unwrap();
    assert_eq!((shorter.life(), believed_for(&shorter, now())), (HOUR, day), "long ones are still about");
    for (asked, after) in [(HOUR, day), (HOUR / 2, LIFE_RESTS / 2)] {
        assert_eq!(shorter.with_life(asked, now() + after), None, "not yet");
    }
    let gone = now() + day + LIFE_SPREADS;
    let forgotten = shorter.with_life(HOUR, gone).unwrap();
    assert_eq!((forgotten.life(), believed_for(&forgotten, gone)), (HOUR, HOUR));
    assert_eq!(forgotten.with_life(HOUR, gone), None);
    // Longer again on the way, and again shorter: what was last waited for is waited for anew.
    let longer = shorter.with_life(2 * HOUR, now() + HOUR / 2).unwrap();
    assert_eq!((longer.life(), believed_for(&longer, now())), (2 * HOUR, day));
    assert_eq!(longer.with_life(2 * HOUR, gone), None);
    let forgotten = longer.with_life(2 * HOUR, gone + HOUR / 2).unwrap();
    assert_eq!(believed_for(&forgotten, gone), 2 * HOUR);
}

/// Control planes that read different manifests change it once in a while, and never give out a leaf that outlives the old root of a rotation.
#[test]
fn no_leaf_outlives_a_rotation_whatever_lives_are_asked_for() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut at, mut state) = (now(), fresh());
        // When the last leaf ends that was given out so far.
        let mut last = at;
        for step in 0..200 {
            at += Duration::from_secs(rng.random_range(1..20_000));
            let asked = HOUR * rng.random_range(1..60);
            let mut changes = 0;
            while let Some(next) = state.with_life(asked, at) {
                (state, changes) = (next, changes + 1);
                assert!(changes < 4, "seed {seed}, step {step}: it comes to rest");
            }
            last = last.max(at + asked.min(state.life()));
            assert!(at + believed_for(&state, at) >= last, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn the_intermediate_is_replaced_at_half_its_life_under_the_same_root() {
    let state = fresh();
    assert!(state.renewed(now()).unwrap().is_none());
    let later = now() + x509::INTERMEDIATE_LIFE / 2 + HOUR;
    let renewed = state.renewed(later).unwrap().unwrap();
    assert_ne!(renewed.authorities[0].chain, state.authorities[0].chain);
    assert_eq!(renewed.roots().unwrap(), state.roots().unwrap());
    assert!(verifies(&renewed, &state, later) && verifies(&state, &renewed, later));
}

#[test]
fn a_state_survives_the_disk_and_damage_is_refused() {
    for (state, _) in phases() {
        let json = state.to_json();
        assert_eq!(State::from_json(&json).unwrap(), state);
        let text = String::from_utf8(json).unwrap();
        let secret = state.authorities[0].key.lines().nth(1).unwrap();
        for (what, damaged) in [
            ("version", text.replace("\"version\": 1", "\"version\": 2")),
            ("unknown field", text.replacen('{', "{\"color\": 1,", 1)),
            ("who signs", text.replace("\"signing\": \"", "\"signing\": \"x")),
            ("keys", text.replace("BEGIN PRIVATE KEY", "BEGIN KEY")),
            ("certificates", text.replace("BEGIN CERTIFICATE", "BEGIN PAPER")),
            ("cut", text[..text.len() / 2].to_owned()),
        ] {
            let error = State::from_json(damaged.as_bytes()).expect_err(what).to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }
}

/// A mesh of proxies that hear late, renew late and are never forced: whoever is told the truth within `settle` is believed by all others.
#[test]
fn nobody_is_refused_on_the_way_through_any_rotations() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    struct Proxy {
        leaf: crate::ca::authority::Leaf,
        believes: Vec<Root>,
    }
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now = now();
        let mut state = State::new(Authority::make(now).unwrap(), HOUR);
        let key = KeyPair::generate().unwrap();
        let join = |state: &State, now| Proxy {
            leaf: state.issuer().unwrap().sign(&key, Vec::new(), HOUR, now).unwrap(),
            believes: state.roots().unwrap(),
        };
        let mut proxies: Vec<_> = (0..4).map(|_| join(&state, now)).collect();
        let mut rotations = 0;
        for step in 0..80 {
            now += Duration::from_secs(rng.random_range(60..900));
            // What control planes and commands do.
            if state.rotation().is_none() && rng.random_bool(0.2) {
                state = state.add(Authority::make(now).unwrap(), SETTLE, true, now).unwrap();
                rotations += 1;
            }
            let roots = state.roots().unwrap();
            let all_heard = proxies.iter().all(|proxy| proxy.believes == roots);
            if let Some((_, next)) = state.due(all_heard, now) {
                state = next;
            }
            // What proxies do: some hear, and each renews before its leaf ends.
            for proxy in &mut proxies {
                if rng.random_bool(0.5) {
                    proxy.believes = state.roots().unwrap();
                }
                let left = proxy.leaf.until.duration_since(now).unwrap_or_default();
                if left < Duration::from_secs(1_000) || rng.random_bool(0.1) {
                    proxy.leaf = join(&state, now).leaf;
                }
            }
            for (i, caller) in proxies.iter().enumerate() {
                for (j, callee) in proxies.iter().enumerate() {
                    let roots: Vec<_> = callee.believes.iter().map(|root| root.der().into()).collect();
                    let chain = &caller.leaf.chain;
                    let verdict = x509::verify(&chain[0], &chain[1..], &roots, now);
                    assert!(verdict.is_ok(), "seed {seed}, step {step}, {i} to {j}: {verdict:?}");
                }
            }
        }
        assert!(rotations > 1, "seed {seed} turned nothing");
    }
}
