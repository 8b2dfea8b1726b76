//! Apps that wait for others. Source: giantswarm/app-operator, annotation `depends-on`.

use api::app::App;
use kube::ResourceExt;

pub const DEPENDS_ON: &str = "app-operator.giantswarm.io/depends-on";

/// Whom an app waits for, in its namespace; never itself.
pub fn names(app: &App) -> impl Iterator<Item = &str> {
    let text = app.annotations().get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
    let own = app.metadata.name.as_deref().unwrap_or_default();
    text.split(',').map(str::trim).filter(move |name| !name.is_empty() && *name != own)
}

/// Those that are not there as they are wished.
pub fn missing(app: &App, find: impl Fn(&str) -> Option<std::sync::Arc<App>>) -> Vec<String> {
    let is_there = |name: &str| {
        find(name).is_some_and(|other| {
            let status = other.status.as_ref();
            status.is_some_and(|status| status.release.status == "deployed" && status.version == other.spec.version)
        })
    };
    names(app).filter(|name| !is_there(name)).map(str::to_owned).collect()
}
