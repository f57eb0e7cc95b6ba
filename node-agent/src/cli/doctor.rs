//! `tramline doctor`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use super::output::{self, Colours, OutputArgs};
use super::{DEFAULT_BPFFS, DEFAULT_STATE_DIR};
use crate::doctor::{Check, CheckState, Places, host_checks};

/// Where the doctor looks.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// cgroup2 directory the agent would attach at [default: the host's cgroup2 root, found and proven]
    #[arg(long, value_name = "DIR", env = "TRAMLINE_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,

    /// BPF file system for pinned maps and links
    #[arg(long, value_name = "DIR", env = "TRAMLINE_BPFFS", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// Directory for what must outlive the agent
    #[arg(long, value_name = "DIR", env = "TRAMLINE_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(
    args: &DoctorArgs,
    kernel_checks: impl FnOnce(&DoctorArgs) -> Vec<Check>,
) -> Result<(), Failure> {
    let places = Places {
        cgroup_root: args.cgroup_root.clone(),
        bpffs: args.bpffs.clone(),
        state_dir: args.state_dir.clone(),
    };
    let mut checks = host_checks(&places);
    checks.extend(kernel_checks(args));
    output::show(args.output.output, &checks, |view| text(&checks, view.colours))?;
    let failed = checks
        .iter()
        .filter(|check| check.state == CheckState::Failed)
        .count();
    if failed == 0 {
        return Ok(());
    }
    let what = format!(
        "{failed} of {} checks failed: the agent would not run here",
        checks.len()
    );
    Err(Failure::new(Exit::Unhealthy, what)
        .next("do what stands behind `fix` above, then run `tramline doctor` again"))
}

pub(super) fn text(checks: &[Check], colours: Colours) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            CheckState::Ok => colours.green("ok     "),
            CheckState::Warning => colours.yellow("warning"),
            CheckState::Failed => colours.red("FAILED "),
        };
        let (name, detail) = (output::printable(&check.name), output::printable(&check.detail));
        let _ = writeln!(text, "{state}  {name:width$}  {detail}");
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "         {:width$}  fix: {}", "", output::printable(fix));
        }
    }
    text
}
