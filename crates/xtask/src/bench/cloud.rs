//! The sandbox's cloud, as its administrator.

use anyhow::{Context, Result, ensure};
use kube::{Client, Config, client::Body};
use serde_json::{Value, json};

use super::CLOUD;

/// Where the sandbox is told what to get wrong (docs/guides/faults.md).
const FAULTS: &str = "/sandbox/faults";

pub struct Cloud {
    client: Client,
    token: String,
}

impl Cloud {
    /// Signs in with the administrator's entry of the sandbox's clouds.yaml.
    pub async fn open(clouds_yaml: &str) -> Result<Self> {
        let clouds: Value = serde_saphyr::from_str(clouds_yaml).context("read clouds.yaml")?;
        let auth = &clouds["clouds"][format!("{CLOUD}-admin")]["auth"];
        let text = |key: &str| auth[key].as_str().with_context(|| format!("clouds.yaml has no {key}"));
        let url: http::Uri = text("auth_url")?.parse().context("read auth_url")?;
        let host = url.authority().context("auth_url has no host")?;
        // Any client of HTTP would do, and this one is there.
        let client = Client::try_from(Config::new(format!("http://{host}").parse()?))?;
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": text("username")?, "password": text("password")?, "domain": {"name": "Default"},
            }}},
            "scope": {"project": {"name": text("project_name")?, "domain": {"name": "Default"}}},
        }});
        let path = format!("{}/v3/auth/tokens", url.path().trim_end_matches('/'));
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let answer = client.send(request.body(Body::from(serde_json::to_vec(&body)?))?).await.context("sign in")?;
        ensure!(answer.status().is_success(), "the cloud refuses its administrator: {}", answer.status());
        let token = answer.headers().get("x-subject-token").context("the cloud gives no token")?;
        Ok(Self { client, token: token.to_str()?.to_owned() })
    }

    async fn ask(&self, method: http::Method, body: Vec<u8>) -> Result<Value> {
        let request = http::Request::builder().method(method).uri(FAULTS).header("x-auth-token", &self.token);
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body)?;
        self.client.request::<Value>(request).await.with_context(|| format!("ask the cloud at {FAULTS}"))
    }

    /// From now on, calls are counted; those of administrators, as hollow machines are, are not.
    pub async fn count_calls(&self) -> Result<()> {
        let rule = json!({"calls": [{"effect": {"delay": {"minMs": 0, "maxMs": 0}}}]});
        self.ask(http::Method::PUT, serde_json::to_vec(&rule)?).await.map(drop)
    }

    pub async fn calls(&self) -> Result<u64> {
        let told = self.ask(http::Method::GET, Vec::new()).await?;
        told.pointer("/struck/calls/0")
            .and_then(Value::as_u64)
            .context("the cloud does not tell how many calls there were")
    }
}
