use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::ca::authority::Authority;

const DAY: Duration = Duration::from_secs(86_400);

fn state() -> State {
    State::new(Authority::make(SystemTime::now()).unwrap(), DAY)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn keys_are_their_owners_and_roots_are_everybodys() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca");
    let store = Directory::open(&path).unwrap();
    assert!(store.load().await.unwrap().is_none());
    let first = state();
    assert!(store.replace(None, &first).await.unwrap());
    assert_eq!(store.load().await.unwrap().unwrap().state, first);
    assert_eq!((mode(&path), mode(&path.join(STATE)), mode(&path.join(ROOTS))), (0o700, 0o600, 0o644));
    let roots = fs::read_to_string(store.roots_file()).unwrap();
    assert_eq!(roots, first.roots().unwrap()[0].pem());

    fs::set_permissions(path.join(STATE), fs::Permissions::from_mode(0o640)).unwrap();
    let error = store.load().await.unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn who_comes_second_is_told_so() {
    let dir = TempDir::new().unwrap();
    let [one, other] = [(); 2].map(|()| Directory::open(dir.path()).unwrap());
    assert!(one.replace(None, &state()).await.unwrap());
    assert!(!other.replace(None, &state()).await.unwrap());
    let seen = other.load().await.unwrap().unwrap();
    let longer = seen.state.with_life(2 * DAY, SystemTime::now()).unwrap();
    assert!(one.replace(Some(&seen.revision), &longer).await.unwrap());
    let late = seen.state.with_life(3 * DAY, SystemTime::now()).unwrap();
    assert!(!other.replace(Some(&seen.revision), &late).await.unwrap());
    assert_eq!(one.load().await.unwrap().unwrap().state, longer);
}

/// Of many that begin at once, one makes the root, and all use that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_has_one_winner() {
    let dir = TempDir::new().unwrap();
    let path: Arc<Path> = dir.path().into();
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::new(Directory::open(&path).unwrap());
            tokio::spawn(
                async move { crate::ca::Ca::open(store, DAY).await.unwrap().present().roots().clone() },
            )
        })
        .collect();
    let mut roots = Vec::new();
    for racer in racers {
        roots.push(racer.await.unwrap());
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn what_a_crash_left_behind_is_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    let store = Directory::open(dir.path()).unwrap();
    fs::write(dir.path().join("ca.json.new"), "half a st").unwrap();
    assert!(store.replace(None, &state()).await.unwrap());
    fs::write(dir.path().join(STATE), "half a st").unwrap();
    let error = store.load().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains(STATE), "{error}");
}

#[tokio::test]
async fn roots_that_were_not_written_any_more_are_mended() {
    let dir = TempDir::new().unwrap();
    let store = Directory::open(dir.path()).unwrap();
    let state = state();
    assert!(store.replace(None, &state).await.unwrap());
    for stale in [Some("of before"), None] {
        match stale {
            Some(text) => fs::write(store.roots_file(), text).unwrap(),
            None => fs::remove_file(store.roots_file()).unwrap(),
        }
        store.load().await.unwrap();
        assert_eq!(fs::read_to_string(store.roots_file()).unwrap(), state.roots().unwrap()[0].pem());
    }
}
