//! A gateway's TLS listeners as curl meets them from outside: certificates by server name and their renewal, TLS that is passed on, TLS
//! that is opened for a TCP service.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::scene::{Scene, finish, has, scripts};
use crate::support::Mesh;

/// A certification authority of this test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Where curl finds it.
    file: PathBuf,
}

impl Authority {
    fn new(name: &str, folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = folder.join(name);
        fs::write(&file, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Certificate and key for a host, PEM.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn secret(&self, name: &str, host: &str) -> String {
        let (certificate, key) = self.issue(host);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key},
        });
        format!("{secret}\n---\n")
    }
}

/// The gateway as its clients reach it.
struct Front<'a> {
    mesh: &'a Mesh,
    ip: IpAddr,
}

impl Front<'_> {
    /// curl to `url`, whose host is at the gateway, trusting one authority.
    fn curl(&self, trusted: &Authority, url: &str, arguments: &[&str]) -> Output {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "50", "--cacert"]);
        curl.arg(&trusted.file).arg("--connect-to").arg(format!("::{}:", self.ip)).args(arguments).arg(url);
        finish(&mut curl)
    }

    fn body(&self, trusted: &Authority, url: &str, arguments: &[&str]) -> String {
        let output = self.curl(trusted, url, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{url} {arguments:?}: {output:?}\n{}", self.mesh.log_text());
        said
    }
}

fn manifests(secrets: &str, app: (&Path, &Path)) -> String {
    let secure = json!(["python3", scripts().join("tls_server.py"), app.0, app.1]);
    format!("{secrets}{}", include_str!("gateway.yaml").replace("@SECURE@", &secure.to_string()))
}

#[test]
fn https_and_tls_listeners_serve_by_server_name_and_follow_their_certificates() {
    if !has(&["curl", "python3"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Authority::new("old", folder.path()), Authority::new("new", folder.path()));
    let app = (folder.path().join("app.crt"), folder.path().join("app.key"));
    let (certificate, key) = old.issue("own.test");
    fs::write(&app.0, certificate).and_then(|()| fs::write(&app.1, key)).expect("written");
    let app = (app.0.as_path(), app.1.as_path());
    let secrets = old.secret("one", "one.test") + &old.secret("wide", "*.wide.test");
    let scene = Scene::of(Mesh::of_manifests(&manifests(&secrets, app)), "caller-0");
    let mesh = &scene.mesh;
    let status = mesh.status().expect("a status");
    let url = status["gateways"][0]["urls"][0].as_str().expect("a URL");
    let ip = url.split("//").nth(1).and_then(|rest| rest.rsplit_once(':')).expect("an address").0;
    let front = Front { mesh, ip: ip.parse().expect("an address") };

    // Each name with its own certificate, in the version that ALPN agrees on.
    for (url, version, arguments) in [
        ("https://one.test:8443/x", "2", &[][..]),
        ("https://one.test:8443/x", "1.1", &["--http1.1"]),
        ("https://any.wide.test:8443/x", "2", &["--tls-max", "1.2"]),
        ("https://any.wide.test:8443/x", "2", &["--tlsv1.3"]),
    ] {
        let written = [arguments, &["--write-out", "\n%{http_version}"]].concat();
        let said = front.body(&old, url, &written);
        let (body, spoken) = said.rsplit_once('\n').expect("the version");
        assert_eq!(spoken, version, "{url} {arguments:?}");
        let echoed: serde_json::Value = serde_json::from_str(body).expect("the echo's answer");
        let field = |name: &str| {
            let fields = echoed["headers"].as_array().expect("fields");
            let found =
                fields.iter().find(|field| field[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
            found.and_then(|field| field[1].as_str()).unwrap_or_default().to_owned()
        };
        assert_eq!(echoed["version"], "HTTP/1.1", "the app is not asked for more than it declared");
        assert_eq!(field("x-forwarded-proto"), "https", "{echoed}");
        assert!(url.contains(&field("x-forwarded-host")), "{echoed}");
    }

    // A name nobody serves, and a version of TLS nobody should speak any more.
    for (url, arguments) in
        [("https://other.test:8443/", &[][..]), ("https://one.test:8443/", &["--tls-max", "1.1"])]
    {
        let output = front.curl(&old, url, arguments);
        assert_eq!(output.status.code(), Some(35 /* CURLE_SSL_CONNECT_ERROR */), "{url}: {output:?}");
    }

    // From plain HTTP to where it is served.
    let location =
        front.body(&old, "http://one.test:8080/x?y", &["--write-out", "%{http_code} %{redirect_url}"]);
    assert_eq!(location, "301 https://one.test:8443/x?y");

    // Passed on unopened: the certificate is the app's own.
    assert_eq!(front.body(&old, "https://own.test:9443/there", &[]), "/there within the app's own TLS");
    // Opened here, and carried as bytes.
    assert!(front.body(&old, "https://one.test:9444/bytes", &["--http1.1"]).contains("\"path\":\"/bytes\""));
    // Within the mesh: a tunnel through the sidecar, unopened by both.
    let mut curl = scene.command("curl");
    curl.args(["--silent", "--show-error", "--cacert"]).arg(&old.file);
    curl.args(["--connect-to", "own.test:8443:secure:8443", "https://own.test:8443/inside"]);
    assert_eq!(crate::scene::output(&mut curl), "/inside within the app's own TLS");

    // Another authority's certificate takes the place of the first; nothing is started again.
    let pid = status["gateways"][0]["pid"].clone();
    let renewed = new.secret("one", "one.test") + &old.secret("wide", "*.wide.test");
    fs::write(mesh.manifests.join("mesh.yaml"), manifests(&renewed, app)).expect("written");
    mesh.await_that("the new certificate is served", || {
        front.curl(&new, "https://one.test:8443/x", &[]).status.success()
    });
    assert!(front.curl(&old, "https://any.wide.test:8443/x", &[]).status.success(), "the other one stays");
    assert_eq!(mesh.status().expect("a status")["gateways"][0]["pid"], pid);
}
