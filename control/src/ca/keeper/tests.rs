use tempfile::TempDir;

use super::*;
use crate::ca::authority::pem_of;
use crate::ca::{Directory, x509};

const DAY: Duration = Duration::from_secs(86_400);
const SETTLE: Duration = Duration::from_secs(60);

async fn open(dir: &TempDir) -> (Arc<Directory>, Ca) {
    let store = Arc::new(Directory::open(dir.path()).unwrap());
    let ca = Ca::open(store.clone(), DAY).await.unwrap();
    (store, ca)
}

fn leaf(ca: &Ca, now: SystemTime) -> Leaf {
    ca.sign(&rcgen::KeyPair::generate().unwrap(), Vec::new(), DAY, now).unwrap()
}

fn believed(leaf: &Leaf, roots: &[Root], now: SystemTime) -> bool {
    let roots: Vec<_> = roots.iter().map(|root| root.der().into()).collect();
    x509::verify(&leaf.chain[0], &leaf.chain[1..], &roots, now).is_ok()
}

#[tokio::test]
async fn a_rotation_begun_elsewhere_goes_on_here_and_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let (store, ca) = open(&dir).await;
    let begun = SystemTime::now();
    let old = leaf(&ca, begun);
    let stored = store.load().await.unwrap().unwrap();
    let added = stored.state.add(Authority::make(begun).unwrap(), SETTLE, true, begun).unwrap();
    assert!(store.replace(Some(&stored.revision), &added).await.unwrap());

    ca.look(DAY, |_| true, begun).await.unwrap();
    assert_eq!(ca.present().roots().len(), 2);
    assert!(believed(&leaf(&ca, begun), &stored.state.roots().unwrap(), begun), "the old one signs");
    ca.look(DAY, |_| false, begun + SETTLE).await.unwrap();
    assert!(believed(&leaf(&ca, begun), &stored.state.roots().unwrap(), begun), "not all have heard");

    let (_, ca) = open(&dir).await;
    let now = begun + SETTLE;
    ca.look(DAY, |roots| roots.len() == 2, now).await.unwrap();
    let new = leaf(&ca, now);
    assert!(!believed(&new, &stored.state.roots().unwrap(), now), "the new one signs");
    assert!(believed(&new, ca.present().roots(), now) && believed(&old, ca.present().roots(), now));

    let now = now + DAY + SETTLE + Duration::from_secs(1);
    ca.look(DAY, |_| true, now).await.unwrap();
    assert_eq!(ca.present().roots().len(), 1);
    assert!(believed(&leaf(&ca, now), ca.present().roots(), now));
    assert!(!believed(&old, ca.present().roots(), begun));
}

#[tokio::test]
async fn no_leaf_outlives_what_the_state_says() {
    let dir = TempDir::new().unwrap();
    let (_, ca) = open(&dir).await;
    let now = SystemTime::now();
    let life = |ca: &Ca| {
        let key = rcgen::KeyPair::generate().unwrap();
        ca.sign(&key, Vec::new(), 3 * DAY, now).unwrap().until.duration_since(now).unwrap()
    };
    assert_eq!(life(&ca), DAY);
    ca.look(2 * DAY, |_| true, now).await.unwrap();
    assert_eq!(life(&ca), 2 * DAY);
}

#[tokio::test]
async fn a_store_that_breaks_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (store, ca) = open(&dir).await;
    let now = SystemTime::now();
    std::fs::write(dir.path().join("ca.json"), "{").unwrap();
    assert!(ca.look(DAY, |_| true, now).await.is_err());
    assert!(believed(&leaf(&ca, now), ca.present().roots(), now));
    std::fs::remove_file(dir.path().join("ca.json")).unwrap();
    assert!(ca.look(DAY, |_| true, now).await.is_err());
    assert!(believed(&leaf(&ca, now), ca.present().roots(), now));
    assert!(store.load().await.unwrap().is_none(), "nobody makes another root while this one is in use");
}

#[tokio::test]
async fn given_files_are_followed_and_bad_ones_are_not() {
    let dir = TempDir::new().unwrap();
    let (certificates, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
    let now = SystemTime::now();
    let [one, other] = [(); 2].map(|()| Authority::make(now).unwrap());
    let write = |authority: &Authority, roots: &[&Authority]| {
        let mut pem = authority.chain.concat();
        roots.iter().for_each(|authority| pem.push_str(&authority.root));
        std::fs::write(&certificates, pem).unwrap();
        std::fs::write(&key, &authority.key).unwrap();
        permit(&key, 0o600);
    };
    write(&one, &[&one]);
    let ca = Ca::given(&certificates, &key).await.unwrap();
    let first = leaf(&ca, now);
    assert!(believed(&first, ca.present().roots(), now));

    write(&other, &[&one]); // its own root is missing
    assert!(ca.look(DAY, |_| true, now).await.is_err());
    assert_eq!(leaf(&ca, now).chain[1], first.chain[1]);

    write(&other, &[&one, &other]);
    ca.look(DAY, |_| true, now).await.unwrap();
    let second = leaf(&ca, now);
    assert_ne!(second.chain[1], first.chain[1]);
    assert!(believed(&first, ca.present().roots(), now) && believed(&second, ca.present().roots(), now));
}

#[tokio::test]
async fn a_given_key_is_nobody_elses() {
    let dir = TempDir::new().unwrap();
    let (certificates, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
    let authority = Authority::make(SystemTime::now()).unwrap();
    std::fs::write(&certificates, authority.chain.concat() + &authority.root).unwrap();
    std::fs::write(&key, &authority.key).unwrap();
    for mode in [0o644, 0o604, 0o660, 0o602] {
        permit(&key, mode);
        let refused = Ca::given(&certificates, &key).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{mode:o}");
        assert!(refused.to_string().contains("ca.key: others may read or change the key"), "{refused}");
    }
    for mode in [0o600, 0o400, 0o440] {
        permit(&key, mode);
        Ca::given(&certificates, &key).await.unwrap_or_else(|error| panic!("{mode:o}: {error}"));
    }
    // One that is opened to others later is used no further than it was.
    let ca = Ca::given(&certificates, &key).await.unwrap();
    permit(&key, 0o644);
    assert!(ca.look(DAY, |_| true, SystemTime::now()).await.is_err());
    leaf(&ca, SystemTime::now());
}

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_given_has_to_fit_together() {
    let now = SystemTime::now();
    let [one, other] = [(); 2].map(|()| Authority::make(now).unwrap());
    let leaf = one.issuer().unwrap();
    let leaf = leaf.sign(&rcgen::KeyPair::generate().unwrap(), Vec::new(), DAY, now).unwrap();
    let chain = one.chain.concat();
    for (what, certificates, key, want) in [
        ("all of it", chain.clone() + &one.root, &one.key, None),
        ("the root itself", one.root.clone(), one.root_key.as_ref().unwrap(), None),
        ("no root", chain.clone(), &one.key, Some("no root")),
        ("two roots", chain.clone() + &one.root + &other.root, &one.key, Some("2 roots")),
        ("another root", chain.clone() + &other.root, &one.key, Some("would not verify")),
        ("another key", chain.clone() + &one.root, &other.key, Some("not that of the first")),
        ("a leaf", pem_of(&leaf.chain[0]) + &chain + &one.root, &one.key, Some("not that of the first")),
        ("nothing", String::new(), &one.key, Some("no certificate")),
    ] {
        let error = Authority::given(&certificates, key, now).err().map(|error| error.to_string());
        match want {
            None => assert_eq!(error, None, "{what}"),
            Some(want) => assert!(error.as_ref().is_some_and(|e| e.contains(want)), "{what}: {error:?}"),
        }
    }
}
