//! `outrigger exec`: becomes another program that cannot outlive its parent.
//!
//! Every process of `outrigger up` starts through it: a `kill -9` of `up` leaves nothing behind, and a Ctrl-C in the terminal
//! reaches `up` alone, which then ends the others in order. It sets the parent-death signal and a process group of its own, then
//! execs; done by a program of its own because between fork and exec Rust allows nothing without `unsafe`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Process id of the parent; if another process is the parent already, nothing is started.
    #[arg(long)]
    parent: i32,
    /// Program and arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).context("making a process group")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("setting the parent-death signal")?;
    // The signal is sent for deaths from now on; a parent that died before has to be noticed here.
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the parent, process {}, is gone", args.parent);
    }
    let [program, arguments @ ..] = args.command.as_slice() else {
        bail!("no command given");
    };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {program:?}"))
}
