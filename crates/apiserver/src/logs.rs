//! What containers have written (`pods/log`).
//!
//! Source: kubernetes/kubernetes pkg/registry/core/pod/strategy.go (`LogLocation`), pkg/kubelet/kubelet_pods.go.
//! Left out: times of lines, so also what asks for them. What is followed ends with what is there.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use crate::{
    answer::respond,
    field::FieldError,
    http::Call,
    object::{self, at, text_at},
    path::Query,
    rest,
    status::{Error, Result},
};

/// What a kubelet does: tells what a container of a pod has written since it was started last.
pub trait Logs: Send + Sync + 'static {
    fn of(&self, pod: &Value, container: &str) -> String;
}

const MEDIA: &str = "text/plain";
const LISTS: [&str; 2] = ["containers", "initContainers"];

pub(crate) async fn serve(call: &Call) -> Result<Response> {
    let limits = Limits::read(&call.query)?;
    let scope = call.scope()?;
    let kv = scope.current().await?.ok_or_else(|| scope.not_found())?;
    let pod = rest::served_value(&scope.kind, &kv)?;
    let container = container(&pod, call.query.text("container"))?;
    let answer = |text: String| respond(StatusCode::OK, MEDIA, text.into());
    if text_at(&pod, &["spec", "nodeName"]).is_empty() {
        return Ok(answer(String::new()));
    }
    check_started(&pod, &container, call.query.flag("previous"))?;
    let Some(logs) = &call.server.state().options.logs else {
        return Err(Error::internal("error dialing backend: no node of this cluster runs pods"));
    };
    Ok(answer(limits.cut(logs.of(&pod, &container))))
}

/// How much of it is wanted.
struct Limits {
    lines: Option<usize>,
    bytes: Option<usize>,
}

impl Limits {
    fn read(query: &Query) -> Result<Self> {
        for key in ["sinceSeconds", "sinceTime", "timestamps", "stream"] {
            if query.text(key).is_some_and(|value| value != "false") {
                return Err(Error::bad_request(format!(
                    "{key}: the lines of this cluster's logs have no times and streams"
                )));
            }
        }
        let (lines, bytes) = (query.number("tailLines")?, query.number("limitBytes")?);
        let mut errors = Vec::new();
        if let Some(lines) = lines.filter(|lines| *lines < 0) {
            errors.push(FieldError::invalid("tailLines", lines, "must be greater than or equal to 0"));
        }
        if let Some(bytes) = bytes.filter(|bytes| *bytes < 1) {
            errors.push(FieldError::invalid("limitBytes", bytes, "must be greater than 0"));
        }
        if !errors.is_empty() {
            return Err(Error::invalid("", "PodLogOptions", "", &errors));
        }
        let number = |number: i64| usize::try_from(number).ok();
        Ok(Self { lines: lines.and_then(number), bytes: bytes.and_then(number) })
    }

    /// The last lines, and of these the first bytes.
    fn cut(&self, text: String) -> String {
        let from = match self.lines {
            Some(0) => text.len(),
            Some(lines) => {
                let ends = text.trim_end_matches('\n').rmatch_indices('\n').nth(lines - 1);
                ends.map_or(0, |(at, _)| at + 1)
            }
            None => 0,
        };
        let rest = text.get(from..).unwrap_or_default();
        match self.bytes {
            Some(bytes) => rest[..rest.floor_char_boundary(bytes)].to_owned(),
            None => rest.to_owned(),
        }
    }
}

/// The container that is asked for; without a name, the only one.
fn container(pod: &Value, wanted: Option<&str>) -> Result<String> {
    let names = |list: &str| -> Vec<&str> {
        let containers = at(pod, &["spec", list]).and_then(Value::as_array).into_iter().flatten();
        containers.map(|container| text_at(container, &["name"])).collect()
    };
    let [own, init] = LISTS.map(names);
    let pod = object::name(pod);
    match (wanted, &own[..]) {
        (Some(wanted), _) if own.contains(&wanted) || init.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(Error::bad_request(format!("container {wanted} is not valid for pod {pod}"))),
        (None, [only]) if init.is_empty() => Ok((*only).to_owned()),
        (None, _) => {
            let others = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            let own = own.join(" ");
            let text = format!("a container name must be specified for pod {pod}, choose one of: [{own}]{others}");
            Err(Error::bad_request(text))
        }
    }
}

/// Whether a container has begun, and, for what it wrote before, begun anew.
fn check_started(pod: &Value, container: &str, previous: bool) -> Result<()> {
    let statuses = ["containerStatuses", "initContainerStatuses"].map(|list| at(pod, &["status", list]));
    let mut statuses = statuses.into_iter().flatten().filter_map(Value::as_array).flatten();
    let status = statuses.find(|status| text_at(status, &["name"]) == container).unwrap_or(&Value::Null);
    let restarts = status.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
    let name = object::name(pod);
    if previous && restarts == 0 {
        let text = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
        return Err(Error::bad_request(text));
    }
    let has_run = status.pointer("/lastState/terminated").is_some();
    let reason = match (status.is_null(), status.pointer("/state/waiting")) {
        (true, _) => "ContainerCreating",
        (_, Some(waiting)) if !has_run => text_at(waiting, &["reason"]),
        _ => return Ok(()),
    };
    Err(Error::bad_request(format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_of_these_the_first_bytes() {
        let cut = |lines, bytes, text: &str| Limits { lines, bytes }.cut(text.to_owned());
        let text = "one\ntwo\nthrée\n";
        assert_eq!(cut(None, None, text), text);
        assert_eq!(cut(Some(2), None, text), "two\nthrée\n");
        assert_eq!(cut(Some(9), None, text), text);
        assert_eq!(cut(Some(0), None, text), "");
        assert_eq!(cut(Some(1), Some(5), text), "thr\u{e9}");
        assert_eq!(cut(Some(1), Some(4), text), "thr", "no half of a character");
        assert_eq!(cut(Some(1), None, ""), "");
    }
}
