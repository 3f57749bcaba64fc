//! Running the kernel's own command-line tools.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// One program that was found on this machine.
#[derive(Clone, Debug)]
pub struct Tool {
    name: &'static str,
    path: PathBuf,
}

impl Tool {
    /// Looks on PATH.
    pub fn find(name: &'static str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())?;
        Some(Self { name, path })
    }

    /// Whether two names stand for one program.
    pub fn is(&self, other: &Self) -> bool {
        std::fs::canonicalize(&self.path).ok() == std::fs::canonicalize(&other.path).ok()
    }

    /// What the tool prints.
    pub fn read(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.path)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        self.check(args, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Gives the tool a script on its standard input.
    pub fn feed(&self, args: &[&str], script: &str) -> Result<()> {
        let mut child = Command::new(&self.path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        // A tool that ends before it has read all says why on its standard error, which is worth more than EPIPE.
        let written = child.stdin.take().expect("its standard input is a pipe").write_all(script.as_bytes());
        let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", self.name))?;
        self.check(args, &output)?;
        written.with_context(|| format!("{} did not read its script", self.name))
    }

    fn check(&self, args: &[&str], output: &Output) -> Result<()> {
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{} {}` failed ({}): {}", self.name, args.join(" "), output.status, said.trim());
    }
}
