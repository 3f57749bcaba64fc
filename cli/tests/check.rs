//! `outrigger check` and `outrigger schema`, as a shell sees them.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

fn outrigger() -> Command {
    Command::cargo_bin("outrigger").unwrap()
}

/// Exit code, standard output and standard error.
fn run(directory: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let output = outrigger().current_dir(directory).args(args).write_stdin(input).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{port: 9080}], selector: {app: reviews}}\n";
const BROKEN: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: ratings}\nspec: {ports: [{prot: 9080}]}\n";

#[test]
fn findings_are_listed_by_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::create_dir(at.join("mesh")).unwrap();
    fs::write(at.join("mesh/b.yaml"), GOOD).unwrap();
    let note = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    fs::write(at.join("mesh/a.yaml"), format!("{note}---\n{BROKEN}")).unwrap();
    fs::write(at.join("mesh/c.yaml"), b"a: \xff").unwrap();

    let (code, out, _) = run(at, &["check", "mesh"], "");
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "mesh/a.yaml:8:17: spec.ports[0].prot: unknown field; did you mean `port`?\n\
         mesh/c.yaml: not UTF-8 at byte 3\n\
         1 object in 3 files: 2 errors (1 note; --notes lists them)\n"
    );
    let (_, out, _) = run(at, &["check", "--notes", "mesh/a.yaml"], "");
    assert!(out.starts_with("mesh/a.yaml:2:7: note: Deployment is not read by the mesh\n"), "{out}");

    let (code, out, _) = run(at, &["check", "mesh/b.yaml"], "");
    assert_eq!((code, &*out), (0, "1 object in 1 file: no problems\n"));
}

#[test]
fn findings_can_be_read_by_programs() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, _) = run(directory.path(), &["check", "-", "-o", "json"], BROKEN);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["errors"]), (1, &1.into()));
    let found = &report["diagnostics"][0];
    let place = (&found["file"], &found["line"], &found["column"]);
    assert_eq!(place, (&"(stdin)".into(), &4.into(), &17.into()));
    assert_eq!(found["object"], "Service default/ratings");
    assert_eq!(found["field"], "spec.ports[0].prot");

    let (_, out, _) = run(directory.path(), &["check", "-", "-o", "yaml"], GOOD);
    assert!(out.contains("errors: 0") && out.contains("objects: 1"), "{out}");
}

#[test]
fn references_are_looked_for_in_all_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  parentRefs: \
                 [{group: \"\", kind: Service, name: reviews}]\n  rules: [{backendRefs: [{name: reviews, port: 9080}]}]\n";
    fs::write(at.join("route.yaml"), route).unwrap();
    fs::write(at.join("service.yaml"), GOOD).unwrap();
    let (code, out, _) = run(at, &["check", "route.yaml"], "");
    let places: Vec<&str> = out.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!((code, places[0]), (1, "spec.parentRefs[0].name"), "{out}");
    assert!(out.starts_with("route.yaml:5:"), "{out}");
    let (code, out, _) = run(at, &["check", "route.yaml", "service.yaml"], "");
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_path_without_manifests_is_misuse() {
    let directory = tempfile::tempdir().unwrap();
    for args in [&["check"][..], &["check", "nowhere"], &["check", "."], &["check", ".", "-o", "xml"]] {
        let (code, out, said) = run(directory.path(), args, "");
        assert_eq!((code, &*out), (2, ""), "{args:?}");
        assert!(!said.is_empty(), "{args:?}");
    }
}

#[test]
fn a_schema_is_printed_for_every_kind_that_is_listed() {
    let directory = tempfile::tempdir().unwrap();
    let (code, kinds, _) = run(directory.path(), &["schema"], "");
    assert_eq!((code, kinds.lines().count()), (0, 13));
    for line in kinds.lines() {
        let kind = line.split_whitespace().next().unwrap();
        let (code, out, _) = run(directory.path(), &["schema", &kind.to_lowercase()], "");
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &schema["title"]), (0, &kind.into()));
    }
    let (code, _, said) = run(directory.path(), &["schema", "Sevice"], "");
    assert_eq!(code, 2);
    assert_eq!(said, "outrigger: \"Sevice\" is not a kind of manifest; did you mean Service?\n");
}
