use super::*;
use crate::source::Content;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                     spec:\n  parentRefs: [{group: '', kind: Service, name: a}]\n  \
                     rules: [{backendRefs: [{name: a, port: 80, weight: 1}]}]\n";

fn files<const N: usize>(texts: [(&str, &str); N]) -> Files {
    Files::from_iter(texts)
}

fn names(registry: &Registry) -> Vec<String> {
    registry.objects().map(|(key, _)| key.to_string()).collect()
}

#[test]
fn a_good_object_outlives_its_broken_successor() {
    let services = services(&["default/a"]);
    let mut store = Store::new();
    let good = store.update(&files([("a.yaml", &services), ("r.yaml", ROUTE)]));
    assert_eq!(good.findings(), [""; 0]);
    for (broken, why) in [
        (ROUTE.replace("weight: 1", "wait: 1"), "a field that is not one"),
        (ROUTE.replace("weight: 1", "weight: -1"), "a value that does not fit"),
        (ROUTE.replace("weight: 1}", "weight: 1"), "no YAML at all"),
        (ROUTE.replace("kind: HTTPRoute", "kind: HTTPRout"), "a kind that is not one"),
        (ROUTE.replace("metadata: {name: r}", "metadata: {}"), "no name"),
        (ROUTE[..40].to_owned(), "half a file"),
    ] {
        let after = store.update(&files([("a.yaml", &services), ("r.yaml", &broken)]));
        assert_eq!(names(&after), ["Service default/a", "HTTPRoute default/r"], "{why}");
        assert!(after.changes_since(&good).is_empty(), "{why}");
        let found = after.findings();
        assert!(found.iter().any(|f| f.starts_with("r.yaml:") && !f.contains("note:")), "{why}: {found:#?}");
        assert!(found.iter().any(|f| f.contains("stays in force")), "{why}: {found:#?}");
    }
    let mended =
        store.update(&files([("a.yaml", &services), ("r.yaml", &ROUTE.replace("weight: 1", "weight: 2"))]));
    assert_eq!(mended.findings(), [""; 0]);
    assert!(!mended.changes_since(&good).is_empty());
    let gone = store.update(&files([("a.yaml", &services)]));
    assert_eq!(names(&gone), ["Service default/a"], "a file that is gone takes its objects along");
}

#[test]
fn a_new_object_that_is_broken_is_left_out_and_nothing_else() {
    let mut store = Store::new();
    let broken = ROUTE.replace("weight: 1", "wait: 1");
    let both = format!("{}{broken}", services(&["default/a"]));
    let registry = store.update(&files([("a.yaml", &both)]));
    assert_eq!(names(&registry), ["Service default/a"]);
    assert_eq!(registry.findings().len(), 1);
}

#[test]
fn a_document_that_is_taken_out_is_gone_while_a_broken_neighbour_keeps_its_last_version() {
    let mut store = Store::new();
    let two = services(&["default/a", "default/b"]);
    store.update(&files([("a.yaml", &format!("{two}{ROUTE}"))]));
    let one = services(&["default/a"]);
    let registry = store.update(&files([("a.yaml", &format!("{one}{}", ROUTE.replace("weight", "wait")))]));
    assert_eq!(names(&registry), ["Service default/a", "HTTPRoute default/r"]);
}

#[test]
fn an_object_that_moves_and_breaks_keeps_its_last_version() {
    let mut store = Store::new();
    let services = services(&["default/a"]);
    store.update(&files([("a.yaml", &services), ("r.yaml", ROUTE)]));
    let broken = ROUTE.replace("weight", "wait");
    let moved = store.update(&files([("a.yaml", &services), ("routes.yaml", &broken)]));
    assert_eq!(names(&moved), ["Service default/a", "HTTPRoute default/r"]);
    // And stays, for as long as it is broken there.
    let later = store.update(&files([("a.yaml", &services), ("routes.yaml", &(broken + "# still\n"))]));
    assert_eq!(names(&later), ["Service default/a", "HTTPRoute default/r"]);
}

#[test]
fn the_first_of_two_objects_with_one_name_is_used() {
    let mut store = Store::new();
    let services = services(&["default/a"]);
    let other = ROUTE.replace("weight: 1", "weight: 7");
    let registry = store.update(&files([("a.yaml", &services), ("b.yaml", ROUTE), ("c.yaml", &other)]));
    assert_eq!(
        registry.findings(),
        [
            "c.yaml:3:18: metadata.name: HTTPRoute default/r is already defined at b.yaml:3; this one is not used"
        ]
    );
    let alone = store.update(&files([("a.yaml", &services), ("c.yaml", &other)]));
    assert_eq!(alone.findings(), [""; 0]);
    assert!(!alone.changes_since(&registry).is_empty(), "now the other one holds");
}

#[test]
fn what_cannot_be_seen_is_not_gone() {
    let services = services(&["default/a"]);
    let both = files([("mesh/a.yaml", &services), ("mesh/r.yaml", ROUTE)]);
    for (hidden, why) in [
        ("mesh", "a directory that is being replaced, or whose rights changed"),
        ("mesh/r.yaml", "a file that cannot be read"),
        (crate::source::LIMIT, "too many files"),
    ] {
        let mut store = Store::new();
        store.update(&both);
        let mut files = if hidden == "mesh" { Files::default() } else { files([("mesh/a.yaml", &services)]) };
        files.insert(hidden, Content::Unreadable("Permission denied".into()));
        let registry = store.update(&files);
        assert_eq!(names(&registry), ["Service default/a", "HTTPRoute default/r"], "{why}");
        assert!(registry.findings().iter().any(|f| f == &format!("{hidden}: Permission denied")), "{why}");
    }
}

#[test]
fn nothing_changed_is_the_same_registry() {
    let mut store = Store::new();
    let files = files([("r.yaml", ROUTE)]);
    let first = store.update(&files);
    assert!(Arc::ptr_eq(&first, &store.update(&files)));
}
