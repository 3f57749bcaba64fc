use std::fs;
use std::os::unix::fs::PermissionsExt;

use outrigger_config::model::{Egress, ResourceKind, Secret};
use tempfile::TempDir;

use super::*;
use crate::discovery::tests::script::{Script, endpoints_of, inbound, name, service};
use crate::discovery::{Around, Own, Source, run};
use crate::mesh::Lookup;

const NODE: &str = "sidecar~127.0.0.1~productpage-1.default~default.svc.cluster.local";

fn open(directory: &TempDir) -> Cache {
    Cache::open(directory.path(), NODE).expect("a directory")
}

fn everything() -> Vec<Resource> {
    let mut all = service("reviews", &["10.0.0.1:80"]);
    all.push(inbound(&[(9080, "127.0.0.1:8080")], Egress::RegistryOnly));
    all
}

fn unwritten(resources: Vec<Resource>) -> Unwritten {
    Unwritten { resources: resources.into_iter().map(Arc::new).collect(), shelf: Vec::new() }
}

/// A proxy whose control plane is away.
fn alone(cache: Cache) -> Arc<Mesh> {
    let (mesh, asks) = Mesh::new();
    let (source, end) = Source::new("nobody");
    tokio::spawn(run(Own::Sidecar, mesh.clone(), asks, Around::nothing(), source, Some(cache)));
    std::mem::forget(end);
    mesh
}

#[tokio::test]
async fn a_proxy_starts_from_its_copy_without_a_control_plane() {
    let directory = tempfile::tempdir().expect("a directory");
    open(&directory).write(&unwritten(everything())).expect("written");
    let mesh = alone(open(&directory));
    let watch = mesh.inbound().wait_for(Option::is_some).await.expect("configured").clone();
    assert_eq!(endpoints_of(&watch.expect("some").ports[&9080].destination), ["127.0.0.1:8080"]);
    assert_eq!(mesh.settings().egress, Egress::RegistryOnly);
    let Lookup::Known(slot) = mesh.destination(&name("reviews")).await else { panic!("not known") };
    assert_eq!(endpoints_of(&slot), ["10.0.0.1:80"]);
    assert!(!slot.current().expect("known").stale);
    let content = mesh.inventory().lock();
    assert!(!content.link.connected && content.link.age().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_received_is_on_disk_a_little_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut script = Script::start_with(Some(open(&directory)));
    script.connect().await;
    script.say(vec![inbound(&[(9080, "127.0.0.1:8080")], Egress::AllowAny)]).await;
    drop(script.known("reviews", &["10.0.0.1:80"]).await);
    script.absent(ResourceKind::Listener, "inbound").await;
    // Long enough for the destination to expire.
    tokio::time::sleep(Duration::from_secs(660)).await;
    drop(script.known("details", &["10.0.0.2:80"]).await);
    let found = written(&directory, |found| found.shelf.len() == 1 && found.resources.len() == 4).await;
    assert_eq!(found.shelf[0].0, name("reviews"));
    assert_eq!(found.shelf[0].1.resources.len(), 4);

    // Another process, and no control plane: both are known, the expired one as stale.
    let mesh = alone(open(&directory));
    for (host, stale) in [("details", false), ("reviews", true)] {
        let Lookup::Known(slot) = mesh.destination(&name(host)).await else { panic!("{host} is not known") };
        assert_eq!(slot.current().expect("known").stale, stale, "{host}");
    }
    assert!(matches!(mesh.destination(&name("nobody")).await, Lookup::Unavailable));
}

/// The copy, once it is as wanted. Files are written by another thread, whose time does not stand still.
async fn written(directory: &TempDir, wanted: impl Fn(&Remembered) -> bool) -> Remembered {
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.expect("no panic");
        let found = open(directory).take_remembered();
        if wanted(&found) {
            return found;
        }
    }
    panic!("it was not written: {:?}", open(directory).remembered);
}

#[test]
fn a_file_that_is_not_whole_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = open(&directory);
    cache.write(&unwritten(everything())).expect("written");
    let whole = fs::read(&cache.file).expect("there");
    assert_eq!(open(&directory).remembered.resources.len(), 5);
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let of_another_format = [b"outrigger copy 9", &whole[16..]].concat();
    for broken in [&b""[..], b"x", &whole[..20], &whole[..whole.len() - 1], &flipped, &of_another_format] {
        fs::write(&cache.file, broken).expect("written");
        assert!(open(&directory).remembered.resources.is_empty(), "{} bytes", broken.len());
    }
    // And it is replaced by a good one.
    cache.write(&unwritten(everything())).expect("written");
    assert_eq!(open(&directory).remembered.resources.len(), 5);
}

#[test]
fn the_copy_of_another_proxy_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    open(&directory).write(&unwritten(everything())).expect("written");
    let other = Cache::open(directory.path(), "sidecar~127.0.0.1~other.default~d").expect("a directory");
    assert!(other.remembered.resources.is_empty());
}

#[test]
fn only_its_owner_may_read_it_and_nothing_is_left_beside_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let inner = directory.path().join("state").join("default");
    let cache = Cache::open(&inner, NODE).expect("directories are made");
    // Left by a process that died in the middle.
    fs::write(cache.file.with_extension("new"), b"half").expect("written");
    cache.write(&unwritten(everything())).expect("written");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&cache.file), mode(&inner)), (0o600, 0o700));
    assert_eq!(fs::read_dir(&inner).expect("there").count(), 1);
}

#[test]
fn keys_are_kept_only_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = Secret {
        name: "default/web".into(),
        certificate_chain: "CHAIN".into(),
        private_key: "VERY PRIVATE".into(),
    };
    for keeps_keys in [true, false] {
        let cache = Cache { keeps_keys, ..open(&directory) };
        cache.write(&unwritten(vec![Resource::Secret(secret.clone())])).expect("written");
        let bytes = fs::read(&cache.file).expect("there");
        let found = bytes.windows(12).any(|window| window == b"VERY PRIVATE");
        assert_eq!(found, keeps_keys);
    }
    if storage::is_in_memory(Path::new("/dev/shm")).is_ok_and(|memory| memory) {
        let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        assert!(open(&memory).keeps_keys);
    }
}
