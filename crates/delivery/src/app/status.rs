//! What an App's status says. Source: giantswarm/app-operator pkg/status.

use api::app::{AppRelease, AppStatus, Chart};

/// Why there is no release, or none as it is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: &'static str,
    pub reason: String,
}

impl Failure {
    pub fn new(status: &'static str, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub fn told(&self) -> AppStatus {
        let release =
            AppRelease { last_deployed: None, reason: Some(self.reason.clone()), status: self.status.to_owned() };
        AppStatus { release, ..AppStatus::default() }
    }
}

/// As the Chart has it; none before it has anything to say.
pub fn of_chart(chart: &Chart) -> Option<AppStatus> {
    let status = chart.status.as_ref().filter(|status| !status.release.status.is_empty())?;
    Some(AppStatus {
        app_version: status.app_version.clone(),
        version: status.version.clone(),
        release: AppRelease {
            last_deployed: status.release.last_deployed.clone(),
            reason: status.reason.clone().filter(|reason| !reason.is_empty()),
            status: status.release.status.clone(),
        },
    })
}
