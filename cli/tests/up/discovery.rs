//! A proxy that nobody starts but its operator: discovery and certificates over TLS, by the roots and the token it is given.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::THREE;
use crate::support::{self, Mesh, OUTRIGGER, metric_at};

/// Of a workload that is the mesh's, and whose app and sidecar run elsewhere.
struct Sidecar {
    process: Child,
    address: Ipv4Addr,
}

impl Sidecar {
    fn start(mesh: &Mesh, address: Ipv4Addr, roots: &Path, token: &Path) -> Self {
        let control = mesh.control()["discovery"].as_str().expect("an address").to_owned();
        let process = Command::new(OUTRIGGER)
            .args([
                "proxy",
                "--workload",
                "guest",
                "--pod-address",
                &address.to_string(),
                "--control",
                &control,
            ])
            .arg("--control-root")
            .arg(roots)
            .arg("--token")
            .arg(token)
            .stdin(Stdio::null())
            .spawn()
            .expect("outrigger starts");
        Self { process, address }
    }

    /// What it says of its readiness, once it can be asked.
    fn readiness(&self) -> String {
        let url = format!("http://{}:15020/healthz/ready", self.address);
        let output = Command::new("curl").args(["-s", "--noproxy", "*", &url]).output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_control_plane_that_the_roots_do_not_prove_tells_a_proxy_nothing_until_they_do() {
    // None of `outrigger up`.
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let address = Ipv4Addr::new(127, 63, high, low | 1);
    let guest = format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: guest}}\nspec: {{address: {address}, serviceAccount: guest}}\n"
    );
    let mesh = Mesh::of_manifests(&format!("{THREE}{guest}"));
    let folder = support::run_root();
    let path = |name: &str| folder.path().join(name);
    let ca_dir = mesh.control()["ca_dir"].as_str().expect("a folder").to_owned();
    let key = format!("{ca_dir}/token.key");
    let signed = mesh.outrigger(&[
        "ca",
        "token",
        "--token-key",
        &key,
        "--workload",
        "guest",
        "--service-account",
        "guest",
    ]);
    assert!(signed.status.success(), "{signed:?}");
    fs::write(path("token"), &signed.stdout).expect("written");
    // The roots of another mesh.
    let other = rcgen::generate_simple_self_signed(Vec::new()).expect("a certificate").cert;
    fs::write(path("roots.pem"), other.pem()).expect("written");

    let metrics = mesh.control()["metrics"].as_str().expect("a URL").to_owned();
    let issued = || metric_at(&metrics, "outrigger_control_certificates_total", &["result=\"issued\""]);
    let before = issued();
    let sidecar = Sidecar::start(&mesh, address, &path("roots.pem"), &path("token"));
    mesh.await_that("it says what is wrong, for configuration and certificate", || {
        let said = sidecar.readiness();
        let of =
            |about: &str| said.lines().any(|line| line.contains(about) && line.contains("unknown_issuer"));
        of("no configuration yet") && of("no certificate yet")
    });
    assert_eq!(issued(), before, "nothing was given to it");

    // As an operator mends it, without a restart: it is read anew for each connection.
    let roots = mesh.outrigger(&["ca", "export-root"]).stdout;
    fs::write(path("new.pem"), roots).expect("written");
    fs::rename(path("new.pem"), path("roots.pem")).expect("renamed");
    mesh.await_that("it is ready", || sidecar.readiness().starts_with("ready\n"));
    assert!(sidecar.readiness().contains("not kept across restarts"), "it was given no place for it");
    assert!(issued() > before);
    let (status, said) = support::curl(&[&format!("http://{address}:15000/identity")]);
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("spiffe://cluster.local/ns/default/sa/guest"), "{said}");
    let proxy = format!("http://{address}:15001");
    assert_eq!(
        support::curl(&["--noproxy", "", "--proxy", &proxy, "http://echo.default/"]).0,
        200,
        "and calls the others"
    );
}
