//! `skep catalog mirror`: charts, copied by digest.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use delivery::{
    mirror::{Target, Wanted, mirror},
    repository::{Access, Credentials, Repositories, grant},
};
use jiff::Timestamp;

use super::{Place, repositories};
use crate::{
    Charts, DONE, FAILED,
    app::{catalog, credentials},
    output,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the catalog
    name: String,
    /// Charts to copy: NAME, or NAME and which versions of it, as in 'hello>=1.2 <2'
    #[arg(required = true, value_name = "CHART", value_parser = wanted)]
    charts: Vec<(String, String)>,
    /// Where to: a folder, or oci://HOST/PATH
    #[arg(long)]
    to: String,
    /// Of the catalog's repositories, the one to copy from [default: its storage]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Of the versions that fit, so many of the highest
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    newest: usize,
    /// User at the registry that is copied to
    #[arg(long, requires = "to_password_file")]
    to_username: Option<String>,
    /// File with the password of that user
    #[arg(long, value_name = "FILE", requires = "to_username")]
    to_password_file: Option<PathBuf>,
    /// The registry that is copied to speaks HTTP without TLS
    #[arg(long)]
    to_plain_http: bool,
    #[command(flatten)]
    place: Place,
}

/// A chart's name ends where its versions begin.
fn wanted(text: &str) -> Result<(String, String), String> {
    let end = text.find(|c: char| "<>=~^! @*".contains(c)).unwrap_or(text.len());
    let (name, versions) = text.split_at(end);
    if name.is_empty() {
        return Err(format!("{text:?} names no chart: write NAME, or NAME and which versions, as in 'hello>=1.2 <2'"));
    }
    Ok((name.to_owned(), versions.trim_start_matches('@').trim().to_owned()))
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    if arguments.newest == 0 {
        bail!("--newest 0 copies nothing");
    }
    let client = arguments.place.client().await?;
    let catalog = catalog(&client, &arguments.name, arguments.place.namespace.as_deref()).await?;
    let (transport, secret) = (charts()?, credentials(&client, &catalog).await?);
    let places = repositories(&catalog);
    let is_meant =
        |url: &str| arguments.from.as_ref().is_none_or(|from| from.trim_end_matches('/') == url.trim_end_matches('/'));
    let Some(source) = places.iter().find(|place| is_meant(&place.url)) else {
        let all: Vec<&str> = places.iter().map(|place| place.url.as_str()).collect();
        bail!("catalog {} names no such repository: it has {}", arguments.name, all.join(", "));
    };
    let from = grant::access(transport.clone(), &catalog, secret.as_ref(), &source.url).map_err(anyhow::Error::msg)?;
    let mut to = Access { plain_http: arguments.to_plain_http, ..Access::new(transport) };
    if let (Some(user), Some(path)) = (&arguments.to_username, &arguments.to_password_file) {
        let password = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let password = password.trim_end_matches(['\n', '\r']).to_owned();
        to.credentials = Some(Credentials::Basic { user: user.clone(), password });
        to.home = Some(arguments.to.clone());
    }
    let is_registry = grant::is_registry(&arguments.to);
    if !is_registry && (to.plain_http || to.credentials.is_some()) {
        bail!("--to {} is a folder: credentials and --to-plain-http are for registries (oci://)", arguments.to);
    }
    if !is_registry && arguments.to.contains("://") {
        bail!("--to {}: charts are copied to a folder or to a registry (oci://)", arguments.to);
    }
    let folder = PathBuf::from(&arguments.to);
    let target = match is_registry {
        true => Target::Registry { access: &to, url: &arguments.to },
        false => Target::Folder(&folder),
    };
    let wish = |(name, versions): &(String, String)| Wanted {
        name: name.clone(),
        versions: versions.clone(),
        count: arguments.newest,
    };
    let wanted: Vec<Wanted> = arguments.charts.iter().map(wish).collect();
    let report = mirror(&Repositories::default(), (&from, &source.url), &wanted, &target, Timestamp::now()).await;
    let report = report.with_context(|| format!("copy charts of catalog {} to {}", arguments.name, arguments.to))?;
    for one in &report.copied {
        let how = if one.fresh { "copied" } else { "was there" };
        let signed = match one.signatures {
            0 => String::new(),
            1 => ", 1 signature".to_owned(),
            many => format!(", {many} signatures"),
        };
        output::line(&format!("{} {} {how}, {}{signed}", one.name, one.version, one.digest));
    }
    for error in &report.failed {
        output::progress(&format!("not copied: {error}"));
    }
    Ok(if report.failed.is_empty() { DONE } else { FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_named_alone_or_with_its_versions() {
        let told = |text| wanted(text).map(|(name, versions)| format!("{name}|{versions}"));
        assert_eq!(told("hello"), Ok("hello|".into()));
        assert_eq!(told("hello>=1.2 <2"), Ok("hello|>=1.2 <2".into()));
        assert_eq!(told("hello-world ~1.2"), Ok("hello-world|~1.2".into()));
        assert_eq!(told("hello@1.2.0"), Ok("hello|1.2.0".into()));
        assert!(told(">=1").is_err());
    }
}
