//! Releases in Secrets, as Helm 3 keeps them. Source: helm.sh/helm/v3, pkg/storage/driver/secrets.go.
//!
//! What an operation has done so far stands in an annotation of the same Secret, so that it is written in one with the release.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

use super::{
    cluster::Cluster,
    engine::Operation,
    error::{Error, Result},
    record::{Release, Status},
};

/// So large may what a Secret holds be, in bytes: the limit of the API.
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;
/// So large may a release unpack to, in bytes.
pub const RELEASE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// So many revisions of a release are looked at.
pub const REVISIONS_MAX: u32 = 500;

const TYPE: &str = "helm.sh/release.v1";
const RELEASE: &str = "release";
const OPERATION: &str = "delivery.skep.dev/operation";
/// Labels that are not the user's.
const OWN_LABELS: &[&str] = &["name", "owner", "status", "version", "createdAt", "modifiedAt"];

/// What is known of a revision without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub namespace: String,
    pub version: i64,
    pub status: Status,
    /// When it was written last, after it had been made.
    pub modified: Option<Timestamp>,
}

/// A revision as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub release: Release,
    /// What we do with it, or did.
    pub operation: Option<Operation>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    created_at: Option<String>,
    resource_version: Option<String>,
}

impl Stored {
    pub fn new(release: Release, operation: Operation, labels: BTreeMap<String, String>) -> Self {
        Self { release, operation: Some(operation), labels, created_at: None, resource_version: None }
    }
}

/// The Secrets of one namespace.
pub struct Storage<'c> {
    cluster: &'c Cluster,
    namespace: &'c str,
    secrets: Api<Secret>,
}

pub fn secret_name(release: &str, version: i64) -> String {
    format!("sh.helm.release.v1.{release}.v{version}")
}

impl<'c> Storage<'c> {
    pub fn new(cluster: &'c Cluster, namespace: &'c str) -> Self {
        let secrets = Api::namespaced(cluster.client().clone(), namespace);
        Self { cluster, namespace, secrets }
    }

    fn place(&self, secret: &str) -> String {
        format!("Secret \"{secret}\" in namespace \"{}\"", self.namespace)
    }

    /// The revisions of a release, or of all, the oldest first.
    pub async fn heads(&self, name: Option<&str>) -> Result<Vec<Head>> {
        let labels = name.map_or_else(|| "owner=helm".to_owned(), |name| format!("owner=helm,name={name}"));
        let mut params = ListParams::default().labels(&labels).limit(REVISIONS_MAX);
        let mut heads = Vec::new();
        loop {
            let place = format!("the releases in namespace \"{}\"", self.namespace);
            let page = self.cluster.call("list", place, self.secrets.list_metadata(&params)).await?;
            heads.extend(page.items.iter().filter_map(|item| head(&item.metadata, self.namespace)));
            match page.metadata.continue_ {
                // Of one release, more revisions than that are no history any more.
                Some(_) if name.is_some() => {
                    return Err(Error::Limit(format!(
                        "release {} has more than {REVISIONS_MAX} revisions: delete the oldest Secrets",
                        name.unwrap_or_default()
                    )));
                }
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => break,
            }
        }
        heads.sort_by(|left, right| (&left.name, left.version).cmp(&(&right.name, right.version)));
        Ok(heads)
    }

    pub async fn get(&self, name: &str, version: i64) -> Result<Option<Stored>> {
        let secret = secret_name(name, version);
        let found = self.cluster.call("get", self.place(&secret), self.secrets.get_opt(&secret)).await?;
        found.map(|found| decoded(&found)).transpose()
    }

    /// Writes a revision that is not there yet.
    ///
    /// # Errors
    /// [`Error::Changed`] where there is one already.
    pub async fn create(&self, stored: &mut Stored, now: Timestamp) -> Result<()> {
        stored.created_at = Some(now.as_second().to_string());
        let secret = encoded(stored, None)?;
        let place = self.place(&secret_name(&stored.release.name, stored.release.version));
        let made = self.cluster.call("create", &place, self.secrets.create(&PostParams::default(), &secret)).await;
        self.written(stored, made, place)
    }

    /// Writes a revision that has not changed since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`] where it has.
    pub async fn update(&self, stored: &mut Stored, now: Timestamp) -> Result<()> {
        let secret = encoded(stored, Some(now))?;
        let name = secret_name(&stored.release.name, stored.release.version);
        let place = self.place(&name);
        let params = PostParams::default();
        let made = self.cluster.call("update", &place, self.secrets.replace(&name, &params, &secret)).await;
        self.written(stored, made, place)
    }

    #[expect(clippy::unused_self, reason = "belongs to the two above")]
    fn written(&self, stored: &mut Stored, made: Result<Secret>, place: String) -> Result<()> {
        match made {
            Ok(secret) => {
                stored.resource_version = secret.metadata.resource_version;
                Ok(())
            }
            Err(error) if error.code() == Some(409) => Err(Error::Changed(place)),
            Err(error) => Err(error),
        }
    }

    pub async fn delete(&self, name: &str, version: i64) -> Result<()> {
        let secret = secret_name(name, version);
        let params = DeleteParams::default();
        match self.cluster.call("delete", self.place(&secret), self.secrets.delete(&secret, &params)).await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes room for one more revision: the oldest go, but never the one that is deployed, nor the last.
    pub async fn prune(&self, heads: &[Head], history_max: usize) -> Result<()> {
        let Some(keep) = history_max.checked_sub(1) else { return Ok(()) };
        let deployed = heads.iter().rev().find(|head| head.status == Status::Deployed).map(|head| head.version);
        let last = heads.last().map(|head| head.version);
        let mut left = heads.len();
        for head in heads.iter().filter(|head| ![deployed, last].contains(&Some(head.version))) {
            if left <= keep {
                break;
            }
            self.delete(&head.name, head.version).await?;
            left -= 1;
        }
        Ok(())
    }
}

fn head(from: &ObjectMeta, namespace: &str) -> Option<Head> {
    let labels = from.labels.as_ref()?;
    Some(Head {
        name: labels.get("name")?.clone(),
        namespace: namespace.to_owned(),
        version: labels.get("version")?.parse().ok()?,
        status: Status::of(labels.get("status")?),
        modified: labels.get("modifiedAt").and_then(|at| Timestamp::from_second(at.parse().ok()?).ok()),
    })
}

fn encoded(stored: &Stored, modified: Option<Timestamp>) -> Result<Secret> {
    let release = &stored.release;
    let name = secret_name(&release.name, release.version);
    let fail = |why: String| Error::Invalid(format!("release {} cannot be stored: {why}", release.name));
    let mut zipped = GzEncoder::new(Vec::new(), Compression::best());
    serde_json::to_writer(&mut zipped, release).map_err(|error| fail(error.to_string()))?;
    let zipped = zipped.finish().map_err(|error| fail(error.to_string()))?;
    let data = STANDARD.encode(zipped);
    if data.len() > SECRET_BYTES_MAX {
        let chart = release.chart["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Error::Limit(format!(
            "release {} of chart {chart} takes {} bytes and a Secret holds {SECRET_BYTES_MAX}: take out of the chart what is not needed (files beside \
             the templates are kept too), or split it",
            release.name,
            data.len()
        )));
    }
    let mut labels = stored.labels.clone();
    let own = [
        ("name", release.name.clone()),
        ("owner", "helm".to_owned()),
        ("status", release.info.status.text().to_owned()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels.insert("version".to_owned(), release.version.to_string());
    if let Some(created) = &stored.created_at {
        labels.insert("createdAt".to_owned(), created.clone());
    }
    if let Some(modified) = modified {
        labels.insert("modifiedAt".to_owned(), modified.as_second().to_string());
    }
    let operation = stored.operation.as_ref().map(serde_json::to_string).transpose();
    let operation = operation.map_err(|error| fail(error.to_string()))?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            annotations: operation.map(|operation| BTreeMap::from([(OPERATION.to_owned(), operation)])),
            resource_version: stored.resource_version.clone(),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(BTreeMap::from([(RELEASE.to_owned(), ByteString(data.into_bytes()))])),
        ..Secret::default()
    })
}

fn decoded(secret: &Secret) -> Result<Stored> {
    let meta = &secret.metadata;
    let fail = |why: String| Error::Unreadable {
        secret: format!("Secret {:?}", meta.name.as_deref().unwrap_or_default()),
        why,
    };
    let data =
        secret.data.as_ref().and_then(|data| data.get(RELEASE)).ok_or_else(|| fail("it has no data".to_owned()))?;
    let bytes = STANDARD.decode(&data.0).map_err(|error| fail(error.to_string()))?;
    let release = release_of(&bytes).map_err(fail)?;
    let mut labels = meta.labels.clone().unwrap_or_default();
    let created_at = labels.get("createdAt").cloned();
    labels.retain(|key, _| !OWN_LABELS.contains(&key.as_str()));
    let operation = meta.annotations.as_ref().and_then(|annotations| annotations.get(OPERATION));
    let operation = operation.map(|text| serde_json::from_str(text)).transpose();
    Ok(Stored {
        operation: operation.map_err(|error| fail(format!("its annotation {OPERATION}: {error}")))?,
        resource_version: meta.resource_version.clone(),
        release,
        labels,
        created_at,
    })
}

/// The oldest releases are not zipped.
fn release_of(bytes: &[u8]) -> Result<Release, String> {
    let mut plain = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b, 0x08]) {
        let mut unzipped = GzDecoder::new(bytes).take(RELEASE_BYTES_MAX as u64 + 1);
        unzipped.read_to_end(&mut plain).map_err(|error| error.to_string())?;
        &plain
    } else {
        bytes
    };
    if bytes.len() > RELEASE_BYTES_MAX {
        return Err(format!("it has more than {RELEASE_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
