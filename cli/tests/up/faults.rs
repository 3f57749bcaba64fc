//! The experiments of Bookinfo, on the example itself: what one user sees while everybody else sees nothing.

use std::fs;

use nix::sys::signal::Signal;

use crate::bookinfo::send_reviews_to;
use crate::support::{Mesh, curl, send_signal};

fn experiment(mesh: &Mesh, fault: &str) {
    let policy = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: ratings}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: ratings}}]\n  fault:\n    faults:\n    \
         - name: jason\n      match: [{{headers: [{{name: end-user, value: jason}}]}}]\n      {fault}\n"
    );
    let (path, new) = (mesh.manifests.join("fault.yaml"), mesh.manifests.join(".fault"));
    fs::write(&new, policy).expect("it can be written");
    fs::rename(new, path).expect("it can be replaced");
}

/// What the page says of the reviews to a user who is logged in, or to nobody in particular.
fn page(mesh: &Mesh, user: Option<&str>) -> String {
    let (url, cookie) =
        (format!("http://{}/productpage", mesh.gateway()), user.map(|user| format!("session={user}")));
    let mut arguments = vec![&*url];
    if let Some(cookie) = &cookie {
        arguments.extend(["--cookie", cookie]);
    }
    let (status, page) = curl(&arguments);
    assert_eq!(status, 200, "{page}");
    page
}

const NO_REVIEWS: &str = "product reviews are currently unavailable";
const NO_RATINGS: &str = "ratings service is currently unavailable";

fn all_is_well(mesh: &Mesh, user: Option<&str>) -> bool {
    let page = page(mesh, user);
    page.contains("Reviewer1") && !page.contains("unavailable")
}

fn says(mesh: &Mesh, command: &[&str]) -> String {
    let output = mesh.outrigger(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn one_user_meets_slow_and_failing_ratings_until_it_is_over() {
    let mesh = Mesh::of_example("bookinfo");
    send_reviews_to(&mesh, "reviews-v2");
    mesh.await_that("reviews with ratings answer", || page(&mesh, None).contains("reviews-v2"));
    assert!(all_is_well(&mesh, Some("jason")));

    // Longer than the page waits for reviews, which wait for ratings.
    experiment(&mesh, "delay: {fixed: 7s}");
    mesh.await_that("the reviews are gone for jason", || page(&mesh, Some("jason")).contains(NO_REVIEWS));
    for user in [None, Some("mary")] {
        assert!(all_is_well(&mesh, user), "{user:?}");
    }
    let listed = says(&mesh, &["fault", "list"]);
    assert!(listed.contains("default/ratings") && listed.contains("default/reviews-v2-0"), "{listed}");
    assert!(listed.contains("delay"), "{listed}");

    for status in [500, 555] {
        experiment(&mesh, &format!("abort: {{httpStatus: {status}}}"));
        let code = format!("code=\"{status}\"");
        let counted =
            || mesh.metric("reviews-v2-0", "outrigger_requests_total", &[&code, "reason=\"fault_abort\""]);
        mesh.await_that("the ratings are gone for jason", || {
            page(&mesh, Some("jason")).contains(NO_RATINGS) && counted() > 0.0
        });
        assert!(all_is_well(&mesh, None));
    }
    fs::remove_file(mesh.manifests.join("fault.yaml")).expect("it is there");
    mesh.await_that("it is over with its file", || all_is_well(&mesh, Some("jason")));

    experiment(&mesh, "abort: {httpStatus: 500}");
    mesh.await_that("it begins again with its file", || page(&mesh, Some("jason")).contains(NO_RATINGS));
    assert!(
        says(&mesh, &["status"]).contains("TrafficPolicy default/ratings: makes calls go wrong on purpose")
    );
    assert_eq!(says(&mesh, &["fault", "stop"]).trim(), "stopped default/ratings");
    mesh.await_that("it is stopped", || all_is_well(&mesh, Some("jason")));
    assert!(says(&mesh, &["status"]).contains("TrafficPolicy default/ratings: was stopped"));
    assert_eq!(says(&mesh, &["fault", "stop"]).trim(), "nothing to stop");

    // The next control plane knows it, too.
    let before = mesh.control_pid();
    send_signal(before, Signal::SIGKILL);
    mesh.await_that("another control plane", || {
        let status = mesh.outrigger(&["status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        mesh.control()["pid"].as_i64().is_some_and(|pid| pid as i32 != before)
            && text.contains("TrafficPolicy default/ratings: was stopped")
    });
    for _ in 0..5 {
        assert!(all_is_well(&mesh, Some("jason")));
    }
    experiment(&mesh, "abort: {httpStatus: 501}");
    mesh.await_that("another experiment begins", || page(&mesh, Some("jason")).contains(NO_RATINGS));
}
