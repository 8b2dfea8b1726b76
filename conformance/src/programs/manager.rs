//! The manager on controller-runtime (`manager/`, in Go): it asserts what it sees and prints a line for each thing.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{Arguments, Tally, kubeconfig};
use crate::identity::Authority;

/// All of it must be done in this time.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Runs it against each of the servers, one after another: against kube-apiserver, it shows that the manager is right.
pub async fn play(
    arguments: &Arguments,
    work: &Path,
    servers: &[(&'static str, &str)],
    authority: &Authority,
    tally: &mut Tally,
) -> Result<()> {
    if !"manager".contains(&arguments.only) {
        return Ok(());
    }
    for (name, address) in servers {
        let folder = work.join(name).join("manager");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let admin = authority.client("manager", &["system:masters"])?;
        let kubeconfig = folder.join("kubeconfig");
        kubeconfig::write(&kubeconfig, address, authority, &admin, "default")?;
        let output = Command::new(&arguments.manager)
            .args(["check", "--folder"])
            .arg(&folder)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Ok(output) = tokio::time::timeout(TIMEOUT, output).await else {
            tally.take(&format!("manager on {name}"), Some("not done in time"));
            continue;
        };
        let output = output.with_context(|| format!("run {}", arguments.manager.display()))?;
        let mut done = 0;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(what) = line.strip_prefix("ok ") {
                done += 1;
                tally.take(&format!("manager on {name}: {what}"), None);
            } else if let Some(what) = line.strip_prefix("FAIL ") {
                let (what, why) = what.split_once(" | ").unwrap_or((what, ""));
                tally.take(&format!("manager on {name}: {what}"), Some(why));
            }
        }
        if !output.status.success() || done == 0 {
            let errors = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = errors.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            tally.take(&format!("manager on {name} ends well"), Some(&format!("{}\n{tail}", output.status)));
        }
    }
    Ok(())
}
