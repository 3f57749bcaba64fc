//! What becomes of a pod, and that nothing is lost on the way there and back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn settings() -> Settings {
    Settings {
        proxy_image: "outrigger-proxy:1".to_owned(),
        capture_image: "outrigger:1".to_owned(),
        control: vec!["control:15012".to_owned()],
        roots: "roots".to_owned(),
    }
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn annotated(annotations: Value) -> Value {
    let mut pod = pod(json!({"containers": [{"name": "app"}]}));
    pod["metadata"]["annotations"] = annotations;
    pod
}

/// The injected pod; nothing was to be said about it.
fn injected(object: &Value) -> Value {
    let outcome = inject(object, &settings());
    assert_eq!(outcome.findings, [], "{object:#}");
    outcome.object
}

/// Severity, field and message of each finding, where they begin.
fn says(object: &Value) -> Vec<String> {
    let outcome = inject(object, &settings());
    let line = |found: &Finding| format!("{}: {}: {}", found.severity, found.field, found.message);
    outcome.findings.iter().map(line).collect()
}

fn container<'v>(pod: &'v Value, list: &str, name: &str) -> &'v Value {
    let list = pod["spec"][list].as_array().expect("a list");
    list.iter().find(|container| container["name"] == name).expect("a container of this name")
}

fn proxy(pod: &Value) -> &Value {
    container(pod, "initContainers", PROXY_CONTAINER)
}

fn args(container: &Value) -> Vec<&str> {
    container["args"].as_array().expect("arguments").iter().map(|arg| arg.as_str().expect("text")).collect()
}

fn calls(pod: &Value) -> Value {
    let env = proxy(pod)["env"].as_array().expect("variables");
    let variable = env.iter().find(|variable| variable["name"] == PROBES_ENV);
    let value = variable.map(|variable| variable["value"].as_str().expect("a text"));
    value.map_or(json!({}), |value| Value::Object(probes::read_handed(value).expect("JSON")))
}

#[test]
fn the_sidecar_stands_before_the_pods_own_init_containers() {
    let before = pod(json!({"containers": [{"name": "app"}], "initContainers": [{"name": "wait"}]}));
    let after = injected(&before);
    let list = after["spec"]["initContainers"].as_array().expect("a list");
    let names: Vec<_> = list.iter().map(|container| container["name"].as_str().expect("a name")).collect();
    assert_eq!(names, [CAPTURE_CONTAINER, PROXY_CONTAINER, "wait"]);
    assert_eq!(list[1]["restartPolicy"], "Always");
    assert_eq!(list[0].get("restartPolicy"), None);
    assert_eq!(after["metadata"]["labels"][MESHED_LABEL], "true");
}

#[test]
fn only_the_capture_container_has_a_capability() {
    let after = injected(&pod(json!({"containers": [{"name": "app"}]})));
    let capture = container(&after, "initContainers", CAPTURE_CONTAINER);
    assert_eq!(capture["securityContext"]["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    let context = &proxy(&after)["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["runAsUser"], 1337);
    for (flag, value) in
        [("runAsNonRoot", true), ("readOnlyRootFilesystem", true), ("allowPrivilegeEscalation", false)]
    {
        assert_eq!(context[flag], value, "{flag}");
    }
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn probes_of_every_kind_and_container_lead_through_the_proxy() {
    let before = pod(json!({
        "initContainers": [{"name": "log", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 24224}}}],
        "containers": [
            {
                "name": "app",
                "ports": [{"name": "web", "containerPort": 8443}],
                "readinessProbe": {"httpGet": {"scheme": "HTTPS", "path": "/r", "port": "web"}, "timeoutSeconds": 7},
                "livenessProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
            },
            {"name": "rpc", "livenessProbe": {"grpc": {"port": 9000, "service": "s"}, "periodSeconds": 3}},
        ],
    }));
    let after = injected(&before);
    assert_eq!(
        calls(&after),
        json!({
            "/app-health/log/startupz": {"tcpSocket": {"port": 24224}, "timeoutSeconds": 1},
            "/app-health/app/readyz": {"httpGet": {"scheme": "HTTPS", "path": "/r", "port": 8443}, "timeoutSeconds": 7},
            "/app-health/rpc/livez": {"grpc": {"port": 9000, "service": "s"}, "timeoutSeconds": 1},
        })
    );
    let app = container(&after, "containers", "app");
    let asked = |word: &str| json!({"path": format!("/app-health/{word}"), "port": 15020});
    assert_eq!(app["readinessProbe"], json!({"httpGet": asked("app/readyz"), "timeoutSeconds": 7}));
    assert_eq!(app["livenessProbe"], before["spec"]["containers"][0]["livenessProbe"]);
    let rpc = container(&after, "containers", "rpc");
    assert_eq!(rpc["livenessProbe"], json!({"httpGet": asked("rpc/livez"), "periodSeconds": 3}));
}

#[test]
fn a_hook_that_is_a_call_stays_and_is_warned_of() {
    let before =
        pod(json!({"containers": [{"name": "app", "lifecycle": {"preStop": {"httpGet": {"port": 1}}}}]}));
    let outcome = inject(&before, &settings());
    assert!(!outcome.has_errors());
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].field.to_string(), "spec.containers[0].lifecycle.preStop.httpGet");
    assert_eq!(outcome.object["spec"]["containers"], before["spec"]["containers"]);
}

#[test]
fn a_probe_of_somebody_else_stays() {
    let before = pod(json!({
        "containers": [{"name": "app", "livenessProbe": {"httpGet": {"host": "example.org", "port": 80}}}],
    }));
    let outcome = inject(&before, &settings());
    assert!(!outcome.has_errors());
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].field.to_string(), "spec.containers[0].livenessProbe.httpGet.host");
    assert_eq!(calls(&outcome.object), json!({}));
}

/// Grace and window that come in; grace, window and deadline that come out, and whether the app's stop waits for the window.
#[test]
fn one_deadline_follows_from_the_grace_period() {
    for (spec, window, want) in [
        (json!({}), None, (json!(35), "5s", "30s", true)),
        (json!({"terminationGracePeriodSeconds": 120}), None, (json!(125), "5s", "120s", true)),
        (json!({"terminationGracePeriodSeconds": 4}), Some("3s"), (json!(7), "3s", "6s", true)),
        (json!({}), Some("0s"), (Value::Null, "0s", "25s", false)),
        (json!({"restartPolicy": "Never"}), None, (Value::Null, "0s", "25s", false)),
        (json!({"restartPolicy": "OnFailure"}), Some("10s"), (json!(40), "10s", "35s", true)),
        (json!({"terminationGracePeriodSeconds": 0}), None, (json!(0), "0s", "1s", false)),
        (json!({"terminationGracePeriodSeconds": 1}), None, (json!(6), "5s", "5s", true)),
    ] {
        let mut before = pod(spec.clone());
        before["spec"]["containers"] = json!([{"name": "app"}]);
        if let Some(window) = window {
            before["metadata"]["annotations"] = json!({"outrigger.dev/drain-window": window});
        }
        let after = injected(&before);
        let given = args(proxy(&after));
        let given = |flag: &str| given.iter().find_map(|arg| arg.strip_prefix(flag)).expect("given");
        let grace = after["spec"]["terminationGracePeriodSeconds"].clone();
        let app = container(&after, "containers", "app");
        let is_delayed = app["lifecycle"]["preStop"]["sleep"]["seconds"].is_u64();
        let got = (grace, given("--drain-window="), given("--drain-deadline="), is_delayed);
        assert_eq!(got, want, "{spec}");
    }
}

#[test]
fn a_container_with_a_hook_of_its_own_decides_when_it_stops() {
    let before =
        pod(json!({"containers": [{"name": "app", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]}));
    let after = injected(&before);
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);
    assert_eq!(after["spec"].get("terminationGracePeriodSeconds"), None);
}

#[test]
fn annotations_tune_or_are_refused() {
    for (name, value, part) in [
        ("inject", "maybe", "is not \"true\" or \"false\""),
        ("log-level", "loud", "is not a level"),
        ("log-level", "info,=debug", "is not a level"),
        ("concurrency", "0", "is not a number of threads"),
        ("drain-window", "5m", "is not a duration in seconds"),
        ("drain-window", "301s", "0s to 300s"),
        ("exclude-inbound-ports", "22,0", "\"0\" is not a port"),
        ("exclude-outbound-cidrs", "10.0.0.0/33", "is not an address or a CIDR"),
        ("proxy-cpu-request", "lots", "is not a quantity"),
        ("proxy-memory-limit", "0", "is not a quantity"),
        ("proxy-memroy-limit", "1Gi", "did you mean outrigger.dev/proxy-memory-limit?"),
        ("colour", "red", "is not an annotation that is read"),
    ] {
        let name = format!("outrigger.dev/{name}");
        let before = annotated(json!({ &name: value }));
        let said = says(&before);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("error: metadata.annotations[\"{name}\"]: ")), "{said:?}");
        assert!(said[0].contains(part), "{said:?}");
        assert_eq!(inject(&before, &settings()).object, before);
    }
    assert_eq!(
        says(&annotated(json!({"outrigger.dev/concurrency": 2}))).len(),
        1,
        "only texts are annotations"
    );
}

#[test]
fn a_default_gives_way_to_a_limit_and_a_request_does_not() {
    let resources =
        |annotations| injected(&annotated(annotations))["spec"]["initContainers"][1]["resources"].clone();
    let usual = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}});
    assert_eq!(resources(json!({})), usual);
    let small =
        json!({"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"cpu": "20m", "memory": "16Mi"}});
    let limits = json!({"outrigger.dev/proxy-cpu-limit": "20m", "outrigger.dev/proxy-memory-limit": "16Mi"});
    assert_eq!(resources(limits), small);
    let large = resources(json!({"outrigger.dev/proxy-memory-request": "1Gi"}));
    assert_eq!(large["limits"]["memory"], "1Gi");
    let wrong = json!({"outrigger.dev/proxy-cpu-request": "1", "outrigger.dev/proxy-cpu-limit": "500m"});
    assert!(says(&annotated(wrong))[0].ends_with("1 is more than the limit, 500m"));
}

#[test]
fn pods_that_cannot_have_a_sidecar_are_refused_and_can_opt_out() {
    for (spec, field) in [
        (json!({"hostNetwork": true, "containers": [{"name": "a"}]}), "spec.hostNetwork"),
        (json!({"hostNetwork": "yes", "containers": [{"name": "a"}]}), "spec.hostNetwork"),
        (json!({"os": {"name": "windows"}, "containers": [{"name": "a"}]}), "spec.os.name"),
        (json!({"containers": []}), "spec.containers"),
        (json!({"containers": {"name": "a"}}), "spec.containers"),
        (json!({"containers": [{"image": "a"}]}), "spec.containers[0].name"),
        (json!({"containers": [{"name": PROXY_CONTAINER}]}), "spec.containers[0].name"),
        (
            json!({"containers": [{"name": "a"}], "volumes": [{"name": "outrigger-state"}]}),
            "spec.volumes[0].name",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"port": "web"}}}]}),
            "spec.containers[0].livenessProbe.tcpSocket.port",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {}}}]}),
            "spec.containers[0].livenessProbe.httpGet.port",
        ),
    ] {
        let mut before = pod(spec);
        let said = says(&before);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("error: {field}: ")), "{said:?}");
        assert_eq!(inject(&before, &settings()).object, before);
        before["metadata"]["annotations"] = json!({INJECT: "false"});
        assert_eq!(injected(&before), before);
    }
}

#[test]
fn the_apps_that_use_what_is_ours_are_warned_of() {
    let spec = json!({
        "securityContext": {"runAsUser": 1337},
        "containers": [{"name": "a", "ports": [{"containerPort": 15001}, {"containerPort": 80}]}],
    });
    let said = says(&pod(spec));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("warning: spec.containers[0].ports[0].containerPort: "), "{said:?}");
    assert!(said[1].starts_with("warning: spec.securityContext.runAsUser: "), "{said:?}");
}

#[test]
fn every_kind_that_makes_pods_is_known_and_no_other() {
    let template = json!({"spec": {"containers": [{"name": "a"}]}});
    let nested = json!({"template": template});
    for (api_version, kind, spec, is_ours) in [
        ("apps/v1", "Deployment", nested.clone(), true),
        ("apps/v1", "StatefulSet", nested.clone(), true),
        ("apps/v1", "DaemonSet", nested.clone(), true),
        ("apps/v1", "ReplicaSet", nested.clone(), true),
        ("v1", "ReplicationController", nested.clone(), true),
        ("batch/v1", "Job", nested.clone(), true),
        ("batch/v1", "CronJob", json!({"jobTemplate": {"spec": nested.clone()}}), true),
        ("v1", "Pod", template["spec"].clone(), true),
        ("argoproj.io/v1alpha1", "Rollout", nested.clone(), false),
        ("example.dev/v1", "Deployment", nested.clone(), false),
    ] {
        let object = json!({"apiVersion": api_version, "kind": kind, "spec": spec});
        assert_eq!(injected(&object) != object, is_ours, "{kind}");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [object]});
        assert_eq!(injected(&list) != list, is_ours, "{kind}");
        let list = json!({"apiVersion": api_version, "kind": format!("{kind}List"), "items": [object]});
        assert_eq!(injected(&list) != list, is_ours, "{kind}");
    }
    let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}});
    assert_eq!(says(&empty), ["error: spec.template: is required in a Deployment, and missing"]);
}

#[test]
fn an_annotation_in_the_wrong_place_is_pointed_out() {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {INJECT: "false"}},
        "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}},
    });
    let said = says(&object);
    assert!(said[0].ends_with("it belongs to the pod: spec.template.metadata.annotations"), "{said:?}");
}

/// As when another webhook added a container after ours had run, or a newer version runs.
#[test]
fn what_came_after_an_injection_is_taken_up_by_the_next() {
    let mut once =
        injected(&pod(json!({"containers": [{"name": "app", "livenessProbe": {"tcpSocket": {"port": 1}}}]})));
    let late = json!({"name": "late", "livenessProbe": {"tcpSocket": {"port": 2}}});
    once["spec"]["containers"].as_array_mut().expect("a list").push(late);
    let twice = injected(&once);
    let known = calls(&twice);
    assert_eq!(known.as_object().expect("an object").len(), 2, "{known}");
    let newer = Settings { proxy_image: "outrigger-proxy:2".to_owned(), ..settings() };
    assert_eq!(proxy(&inject(&twice, &newer).object)["image"], "outrigger-proxy:2");
}

#[test]
fn opting_out_takes_the_sidecar_out() {
    let before = annotated(json!({"a": "b"}));
    let mut object = injected(&before);
    object["metadata"]["annotations"][INJECT] = "false".into();
    let mut want = before;
    want["metadata"]["annotations"][INJECT] = "false".into();
    assert_eq!(injected(&object), want);
}

#[test]
fn what_was_changed_by_hand_since_stays() {
    let mut object =
        injected(&pod(json!({"containers": [{"name": "app", "livenessProbe": {"tcpSocket": {"port": 1}}}]})));
    object["spec"]["terminationGracePeriodSeconds"] = 90.into();
    object["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["x"]}});
    let back = remove(&object).object;
    assert_eq!(back["spec"]["terminationGracePeriodSeconds"], 90);
    assert_eq!(
        back["spec"]["containers"][0],
        json!({"name": "app", "livenessProbe": {"exec": {"command": ["x"]}}})
    );
    object["metadata"]["annotations"][RECORD] = "broken".into();
    assert!(says(&object)[0].contains("inject the original manifest instead"));
}

proptest! {
    #[test]
    fn there_twice_is_there_once_and_back_is_back(before in any_pod()) {
        prop_assert_eq!(&remove(&before).object, &before);
        let once = inject(&before, &settings());
        if once.has_errors() {
            // Refused as a whole.
            prop_assert_eq!(&once.object, &before);
        } else {
            prop_assert_eq!(&inject(&once.object, &settings()).object, &once.object);
            prop_assert_eq!(&remove(&once.object).object, &before);
        }
    }

    #[test]
    fn no_object_of_any_shape_is_too_odd(object in any_value()) {
        for kind in ["Pod", "Deployment", "List"] {
            let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" };
            let mut object = object.clone();
            if let Value::Object(object) = &mut object {
                object.insert("apiVersion".to_owned(), api_version.into());
                object.insert("kind".to_owned(), kind.into());
            }
            let outcome = inject(&object, &settings());
            if outcome.has_errors() {
                continue;
            }
            prop_assert_eq!(&inject(&outcome.object, &settings()).object, &outcome.object);
        }
    }
}

/// Values made of the words that injection looks for, in any arrangement.
fn any_value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "metadata",
        "annotations",
        "labels",
        "spec",
        "template",
        "containers",
        "initContainers",
        "volumes",
        "name",
        "ports",
        "containerPort",
        "livenessProbe",
        "httpGet",
        "port",
        "path",
        "lifecycle",
        "preStop",
        "items",
        "securityContext",
        "runAsUser",
        "hostNetwork",
        RECORD,
        INJECT,
        PROXY_CONTAINER,
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        words.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((words.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// A pod as people write them; now and then with a port name that does not exist.
fn any_pod() -> impl Strategy<Value = Value> {
    let annotations = prop::sample::subsequence(
        vec![
            ("outrigger.dev/inject", "false"),
            ("outrigger.dev/drain-window", "7s"),
            ("outrigger.dev/concurrency", "1"),
            ("outrigger.dev/exclude-inbound-ports", "22"),
            ("prometheus.io/scrape", "true"),
            ("example.dev/a", "b"),
        ],
        0..4,
    );
    let containers = |most| prop::collection::vec(any_container(), 0..most);
    let grace = prop::option::of(prop::sample::select(vec![0u64, 1, 10, 30, 300]));
    let policy = prop::option::of(prop::sample::select(vec!["Always", "Never", "OnFailure"]));
    let pods = (annotations, containers(3), containers(3), grace, policy, any::<bool>(), any::<bool>());
    pods.prop_map(move |(annotations, inits, mut others, grace, policy, has_volume, has_label)| {
        others.push(json!({"image": "last"}));
        let mut spec = Map::new();
        if !inits.is_empty() {
            spec.insert("initContainers".to_owned(), named("i", inits));
        }
        spec.insert("containers".to_owned(), named("c", others));
        if has_volume {
            spec.insert("volumes".to_owned(), json!([{"name": "v", "emptyDir": {}}]));
        }
        spec.extend(grace.map(|grace| ("terminationGracePeriodSeconds".to_owned(), grace.into())));
        spec.extend(policy.map(|policy| ("restartPolicy".to_owned(), policy.into())));
        let mut metadata = Map::new();
        if has_label {
            metadata.insert("labels".to_owned(), json!({"app": "a"}));
        }
        if !annotations.is_empty() {
            let all = annotations.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
            metadata.insert("annotations".to_owned(), Value::Object(all.collect()));
        }
        let mut template = Map::new();
        if !metadata.is_empty() {
            template.insert("metadata".to_owned(), Value::Object(metadata));
        }
        template.insert("spec".to_owned(), Value::Object(spec));
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": template}})
    })
}

fn named(prefix: &str, containers: Vec<Value>) -> Value {
    let containers = containers.into_iter().enumerate().map(|(index, mut container)| {
        container["name"] = format!("{prefix}{index}").into();
        container
    });
    containers.collect()
}

fn any_container() -> impl Strategy<Value = Value> {
    let port = || {
        prop_oneof![
            8 => (1u16..=65535).prop_map(Value::from),
            4 => Just(Value::from("web")),
            1 => Just(Value::from("none")),
        ]
    };
    let call = || {
        (port(), 0..5u8).prop_map(|(port, kind)| match kind {
            0 => json!({"exec": {"command": ["x"]}}),
            1 => json!({"tcpSocket": {"port": port}}),
            2 => json!({"grpc": {"port": 9000, "service": "a.B"}}),
            3 => json!({"httpGet": {"port": port, "host": "other.example"}}),
            _ => json!({"httpGet": {"port": port, "path": "/$(A)/$$", "httpHeaders": [{"name": "A", "value": "$"}]}}),
        })
    };
    let slots = ["startupProbe", "readinessProbe", "livenessProbe"];
    let probes = prop::collection::vec(prop::option::of((call(), prop::option::of(1u64..60))), 3);
    let hooks = prop::collection::vec(prop::option::of(call()), 2);
    (probes, hooks).prop_map(move |(probes, hooks)| {
        let mut container = json!({"image": "x", "ports": [{"name": "web", "containerPort": 8080}]});
        for (slot, probe) in slots.iter().zip(probes) {
            let Some((mut probe, timeout)) = probe else { continue };
            if let Some(timeout) = timeout {
                probe["timeoutSeconds"] = timeout.into();
            }
            container[*slot] = probe;
        }
        for (slot, hook) in ["postStart", "preStop"].iter().zip(hooks) {
            if let Some(hook) = hook {
                container["lifecycle"][*slot] = hook;
            }
        }
        container
    })
}
