//! TracingConfiguration (`component-base/tracing/api/v1`): read and checked in upstream's words.

use std::path::PathBuf;

use serde::Deserialize;

use crate::field::FieldError;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    #[error("it is no apiserver.config.k8s.io/v1 TracingConfiguration: {0}")]
    Form(String),
    #[error("{0}")]
    Invalid(String),
}

const RATE_MAX: i32 = 1_000_000;
/// Where collectors listen for OTLP over gRPC.
const ENDPOINT: &str = "localhost:4317";

/// Where the collector is; the connection is not encrypted, as upstream's is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug)]
pub(super) struct Configured {
    pub endpoint: Endpoint,
    pub rate_per_million: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

pub(super) fn parse(text: &str) -> Result<Configured, TracingError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| TracingError::Form(error.to_string()))?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
    if !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) || file.kind != "TracingConfiguration" {
        return Err(TracingError::Form(format!("its type is {} {}", file.api_version, file.kind)));
    }
    let mut errors = Vec::new();
    let rate = file.sampling_rate_per_million.unwrap_or(0);
    let rate_error = |why: &str| FieldError::invalid("samplingRatePerMillion", rate, why);
    if rate < 0 {
        errors.push(rate_error("sampling rate must be positive"));
    }
    if rate > RATE_MAX {
        errors.push(rate_error("sampling rate per million must be less than or equal to one million"));
    }
    let endpoint = match endpoint(file.endpoint.as_deref().unwrap_or(ENDPOINT)) {
        Ok(endpoint) if errors.is_empty() => endpoint,
        Ok(_) => return Err(invalid(&errors)),
        Err(error) => {
            errors.push(error);
            return Err(invalid(&errors));
        }
    };
    Ok(Configured { endpoint, rate_per_million: u32::try_from(rate).unwrap_or(0) })
}

fn invalid(errors: &[FieldError]) -> TracingError {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    TracingError::Invalid(texts.join(", "))
}

/// A target as gRPC names it (`doc/naming.md`): `host:port`, `dns:///host:port`, `unix:path`, `unix:///path`.
fn endpoint(text: &str) -> Result<Endpoint, FieldError> {
    let refuse = |why: &str| Err(FieldError::invalid("endpoint", text, why));
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { refuse("it names no socket") } else { Ok(Endpoint::Unix(path.into())) };
    }
    let address = match text.split_once("://") {
        Some(("dns", rest)) => rest.rsplit('/').next().unwrap_or_default(),
        Some((scheme, _)) => {
            return refuse(&format!("unsupported scheme: {scheme}.  Options are none, dns, or unix"));
        }
        None => text.strip_prefix("dns:").unwrap_or(text),
    };
    match address.parse::<http::uri::Authority>() {
        Ok(authority) if authority.port_u16().is_some() && !authority.host().is_empty() => {
            Ok(Endpoint::Tcp(address.to_owned()))
        }
        _ => refuse("it must be a host and a port, as in localhost:4317"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fields: &str) -> Result<Configured, String> {
        let head = "{apiVersion: apiserver.config.k8s.io/v1, kind: TracingConfiguration";
        parse(&format!("{head}{fields}}}")).map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints_are_those_of_grpc() {
        assert_eq!(parsed("").unwrap().endpoint, Endpoint::Tcp(ENDPOINT.to_owned()));
        for (text, wanted) in [
            ("localhost:1", Endpoint::Tcp("localhost:1".to_owned())),
            ("[::1]:4317", Endpoint::Tcp("[::1]:4317".to_owned())),
            ("dns:///a.example:4317", Endpoint::Tcp("a.example:4317".to_owned())),
            ("dns://8.8.8.8/a.example:4317", Endpoint::Tcp("a.example:4317".to_owned())),
            ("unix:run/otel", Endpoint::Unix("run/otel".into())),
            ("unix:///run/otel", Endpoint::Unix("/run/otel".into())),
        ] {
            assert_eq!(parsed(&format!(", endpoint: '{text}'")).unwrap().endpoint, wanted);
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (fields, wanted) in [
            (", endpoint: 'http://a:1'", "unsupported scheme: http"),
            (", endpoint: a", "a host and a port"),
            (", endpoint: 'unix:'", "no socket"),
            (", samplingRatePerMillion: -1", "sampling rate must be positive"),
            (", samplingRatePerMillion: 1000001", "less than or equal to one million"),
            (", rate: 1", "rate"),
        ] {
            let error = parsed(fields).unwrap_err();
            assert!(error.contains(wanted), "{fields}: {error}");
        }
        assert_eq!(parsed(", samplingRatePerMillion: 1000000").unwrap().rate_per_million, 1_000_000);
        assert!(parse("{apiVersion: apiserver.config.k8s.io/v2, kind: TracingConfiguration}").is_err());
    }
}
