//! One pod gets its sidecar.

use std::time::Duration;

use outrigger_config::manifest::path::FieldPath;
use serde_json::{Value, json};

use super::annotations::{INJECT, Tuning};
use super::probes::{self, PortName, Rewritten};
use super::record::{GRACE_PERIOD, Grace, RECORD, Record};
use super::shape::{self, Object};
use super::sidecar::{self, CAPTURE_CONTAINER, Drain, MESHED_LABEL, PORTS, PROXY_CONTAINER, PROXY_UID};
use super::{Refused, Report, Settings};

/// Kubernetes' own.
const DEFAULT_GRACE_SECONDS: u64 = 30;
const DEFAULT_DRAIN_WINDOW: Duration = Duration::from_secs(5);

/// Changes a pod that has no sidecar. After an error it may be half changed.
pub fn inject(template: &mut Object, settings: &Settings, report: &mut Report) -> Result<(), Refused> {
    let root = FieldPath::root();
    let spec_at = root.key("spec");
    let tuning = Tuning::read(template, report)?;
    if !tuning.inject {
        return Ok(());
    }
    let Some(spec) = shape::object(template, &root, "spec", report)? else {
        return Err(report.error(&spec_at, "is required in a pod, and missing"));
    };
    refuse(spec, &spec_at, report)?;
    warn(spec, &spec_at, report)?;
    let has_scrape = shape::object(template, &root, "metadata", report)?
        .and_then(|metadata| metadata.get("annotations")?.as_object())
        .is_some_and(|annotations| annotations.keys().any(|key| key.starts_with("prometheus.io/")));

    let spec = shape::object_mut(template, "spec");
    let rewritten = rewrite_probes(spec, &spec_at, report)?;
    let (drain, grace, delayed) = plan_the_end(spec, &spec_at, &tuning, report)?;
    let before_others =
        [sidecar::capture(settings, &tuning), sidecar::proxy(settings, &tuning, drain, &rewritten)];
    shape::list_mut(spec, "initContainers").splice(0..0, before_others);
    shape::list_mut(spec, "volumes").extend(sidecar::volumes(settings));

    let port_names = rewritten.into_iter().filter_map(|probe| {
        let port = probe.port_name?;
        Some(PortName { path: probe.path, port })
    });
    let record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        grace,
        delayed,
        port_names: port_names.collect(),
        scraped: !has_scrape,
    };
    let metadata = shape::object_mut(template, "metadata");
    shape::object_mut(metadata, "labels").insert(MESHED_LABEL.to_owned(), "true".into());
    let annotations = shape::object_mut(metadata, "annotations");
    if record.scraped {
        let ours = sidecar::scrape_annotations();
        annotations.extend(ours.map(|(key, value)| (key.to_owned(), value.into())));
    }
    let record = serde_json::to_string(&record).expect("a record holds texts and numbers");
    annotations.insert(RECORD.to_owned(), record.into());
    Ok(())
}

/// Pods that cannot have a sidecar, or in which something else has its names.
fn refuse(spec: &Object, at: &FieldPath, report: &mut Report) -> Result<(), Refused> {
    if shape::boolean(spec, at, "hostNetwork", report)? {
        let message = format!(
            "a pod in the host's network cannot be in the mesh: redirecting its traffic would redirect the host's; \
             keep the sidecar out with the annotation {INJECT}: \"false\""
        );
        return Err(report.error(&at.key("hostNetwork"), message));
    }
    if let Some(os) = shape::object(spec, at, "os", report)?
        && let Some(name) = shape::text(os, &at.key("os"), "name", report)?
        && name != "linux"
    {
        let message =
            format!("the sidecar runs on linux alone; keep it out with the annotation {INJECT}: \"false\"");
        return Err(report.error(&at.key("os").key("name"), message));
    }
    if shape::objects(spec, at, "containers", report)?.is_empty() {
        return Err(report.error(&at.key("containers"), "a pod has at least one container"));
    }
    let mut result = Ok(());
    for (key, names) in [
        ("containers", &[PROXY_CONTAINER, CAPTURE_CONTAINER][..]),
        ("initContainers", &[PROXY_CONTAINER, CAPTURE_CONTAINER]),
        ("volumes", &sidecar::VOLUMES),
    ] {
        for (index, item) in shape::objects(spec, at, key, report)?.into_iter().enumerate() {
            let item_at = at.key(key).index(index);
            match shape::text(item, &item_at, "name", report)? {
                Some(name) if names.contains(&name) => {
                    let message = format!(
                        "{name:?} is a name injection needs, and this was not made by one: {RECORD} is missing"
                    );
                    result = Err(report.error(&item_at.key("name"), message));
                }
                Some(_) => {}
                None => result = Err(report.error(&item_at.key("name"), "is required, and missing")),
            }
        }
    }
    result
}

/// What is possible and does not do what it may seem to.
fn warn(spec: &Object, at: &FieldPath, report: &mut Report) -> Result<(), Refused> {
    let mut users = vec![(spec, at.clone())];
    for key in ["initContainers", "containers"] {
        for (index, container) in shape::objects(spec, at, key, report)?.into_iter().enumerate() {
            let container_at = at.key(key).index(index);
            users.push((container, container_at.clone()));
            hooks(container, &container_at, report)?;
            for (index, port) in
                shape::objects(container, &container_at, "ports", report)?.into_iter().enumerate()
            {
                let port_at = container_at.key("ports").index(index);
                let number = shape::number(port, &port_at, "containerPort", report)?;
                if let Some(number) =
                    number.filter(|number| PORTS.iter().any(|ours| u64::from(*ours) == *number))
                {
                    let message =
                        format!("the sidecar has port {number} in this pod; the app cannot be reached there");
                    report.warn(&port_at.key("containerPort"), message);
                }
            }
        }
    }
    for (holder, holder_at) in users {
        let Some(context) = shape::object(holder, &holder_at, "securityContext", report)? else { continue };
        let context_at = holder_at.key("securityContext");
        if shape::number(context, &context_at, "runAsUser", report)? == Some(PROXY_UID.into()) {
            let message = format!(
                "{PROXY_UID} is the proxy's own user: what runs as it bypasses the mesh with all it sends"
            );
            report.warn(&context_at.key("runAsUser"), message);
        }
    }
    Ok(())
}

/// A hook that is a call comes from outside, as a probe does, and cannot be led through the proxy (`probes`).
fn hooks(container: &Object, at: &FieldPath, report: &mut Report) -> Result<(), Refused> {
    let Some(lifecycle) = shape::object(container, at, "lifecycle", report)? else { return Ok(()) };
    let lifecycle_at = at.key("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = shape::object(lifecycle, &lifecycle_at, key, report)?;
        if hook.is_some_and(|hook| hook.get("httpGet").is_some_and(|call| !call.is_null())) {
            let message =
                "comes from outside the mesh: a workload that is Strict refuses it; use exec instead";
            report.warn(&lifecycle_at.key(key).key("httpGet"), message);
        }
    }
    Ok(())
}

fn rewrite_probes(spec: &mut Object, at: &FieldPath, report: &mut Report) -> Result<Vec<Rewritten>, Refused> {
    let mut all = Vec::new();
    for key in ["initContainers", "containers"] {
        let list = spec.get_mut(key).and_then(Value::as_array_mut).map_or(&mut [][..], Vec::as_mut_slice);
        for (index, container) in list.iter_mut().enumerate() {
            let Value::Object(container) = container else { continue };
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            all.extend(probes::rewrite(container, &name, &at.key(key).index(index), report)?);
        }
    }
    Ok(all)
}

/// One deadline, from the pod's own grace period. Callers need the window to hear that the pod leaves, so the app is told to stop only
/// after it, and gets that time on top of what it had. A pod that runs to an end has no callers to wait for.
fn plan_the_end(
    spec: &mut Object,
    at: &FieldPath,
    tuning: &Tuning,
    report: &mut Report,
) -> Result<(Drain, Option<Grace>, Vec<String>), Refused> {
    let was = shape::number(spec, at, GRACE_PERIOD, report)?;
    let runs_to_an_end =
        matches!(shape::text(spec, at, "restartPolicy", report)?, Some("Never" | "OnFailure"));
    let default = if runs_to_an_end { Duration::ZERO } else { DEFAULT_DRAIN_WINDOW };
    let mut window = tuning.drain_window.unwrap_or(default);
    let seconds = was.unwrap_or(DEFAULT_GRACE_SECONDS);
    if seconds == 0 {
        // Killed at once by the user's own wish.
        window = Duration::ZERO;
    }
    let mut delayed = Vec::new();
    if !window.is_zero() {
        for (index, container) in shape::objects(spec, at, "containers", report)?.into_iter().enumerate() {
            let container_at = at.key("containers").index(index);
            let lifecycle = shape::object(container, &container_at, "lifecycle", report)?;
            let own =
                lifecycle.and_then(|lifecycle| lifecycle.get("preStop")).is_some_and(|hook| !hook.is_null());
            if !own {
                delayed.extend(shape::text(container, &container_at, "name", report)?.map(str::to_owned));
            }
        }
    }
    for name in &delayed {
        let container = shape::container_mut(spec, name).expect("it was there just now");
        let hook = json!({"sleep": {"seconds": window.as_secs()}});
        shape::object_mut(container, "lifecycle").insert("preStop".to_owned(), hook);
    }
    let mut grace = None;
    let mut total = seconds;
    if !delayed.is_empty() {
        total = seconds.saturating_add(window.as_secs());
        spec.insert(GRACE_PERIOD.to_owned(), total.into());
        grace = Some(Grace { was, now: total });
    }
    Ok((Drain { window, deadline: Duration::from_secs(deadline(total)) }, grace, delayed))
}

/// Seconds the proxy may take, of the `total` the pod has: something is left for what comes after.
fn deadline(total: u64) -> u64 {
    // The proxy takes a day at most.
    (total - (total / 6).clamp(1, 5).min(total)).clamp(1, 86_400)
}
