//! One server as a release of kubectl sees it: a home of its own, and a shell that finds that kubectl.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{Arguments, Release, kubeconfig, text::Text};
use crate::identity::Authority;

/// A step must end in this time.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

pub struct Side {
    pub name: &'static str,
    home: PathBuf,
    /// Where manifests are.
    folder: PathBuf,
    path: OsString,
    text: Text,
}

/// What a step came to, without what two servers cannot have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Side {
    pub fn new(
        name: &'static str,
        address: &str,
        home: PathBuf,
        release: &Release,
        authority: &Authority,
        arguments: &Arguments,
    ) -> Result<Self> {
        let bin = home.join("bin");
        std::fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
        let kubectl = bin.join("kubectl");
        if !kubectl.exists() {
            let binary = std::path::absolute(&release.binary)?;
            std::os::unix::fs::symlink(&binary, &kubectl).with_context(|| format!("link {}", kubectl.display()))?;
        }
        let admin = authority.client("admin", &["system:masters"])?;
        kubeconfig::write(&home.join("kubeconfig"), address, authority, &admin, "work")?;
        let carol = authority.client("carol", &[])?;
        kubeconfig::write(&home.join("carol"), address, authority, &carol, "work")?;
        let mut path = OsString::from(&bin);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let text = Text::new(address, &home);
        let folder = std::path::absolute(arguments.folder.join("kubectl"))?;
        Ok(Self { name, home, folder, path, text })
    }

    /// Runs a step in bash, in the folder of the manifests; `prelude.sh` there is read before.
    pub async fn run(&mut self, script: &str) -> Result<Printed> {
        let prelude = Path::new("prelude.sh");
        let command = format!("set -euo pipefail\n. ./{}\n{script}", prelude.display());
        let output = Command::new("bash")
            .arg("-c")
            .arg(command)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .env("TMPDIR", &self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(STEP_TIMEOUT, output).await {
            Ok(output) => output.context("run bash")?,
            Err(_) => {
                let err = format!("not done after {} s", STEP_TIMEOUT.as_secs());
                return Ok(Printed { code: None, out: String::new(), err });
            }
        };
        let out = self.text.of(&String::from_utf8_lossy(&output.stdout));
        let err = self.text.of(&String::from_utf8_lossy(&output.stderr));
        Ok(Printed { code: output.status.code(), out, err })
    }
}
