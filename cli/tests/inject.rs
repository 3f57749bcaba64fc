//! `outrigger inject`, as a shell sees it: recorded outputs, and what Kubernetes' own types make of them.
//!
//! `OUTRIGGER_BLESS=1 cargo test -p outrigger --test inject` records the outputs anew.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Exit code, standard output and standard error.
fn inject(args: &[&str], input: &str) -> (i32, String, String) {
    let output =
        Command::cargo_bin("outrigger").unwrap().arg("inject").args(args).write_stdin(input).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn injected(input: &str) -> String {
    let (code, out, err) = inject(&["-f", "-"], input);
    assert_eq!((code, &*err), (0, ""), "{input}");
    out
}

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(name)
}

fn compare(name: &str, got: &str) {
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        return fs::write(recorded(name), got).unwrap();
    }
    let want = fs::read_to_string(recorded(name)).unwrap();
    assert!(got == want, "{name} differs; got:\n{got}");
}

const INPUTS: [&str; 5] = ["statefulset.yaml", "jobs.yaml", "list.yaml", "list.json", "tuned.yaml"];

fn input(name: &str) -> String {
    fs::read_to_string(recorded(name)).unwrap()
}

const BOOKINFO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/bookinfo");

fn bookinfo() -> String {
    let (services, rest) = (format!("{BOOKINFO}/services.yaml"), format!("{BOOKINFO}/kubernetes"));
    let (code, out, err) = inject(&["-f", &services, "-f", &rest], "");
    assert_eq!((code, &*err), (0, ""));
    out
}

#[test]
fn outputs_are_as_recorded() {
    for name in INPUTS {
        let (stem, extension) = name.rsplit_once('.').unwrap();
        compare(&format!("{stem}.injected.{extension}"), &injected(&input(name)));
    }
    compare("bookinfo.injected.yaml", &bookinfo());
}

#[test]
fn a_second_pass_changes_nothing_and_the_way_back_leads_to_what_was() {
    let bookinfo = [
        ("services.yaml", ""),
        ("kubernetes/accounts.yaml", "---\n"),
        ("kubernetes/deployments.yaml", "---\n"),
    ];
    let bookinfo: String = bookinfo
        .map(|(name, marker)| {
            format!("{marker}{}", fs::read_to_string(format!("{BOOKINFO}/{name}")).unwrap())
        })
        .concat();
    for before in INPUTS.map(input).into_iter().chain([bookinfo]) {
        let once = injected(&before);
        assert_eq!(injected(&once), once);
        let (code, back, err) = inject(&["--remove", "-f", "-"], &once);
        assert_eq!((code, &*err), (0, ""));
        assert_eq!(read(&back), read(&before));
    }
}

#[test]
fn what_gets_no_sidecar_comes_out_byte_for_byte() {
    let text = input("untouched.yaml");
    assert_eq!(injected(&text), text);
    for odd in ["\u{feff}a: 1", "", "# only a comment", "a: 1\r\n---\r\n- b\r\n", "---\n...\n", "just text\n"]
    {
        assert_eq!(injected(odd), odd);
    }
}

/// Nothing that injection writes is unknown to Kubernetes: what its own types keep of it is all of it.
#[test]
fn the_kubernetes_api_keeps_all_of_it() {
    let outputs = INPUTS.map(|name| injected(&input(name))).into_iter().chain([bookinfo()]);
    let mut sidecars = 0;
    for output in outputs {
        sidecars +=
            output.matches("\"/outrigger-proxy\"").count() + output.matches("- /outrigger-proxy\n").count();
        for document in read(&output) {
            let objects = match document["kind"].as_str() {
                Some("List") => document["items"].as_array().unwrap().clone(),
                _ => vec![document],
            };
            objects.into_iter().for_each(kept_whole);
        }
    }
    assert_eq!(sidecars, 6 + 1 + 2 + 2 + 1 + 1, "every workload but the one that opted out");
}

fn kept_whole(object: Value) {
    let kept = match object["kind"].as_str().unwrap() {
        "Pod" => through::<Pod>(&object),
        "Deployment" => through::<Deployment>(&object),
        "StatefulSet" => through::<StatefulSet>(&object),
        "DaemonSet" => through::<DaemonSet>(&object),
        "ReplicaSet" => through::<ReplicaSet>(&object),
        "Job" => through::<Job>(&object),
        "CronJob" => through::<CronJob>(&object),
        "Service" => through::<Service>(&object),
        "ServiceAccount" => through::<ServiceAccount>(&object),
        "ConfigMap" => through::<ConfigMap>(&object),
        other => panic!("{other}"),
    };
    assert_eq!(kept, object);
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
    serde_json::to_value(typed).unwrap()
}

/// As Kubernetes' tools read YAML, in which `0755` is a number and `yes` is none of our business.
fn read(text: &str) -> Vec<Value> {
    let options = serde_yaml::options! { legacy_octal_numbers: true };
    serde_yaml::from_multiple_with_options(text, options).unwrap()
}

#[test]
fn errors_name_file_line_and_field_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let text = "kind: Pod\napiVersion: v1\nmetadata:\n  annotations:\n    outrigger.dev/concurency: '2'\n\
                spec:\n  hostNetwork: true\n  containers: [{name: a}]\n---\na: [1\n";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let (code, out, err) = inject(&["-f", file], "");
    assert_eq!((code, &*out), (1, ""));
    let lines: Vec<&str> = err.lines().collect();
    let unknown = format!(
        "{file}:5:31: metadata.annotations[\"outrigger.dev/concurency\"]: is not an annotation that is read; \
         did you mean outrigger.dev/concurrency?"
    );
    assert_eq!(lines[0], unknown);
    assert!(lines[1].starts_with(&format!("{file}:10:4: ")), "{err}");

    let text = text.replace("concurency", "concurrency").replace("a: [1\n", "a: 1\n");
    let (code, out, err) = inject(&["-f", "-"], &text);
    assert_eq!((code, &*out), (1, ""));
    assert!(
        err.starts_with("(stdin):7:16: spec.hostNetwork: a pod in the host's network cannot be"),
        "{err}"
    );
    assert!(err.contains("outrigger.dev/inject"), "it says the way out: {err}");
}

#[test]
fn warnings_are_said_and_the_output_is_written() {
    let text = "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - name: a\n    ports: [{containerPort: 15006}]\n    \
                securityContext: {runAsUser: 1337}\n";
    let (code, out, err) = inject(&["-f", "-"], text);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("name: outrigger-proxy"));
    let lines: Vec<&str> = err.lines().collect();
    assert!(
        lines[0].starts_with("(stdin):6:29: warning: spec.containers[0].ports[0].containerPort: "),
        "{err}"
    );
    assert!(
        lines[1].starts_with("(stdin):7:34: warning: spec.containers[0].securityContext.runAsUser: 1337 "),
        "{err}"
    );
}

#[test]
fn nothing_to_read_is_misuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(inject(&["-f", path], "").0, 2);
    assert_eq!(inject(&["-f", &format!("{path}/missing.yaml")], "").0, 2);
    assert_eq!(inject(&[], "").0, 2);
}

#[test]
fn files_and_directories_become_one_stream() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yml"));
    fs::write(&a, "a: 1").unwrap();
    fs::write(&b, "--- # second\nb: 2\n").unwrap();
    let path = directory.path().to_str().unwrap();
    let (code, out, _) = inject(&["-f", path, "-f", a.to_str().unwrap()], "");
    assert_eq!((code, &*out), (0, "a: 1\n--- # second\nb: 2\n---\na: 1"));
}

/// The instructions of a file in deploy/, without comments; a line that goes on is one.
fn instructions(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    let text = fs::read_to_string(path).unwrap().replace("\\\n", "");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(word, rest)| (word.to_owned(), rest.to_owned()))
        .collect()
}

#[test]
fn the_sidecars_image_holds_the_proxy_and_nothing_else() {
    let instructions = instructions("Containerfile");
    let lines: Vec<_> = instructions.iter().map(|(word, rest)| (word.as_str(), rest.as_str())).collect();
    assert_eq!(
        lines,
        [
            ("FROM", "scratch"),
            ("COPY", "--chmod=0555 outrigger-proxy /outrigger-proxy"),
            ("USER", "1337:1337"),
            ("ENTRYPOINT", "[\"/outrigger-proxy\"]"),
        ]
    );
    // What injection says of the image is what is in it.
    let pod = "kind: Pod\napiVersion: v1\nspec: {containers: [{name: a}]}\n";
    let pod = read(&injected(pod)).remove(0);
    let proxy = &pod["spec"]["initContainers"][1];
    assert_eq!(proxy["securityContext"]["runAsUser"], 1337);
    assert_eq!(proxy["lifecycle"]["preStop"]["exec"]["command"][0], "/outrigger-proxy");
    assert_eq!(proxy.get("command"), None, "the entry point is the image's");
}

#[test]
fn the_other_image_holds_the_program_and_the_tools_of_the_redirection() {
    let instructions = instructions("Containerfile.outrigger");
    let of = |wanted: &str| -> Vec<&str> {
        instructions.iter().filter(|(word, _)| word == wanted).map(|(_, rest)| rest.as_str()).collect()
    };
    assert_eq!(of("COPY"), ["--chmod=0555 outrigger /usr/local/bin/outrigger"]);
    assert_eq!(of("ENTRYPOINT"), ["[\"/usr/local/bin/outrigger\"]"]);
    let user = of("USER")[0].split(':').map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert!(user.iter().all(|id| *id != 0 && *id != 1337), "neither root nor the proxy's: {user:?}");
    assert!(of("RUN")[0].contains("install --yes --no-install-recommends nftables iptables "));
    assert_eq!(of("ADD"), [""; 0]);
}

#[test]
fn the_build_script_is_one_and_makes_the_images_injection_asks_for() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/build.sh");
    let parsed = std::process::Command::new("sh").arg("-n").arg(&script).status().unwrap();
    assert!(parsed.success());
    let text = fs::read_to_string(&script).unwrap();
    let pod = read(&injected("kind: Pod\napiVersion: v1\nspec: {containers: [{name: a}]}\n")).remove(0);
    for container in pod["spec"]["initContainers"].as_array().unwrap() {
        let (name, version) = container["image"].as_str().unwrap().split_once(':').unwrap();
        assert!(text.contains(&format!("--tag \"${{prefix}}{name}:$version\"")), "{name}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
    }
    // The version as the script finds it.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let found = fs::read_to_string(manifest).unwrap();
    let first = found.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    assert_eq!(first.trim_matches('"'), env!("CARGO_PKG_VERSION"));
}

/// The script run whole, with an engine that only notes what it is asked and a cargo that builds nothing.
#[test]
fn the_build_script_gives_the_images_two_static_programs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    fs::create_dir_all(at.join("deploy")).unwrap();
    fs::create_dir_all(at.join("bin")).unwrap();
    fs::copy(deploy.join("build.sh"), at.join("deploy/build.sh")).unwrap();
    fs::write(at.join("Cargo.toml"), "[workspace.package]\nversion = \"1.2.3\"\n").unwrap();
    let program = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = at.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(
        "cargo",
        "echo \"$RUSTFLAGS $*\" > asked; mkdir -p target/t/release; \
         echo a > target/t/release/outrigger; echo b > target/t/release/outrigger-proxy",
    );
    program(
        "podman",
        "for last; do :; done; echo \"$* \" | sed \"s|$last|CONTEXT|\" >> built; ls \"$last\" >> built",
    );
    program("readelf", "echo $ELF");
    let run = |elf: &str| {
        let path = format!("{}:/usr/bin:/bin", at.join("bin").display());
        let mut command = std::process::Command::new("sh");
        command.arg(at.join("deploy/build.sh")).arg("registry.example/");
        command
            .env("PATH", path)
            .env("TARGET", "t")
            .env("ELF", elf)
            .env_remove("RUSTFLAGS")
            .env_remove("ENGINE");
        command.output().unwrap()
    };
    let output = run("");
    assert!(output.status.success(), "{output:?}");
    let asked = fs::read_to_string(at.join("asked")).unwrap();
    assert_eq!(
        asked.trim(),
        "-C target-feature=+crt-static build --locked --profile release --target t -p outrigger-proxy -p outrigger"
    );
    let built = fs::read_to_string(at.join("built")).unwrap();
    let lines: Vec<&str> = built.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "build --file deploy/Containerfile --tag registry.example/outrigger-proxy:1.2.3 CONTEXT",
            "outrigger",
            "outrigger-proxy",
            "build --file deploy/Containerfile.outrigger --tag registry.example/outrigger:1.2.3 CONTEXT",
            "outrigger",
            "outrigger-proxy",
        ]
    );
    let refused = run("INTERP");
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("outrigger-proxy is not static"));
}
