//! Conversion webhooks of CRDs (apiextensions.k8s.io/v1 `ConversionReview`): objects are stored in one version and asked for
//! in another, and whoever made the CRD says what becomes of them.
//!
//! [`crate::webhook`] calls them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use store::{Event, KeyValue, SharedStore};

use crate::{
    field::FieldError,
    kinds::{Kind, split_api_version},
    object::{self, at, text_at},
    status::{Error, Result},
    trace::{self, Span},
    webhook::{self, Endpoint},
    write::Stored,
};

/// A call may take so long (`conversion` of apiextensions has no field for it).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects that are sent at once.
const OBJECTS_MAX: usize = 500;
/// An answer may have so many bytes for each object that was sent.
const ANSWER_BYTES_PER_OBJECT: usize = 3 * 1024 * 1024;
/// And no more than this.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Converts between the versions of kinds, in this process. The objects' metadata are kept, but for labels and annotations.
pub trait Conversion: Send + Sync {
    /// Whether objects of this kind are converted here, whatever its CRD says.
    fn converts(&self, group: &str, kind: &str) -> bool;

    /// The object in another version of its kind; why not, as a text.
    ///
    /// # Errors
    /// Such as that there is no such version.
    fn convert(&self, object: &Value, version: &str) -> Result<Value, String>;
}

/// A [`Conversion`] that a kind has.
#[derive(Clone)]
pub(crate) struct Local(Arc<dyn Conversion>);

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in this process")
    }
}

impl Local {
    pub fn of(crd: &Value, conversion: Option<&Arc<dyn Conversion>>) -> Option<Self> {
        let (group, kind) = (text_at(crd, &["spec", "group"]), text_at(crd, &["spec", "names", "kind"]));
        conversion.filter(|conversion| conversion.converts(group, kind)).map(|conversion| Self(Arc::clone(conversion)))
    }

    pub fn convert(&self, object: &Value, api_version: &str) -> Result<Value> {
        let (_, version) = split_api_version(api_version);
        self.0.convert(object, version).map_err(Error::internal_plain)
    }
}

fn local(kind: &Kind) -> Option<&Local> {
    kind.custom.as_ref()?.local.as_ref()
}

/// Where the objects of a CRD are converted.
pub(crate) struct Converter {
    /// What is wrong with it is told when it is called.
    endpoint: Result<Endpoint, String>,
    /// What services are looked up in.
    store: Option<SharedStore>,
}

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

fn client_config(crd: &Value) -> Option<&Value> {
    at(crd, &["spec", "conversion", "webhook", "clientConfig"]).filter(|config| !config.is_null())
}

/// What is wrong with the webhook of a CRD.
pub(crate) fn check(crd: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.conversion.webhookClientConfig";
    let mut errors = Vec::new();
    let hook = at(crd, &["spec", "conversion", "webhook"]).filter(|hook| !hook.is_null());
    let Some(config) = client_config(crd) else {
        errors.push(FieldError::required(PATH, "required when strategy is set to Webhook"));
        if hook.and_then(|hook| hook.get("conversionReviewVersions")).is_none_or(Value::is_null) {
            errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
        }
        return errors;
    };
    errors.extend(webhook::check(config, PATH));
    if !text_at(config, &["caBundle"]).is_empty()
        && let Err(why) = webhook::check_authorities(config)
    {
        errors.push(FieldError::invalid(format!("{PATH}.caBundle"), config["caBundle"].clone(), why));
    }
    let versions = hook.and_then(|hook| hook.get("conversionReviewVersions")).and_then(Value::as_array);
    let path = "spec.conversion.conversionReviewVersions";
    match versions {
        None => errors.push(FieldError::required(path, "")),
        Some(list) if !list.iter().any(|version| version == "v1") => {
            errors.push(FieldError::invalid(path, list.clone(), "must include at least one of v1"));
        }
        Some(_) => {}
    }
    errors
}

impl Converter {
    /// None: the versions of the CRD differ in name only.
    pub fn of(crd: &Value, store: Option<&SharedStore>) -> Option<Self> {
        if text_at(crd, &["spec", "conversion", "strategy"]) != "Webhook" {
            return None;
        }
        let config = client_config(crd);
        Some(Self {
            endpoint: config.map_or_else(|| Err("no clientConfig".to_owned()), Endpoint::of),
            store: store.cloned(),
        })
    }

    async fn convert(&self, kind: &Kind, wanted: &str, objects: Vec<Value>) -> Result<Vec<Value>> {
        let mut out = Vec::with_capacity(objects.len());
        for part in objects.chunks(OBJECTS_MAX) {
            let failed = |why: String| {
                let from = part.first().map_or("", |object| text_at(object, &["apiVersion"]));
                Error::internal_plain(format!("conversion webhook for {from}, Kind={} failed: {why}", kind.kind))
            };
            out.extend(self.ask(kind, wanted, part).await.map_err(failed)?);
        }
        Ok(out)
    }

    async fn ask(&self, kind: &Kind, wanted: &str, objects: &[Value]) -> Result<Vec<Value>, String> {
        let endpoint = self.endpoint.as_ref().map_err(Clone::clone)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        });
        let most = (ANSWER_BYTES_PER_OBJECT * objects.len()).min(ANSWER_BYTES_MAX);
        let asked = endpoint.post(self.store.as_ref(), review.to_string().into_bytes(), None, most);
        let span = trace::child(|| "Call conversion webhook".to_owned(), trace::Kind::Client);
        let asked = trace::within(span.as_ref().map(Span::context), || asked);
        let answer = tokio::time::timeout(TIMEOUT, asked).await;
        drop(span);
        let answer = answer.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?;
        let answer = answer.map_err(|error| error.text(&endpoint.url(None)))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let response = answer.get("response").ok_or("no response provided")?;
        let got = text_at(response, &["uid"]);
        if got != uid {
            return Err(format!("expected response.uid={uid:?}, got {got:?}"));
        }
        if text_at(response, &["result", "status"]) != "Success" {
            let why = text_at(response, &["result", "message"]);
            return Err(if why.is_empty() { "no message".to_owned() } else { why.to_owned() });
        }
        let converted = response.get("convertedObjects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if converted.len() != objects.len() {
            return Err(format!("returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs
            .map(|(index, (before, after))| {
                checked(kind, wanted, before, after)
                    .map_err(|why| format!("returned invalid converted object at index {index}: {why}"))
            })
            .collect()
    }
}

/// A converted object with the metadata that it had; only its labels and annotations may be others.
fn checked(kind: &Kind, wanted: &str, before: &Value, after: &Value) -> Result<Value, String> {
    let version = text_at(after, &["apiVersion"]);
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    let found = text_at(after, &["kind"]);
    if found != &*kind.kind {
        return Err(format!("invalid kind (expected {}, received {found})", kind.kind));
    }
    for key in ["name", "namespace", "uid"] {
        let (before, after) = (text_at(before, &["metadata", key]), text_at(after, &["metadata", key]));
        if before != after {
            return Err(format!("must have the same {key}: {before} != {after}"));
        }
    }
    let mut object = after.clone();
    let mut metadata = before.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = metadata.as_object_mut() {
        for key in ["labels", "annotations"] {
            match at(after, &["metadata", key]).filter(|value| !value.is_null()) {
                Some(value) => drop(fields.insert(key.to_owned(), value.clone())),
                None => drop(fields.remove(key)),
            }
        }
    }
    object["metadata"] = metadata;
    Ok(object)
}

fn converter(kind: &Kind) -> Option<&Arc<Converter>> {
    kind.custom.as_ref()?.converter.as_ref()
}

/// What was read from the store, as the kind's version has it.
pub(crate) async fn served(kind: &Kind, mut items: Vec<KeyValue>) -> Result<Vec<KeyValue>> {
    let Some(converter) = converter(kind) else { return Ok(items) };
    let is_other = |kv: &KeyValue| !kv.value.starts_with(kind.head.as_bytes());
    let places: Vec<usize> = items.iter().enumerate().filter(|(_, kv)| is_other(kv)).map(|(place, _)| place).collect();
    if places.is_empty() {
        return Ok(items);
    }
    let objects = places.iter().filter_map(|place| items.get(*place)).map(object::decode_kv).collect::<Result<_>>()?;
    let converted = converter.convert(kind, &kind.api_version(), objects).await?;
    for (place, mut object) in places.into_iter().zip(converted) {
        if let Some(schema) = kind.schema() {
            schema.prune(&mut object);
            schema.default(&mut object);
        }
        if let Some(kv) = items.get_mut(place) {
            kv.value = object::encode(&kind.head, &object).into();
        }
    }
    Ok(items)
}

/// The same of one.
pub(crate) async fn served_one(kind: &Kind, kv: KeyValue) -> Result<KeyValue> {
    if converter(kind).is_none() {
        return Ok(kv);
    }
    let mut items = served(kind, vec![kv]).await?;
    items.pop().ok_or_else(|| Error::internal_plain("a converted object was lost"))
}

/// The same of what was just written.
pub(crate) async fn shown(kind: &Kind, stored: Stored) -> Result<Stored> {
    if converter(kind).is_none() {
        return Ok(stored);
    }
    let revision = stored.revision.unwrap_or_default();
    let kv = KeyValue { key: Bytes::new(), value: stored.bytes, created: revision, modified: revision };
    Ok(Stored { bytes: served_one(kind, kv).await?.value, revision: stored.revision })
}

/// The same of an event.
pub(crate) async fn event(kind: &Kind, event: Event) -> Result<Event> {
    Ok(match event {
        Event::Put { item, prev } => {
            let item = served_one(kind, item).await?;
            let prev = match prev {
                Some(prev) => Some(served_one(kind, prev).await?),
                None => None,
            };
            Event::Put { item, prev }
        }
        Event::Delete { revision, prev } => Event::Delete { revision, prev: served_one(kind, prev).await? },
    })
}

/// Whether events have to be converted before they can be shown.
pub(crate) fn waits(kind: &Kind) -> bool {
    converter(kind).is_some()
}

/// An object of the kind's version in the one that is stored.
pub(crate) async fn to_stored(kind: &Kind, object: Value) -> Result<Value> {
    if let Some(local) = local(kind) {
        return local.convert(&object, &kind.storage_api_version);
    }
    let Some(converter) = converter(kind) else { return Ok(object) };
    if kind.api_version() == *kind.storage_api_version {
        return Ok(object);
    }
    let mut converted = converter.convert(kind, &kind.storage_api_version, vec![object]).await?;
    converted.pop().ok_or_else(|| Error::internal_plain("a converted object was lost"))
}

/// An object of one version of a kind in another.
pub(crate) async fn between(from: &Kind, to: &Kind, mut object: Value) -> Result<Value> {
    if from.group == to.group && from.version == to.version {
        return Ok(object);
    }
    if let Some(local) = local(from) {
        object = local.convert(&object, &to.api_version())?;
    } else if let Some(converter) = converter(from) {
        let mut converted = converter.convert(from, &to.api_version(), vec![object]).await?;
        object = converted.pop().ok_or_else(|| Error::internal_plain("a converted object was lost"))?;
    } else {
        if let Some((_, to_stored)) = from.convert {
            to_stored(&mut object);
        }
        object::set_at(&mut object, &["apiVersion"], to.api_version().into());
        if let Some((from_stored, _)) = to.convert {
            from_stored(&mut object);
        }
    }
    if let Some(schema) = to.schema().filter(|_| to.is_custom()) {
        schema.prune(&mut object);
        schema.default(&mut object);
    }
    Ok(object)
}
