//! What a client wants back (the Accept header), and what it sends (Content-Type).

use http::HeaderMap;

use crate::{
    body::Media,
    kinds::Kind,
    status::{Error, Result},
};

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Object,
    Table,
    /// PartialObjectMetadata(List).
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub form: Form,
    pub media: Media,
    /// Tables and metadata in the version before v1, which only says so.
    pub v1beta1: bool,
    /// Metadata alone was asked for, and of a list (or not).
    pub list_form: Option<bool>,
}

/// What built-in kinds can be had in.
pub(crate) const REPRESENTATIONS: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

struct Range<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

/// The media ranges of an Accept header, most wanted first.
fn ranges(header: &str) -> Vec<Range<'_>> {
    let mut list: Vec<Range<'_>> = header
        .split(',')
        .map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().unwrap_or_default();
            let parameters: Vec<_> = pieces.filter_map(|p| p.split_once('=')).collect();
            let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Range { media, parameters, quality }
        })
        .filter(|range| !range.media.is_empty() && range.quality > 0.0)
        .collect();
    list.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    list
}

fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(http::header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let joined = values.collect::<Vec<_>>().join(",");
    if joined.is_empty() { "*/*".to_owned() } else { joined }
}

/// `tables`: whether the answer can be given as a Table or as metadata alone. `protobuf`: whether the object itself can be
/// given in protobuf; metadata always can, a Table never.
pub(crate) fn answer(headers: &HeaderMap, tables: bool, protobuf: bool) -> Result<Answer> {
    for range in ranges(&accept(headers)) {
        let media = match range.media {
            "application/json" | "application/*" | "*/*" => Media::Json,
            "application/yaml" => Media::Yaml,
            PROTOBUF => Media::Protobuf,
            _ => continue,
        };
        let form = match range.parameter("as") {
            None => Form::Object,
            Some(_) if !tables || range.parameter("g") != Some("meta.k8s.io") => continue,
            Some("Table") => Form::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Form::Metadata,
            Some(_) => continue,
        };
        match form {
            Form::Object if media == Media::Protobuf && !protobuf => continue,
            Form::Table if media == Media::Protobuf => continue,
            _ => {}
        }
        if form != Form::Object && !matches!(range.parameter("v"), Some("v1" | "v1beta1")) {
            continue;
        }
        let list_form = range.parameter("as").filter(|_| form == Form::Metadata).map(|form| form.ends_with("List"));
        let v1beta1 = form != Form::Object && range.parameter("v") == Some("v1beta1");
        return Ok(Answer { form, media, v1beta1, list_form });
    }
    Err(refusal(headers))
}

/// Nothing that is accepted can be had: not even its media type, or only not in the form that is wanted.
fn refusal(headers: &HeaderMap) -> Error {
    let accept = accept(headers);
    let known = ranges(&accept).iter().any(|range| REPRESENTATIONS.contains(&range.media));
    if known { Error::not_acceptable(&REPRESENTATIONS) } else { Error::no_representation(&REPRESENTATIONS) }
}

/// A table or metadata, in JSON, with the version that was asked for.
pub(crate) fn dated(json: Vec<u8>, answer: Answer) -> Vec<u8> {
    if !answer.v1beta1 {
        return json;
    }
    // Within a text, its quotes would be escaped.
    let text = String::from_utf8_lossy(&json);
    text.replace("\"apiVersion\":\"meta.k8s.io/v1\"", "\"apiVersion\":\"meta.k8s.io/v1beta1\"").into_bytes()
}

/// Whether somebody takes this media type, or any.
pub(crate) fn takes(headers: &HeaderMap, media: &str) -> bool {
    let accept = accept(headers);
    let ranges = ranges(&accept);
    ranges.is_empty() || ranges.iter().any(|range| range.media == "*/*" || range.media == media)
}

/// Whether all that is wanted is `application/*`, which upstream's router of built-in kinds does not know.
pub(crate) fn wants_any_application(headers: &HeaderMap) -> bool {
    let accept = accept(headers);
    let ranges = ranges(&accept);
    !ranges.is_empty() && ranges.iter().all(|range| range.media == "application/*")
}

/// The package of upstream's internal types, which some texts name.
pub(crate) fn internal_package(kind: &Kind) -> &str {
    match kind.group.split('.').next() {
        _ if kind.is_custom() => "unstructured",
        Some("") | None => "core",
        Some(first) => first,
    }
}

/// What a failure is told in.
pub(crate) fn failure_media(headers: &HeaderMap) -> Media {
    if !headers.contains_key(http::header::ACCEPT) {
        return Media::Json;
    }
    answer(headers, true, true).map_or(Media::Json, |answer| answer.media)
}

/// As an answer is marked; requests have an `@`, which is no media type.
pub(crate) const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Whether OpenAPI is wanted in protobuf before all else.
pub(crate) fn wants_openapi_protobuf(headers: &HeaderMap) -> bool {
    let accept = accept(headers);
    ranges(&accept).first().is_some_and(|r| {
        r.media.starts_with("application/com.github.proto-openapi.spec.v2") && r.media.ends_with("+protobuf")
    })
}

/// Whether the aggregated form of discovery is wanted: the version asked for.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    for range in ranges(&accept(headers)) {
        if range.media == "application/json" && range.parameter("g") == Some("apidiscovery.k8s.io") {
            match range.parameter("v") {
                Some("v2") => return Some("v2"),
                Some("v2beta1") => return Some("v2beta1"),
                _ => {}
            }
        } else if matches!(range.media, "application/json" | "*/*" | "application/*") && range.parameter("as").is_none()
        {
            return None;
        }
    }
    None
}

/// What a body is written in.
pub(crate) fn body_media(headers: &HeaderMap) -> Result<Media> {
    let Some(header) = headers.get(http::header::CONTENT_TYPE) else { return Ok(Media::Json) };
    let text = header.to_str().unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        _ => Err(Error::unsupported_media_type(&REPRESENTATIONS)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// `strategic`: whether the kind can be patched by strategic merge.
pub(crate) fn patch_type(headers: &HeaderMap, strategic: bool) -> Result<PatchType> {
    let header = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match header.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" if strategic => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        "application/strategic-merge-patch+json" => Err(Error::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ])),
        _ if strategic => Err(Error::unsupported_patch()),
        _ => Err(Error::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ])),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn accepts(value: &'static str) -> Option<(Form, Media)> {
        answer(&headers(http::header::ACCEPT, value), true, true).ok().map(|a| (a.form, a.media))
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        assert_eq!(
            accepts(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            Some((Form::Table, Media::Json))
        );
        let protobuf = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accepts(protobuf), Some((Form::Object, Media::Protobuf)));
        let custom = answer(&headers(http::header::ACCEPT, protobuf), true, false);
        assert_eq!(custom.map(|a| a.media).ok(), Some(Media::Json));
        assert_eq!(
            accepts("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json"),
            Some((Form::Object, Media::Json))
        );
        assert_eq!(accepts("*/*"), Some((Form::Object, Media::Json)));
        assert_eq!(accepts("application/yaml"), Some((Form::Object, Media::Yaml)));
        assert_eq!(accepts("application/json;q=0.1, application/yaml;q=0.9"), Some((Form::Object, Media::Yaml)));
        assert_eq!(
            accepts("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Some((Form::Metadata, Media::Json))
        );
        assert!(answer(&headers(http::header::ACCEPT, "application/vnd.kubernetes.protobuf"), true, false).is_err());
        assert_eq!(accepts("text/html"), None);
        assert!(answer(&HeaderMap::new(), true, true).is_ok());
    }

    #[test]
    fn discovery_is_aggregated_when_that_is_wanted_first() {
        let wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_discovery(&headers(http::header::ACCEPT, wanted)), Some("v2"));
        assert_eq!(aggregated_discovery(&headers(http::header::ACCEPT, "application/json")), None);
        assert_eq!(aggregated_discovery(&HeaderMap::new()), None);
    }

    #[test]
    fn patches_are_told_apart_and_others_refused() {
        let patch = |value, strategic| patch_type(&headers(http::header::CONTENT_TYPE, value), strategic).ok();
        assert_eq!(patch("application/apply-patch+yaml", false), Some(PatchType::Apply));
        assert_eq!(patch("application/strategic-merge-patch+json", true), Some(PatchType::Strategic));
        assert_eq!(patch("application/strategic-merge-patch+json", false), None);
        assert_eq!(patch("application/json", true), None);
    }
}
