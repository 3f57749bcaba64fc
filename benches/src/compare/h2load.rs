//! Closed-loop load by h2load, and what it says of it. Whatever was not answered in full, with 2xx, makes a run worthless.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::scenario::{Body, Hops, Http, Setting};
use crate::ground::Ground;

/// Beyond the time it was told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many requests are open at a time.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
    pub body: Body,
}

/// Loads for `time` and returns how many requests were answered.
pub async fn run(
    ground: &Ground,
    at: SocketAddr,
    setting: Setting,
    shape: Shape,
    time: Duration,
) -> anyhow::Result<u64> {
    let mut command = Command::new("h2load");
    command.args(["--threads=1", "--clients", &shape.connections.to_string()]);
    command.args(["--max-concurrent-streams", &shape.streams.to_string()]);
    command.arg(format!("--duration={}ms", time.as_millis()));
    if setting.http == Http::One {
        command.arg("--h1");
    }
    if shape.body == Body::Post {
        let file = ground.path("post");
        fs::write(&file, [b'p'; 100])?;
        command.arg("--data").arg(file);
    }
    let scheme = if setting.hops == Hops::OneTls { "https" } else { "http" };
    command.arg(format!("{scheme}://{at}{}", shape.body.path()));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    // It never ends where a connection comes to stand after its time is over.
    let output = timeout(time + PATIENCE, output).await.context("h2load does not end")?;
    let output = output.context("starting h2load")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "h2load: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let summary = Summary::read(&said).with_context(|| format!("h2load said\n{said}"))?;
    summary.check(shape).with_context(|| format!("h2load said\n{said}"))?;
    Ok(summary.done)
}

#[derive(Debug, PartialEq, Eq)]
struct Summary {
    done: u64,
    succeeded: u64,
    bad: u64,
    ok_status: u64,
    body_bytes: u64,
}

impl Summary {
    fn read(text: &str) -> anyhow::Result<Self> {
        let line = |prefix: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(prefix));
            found.with_context(|| format!("no line {prefix:?}"))
        };
        let (requests, status, traffic) = (line("requests:")?, line("status codes:")?, line("traffic:")?);
        let count = |line: &str, what: &str| -> anyhow::Result<u64> {
            let part = line.split(',').find_map(|part| part.trim().strip_suffix(what));
            Ok(part.with_context(|| format!("no {what:?}"))?.trim().parse()?)
        };
        let mut bad = 0;
        for what in [" failed", " errored", " timeout"] {
            bad += count(requests, what)?;
        }
        // "traffic: 2.29MB (2404352) total, 222.00KB (227328) headers (space savings 0.00%), 2.00MB (2097152) data"
        let data = traffic.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(") data"));
        Ok(Self {
            done: count(requests, " done")?,
            succeeded: count(requests, " succeeded")?,
            bad,
            ok_status: count(status, " 2xx")?,
            body_bytes: data.context("no bytes of data")?.parse()?,
        })
    }

    fn check(&self, shape: Shape) -> anyhow::Result<()> {
        let Self { done, succeeded, bad, ok_status, body_bytes } = *self;
        if done == 0 || bad != 0 || succeeded != done || ok_status < done {
            bail!("{done} answered, {succeeded} in full, {ok_status} with 2xx, {bad} failed");
        }
        // Those cut off at the end of the time have brought a part of theirs.
        let open = (shape.connections * shape.streams) as u64;
        let (least, most) = (done * shape.body.answered(), (done + open) * shape.body.answered());
        ensure!((least..=most).contains(&body_bytes), "{body_bytes} bytes of bodies in {done} answers");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
finished in 1.01s, 2048.00 req/s, 2.29MB/s
requests: 2048 total, 2112 started, 2048 done, 2048 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2048 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.29MB (2404352) total, 222.00KB (227328) headers (space savings 0.00%), 2.00MB (2097152) data
";
    const SHAPE: Shape = Shape { connections: 64, streams: 1, body: Body::Small };

    #[test]
    fn a_run_counts_only_if_every_answer_was_right() {
        let good = Summary::read(SAID).unwrap();
        assert_eq!((good.done, good.bad, good.body_bytes), (2048, 0, 2_097_152));
        good.check(SHAPE).unwrap();
        for (from, to) in [
            ("2048 succeeded", "2047 succeeded"),
            ("0 errored", "1 errored"),
            ("2048 2xx, 0 3xx, 0 4xx, 0 5xx", "2047 2xx, 0 3xx, 0 4xx, 1 5xx"),
            ("(2097152) data", "(2097151) data"),
            ("(2097152) data", "(2162689) data"),
            ("2048 done, 2048 succeeded", "0 done, 0 succeeded"),
        ] {
            let wrong = Summary::read(&SAID.replace(from, to)).unwrap();
            assert!(wrong.check(SHAPE).is_err(), "{to}");
        }
        assert!(Summary::read("finished in 1.01s").is_err());
    }
}
