//! Threads: how many workers there are and what each of them runs on.
//!
//! A worker is a thread with a current-thread runtime of its own; its tasks never leave it (`spawn_local`). The count follows the
//! CPU limit of the control group, not the cores of the node: threads above the limit are throttled, not helped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Without a setting there are no more workers than this: what a sidecar gains by more, its app loses.
pub const DEFAULT_MOST_WORKERS: usize = 2;

/// `asked`, or else the control group's CPU limit rounded up, at least 1 and at most [`DEFAULT_MOST_WORKERS`] and the usable cores.
pub fn worker_count(asked: Option<usize>) -> usize {
    if let Some(asked) = asked {
        return asked.max(1);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cpu_limit(Path::new("/sys/fs/cgroup"), &groups);
    let by_limit = limit.map_or(cores, |limit| limit.ceil() as usize);
    by_limit.min(cores).clamp(1, DEFAULT_MOST_WORKERS)
}

/// CPUs the control group may use, the lowest limit on its way up to the root; `None` is no limit.
/// `groups` is `/proc/self/cgroup` (cgroups(7)): `0::/PATH` for version 2, `N:cpu,cpuacct:/PATH` for version 1.
fn cpu_limit(mount: &Path, groups: &str) -> Option<f64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.is_empty() {
            return lowest(mount, path, limit_v2);
        }
        let has_cpu = controllers.split(',').any(|controller| controller == "cpu");
        has_cpu.then(|| {
            lowest(&mount.join(controllers), path, limit_v1)
                .or_else(|| lowest(&mount.join("cpu"), path, limit_v1))
        })?
    });
    limits.min_by(f64::total_cmp)
}

/// In a container the path is the host's and only the mount's root exists, so every ancestor is looked at.
fn lowest(mount: &Path, path: &str, limit: impl Fn(PathBuf) -> Option<f64>) -> Option<f64> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().filter_map(|ancestor| limit(mount.join(ancestor))).min_by(f64::total_cmp)
}

/// `cpu.max`: `QUOTA PERIOD` or `max PERIOD`, in microseconds.
fn limit_v2(group: PathBuf) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// A quota of -1 is no limit.
fn limit_v1(group: PathBuf) -> Option<f64> {
    let read = |name| fs::read_to_string(group.join(name)).ok();
    ratio(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Raises the soft limit of open files to the hard one and returns it: each request may need two.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Takes memory in small pages from now on. Where the system hands out huge ones unasked, each of our few pools of memory would
/// be at least 2 MB, and an idle sidecar 14 MB larger.
pub fn small_pages() -> io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

/// Starts a thread that runs `main` and its local tasks to its end.
pub fn spawn<F>(name: String, main: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .expect("a runtime needs an epoll and an event descriptor; without them nothing can be served");
        runtime.block_on(main());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        for (files, groups, want) in [
            (&[("cpu.max", "50000 100000\n")][..], "0::/\n", Some(0.5)),
            (&[("cpu.max", "400000 100000\n")], "0::/\n", Some(4.0)),
            (&[("cpu.max", "max 100000\n")], "0::/\n", None),
            (&[("cpu.max", "200000 100000\n")], "0::/kubepods/pod1/abc\n", Some(2.0)), // the host's path in a container
            (&[("a/cpu.max", "300000 100000\n"), ("a/b/cpu.max", "max 100000\n")], "0::/a/b\n", Some(3.0)),
            (
                &[
                    ("cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
                    ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
                "4:memory:/x\n3:cpu,cpuacct:/x\n0::/x\n",
                Some(1.5),
            ),
            (
                &[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")],
                "3:cpu,cpuacct:/\n",
                None,
            ),
            (&[], "", None),
        ] {
            assert_eq!(cpu_limit(group(files).path(), groups), want, "{files:?} {groups:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_taken_and_the_default_is_bounded() {
        assert_eq!(worker_count(Some(5)), 5);
        assert_eq!(worker_count(Some(0)), 1);
        assert!((1..=DEFAULT_MOST_WORKERS).contains(&worker_count(None)));
    }
}
