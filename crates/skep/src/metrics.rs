//! `/metrics` of `skep controllers`: for those whom the API server knows by their token and lets read it, as controllers of the field
//! have it (sigs.k8s.io/controller-runtime, pkg/metrics/filters).

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::Figures;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};

pub const METRICS: &str = "/metrics";
/// As Prometheus asks for it: OpenMetrics 1.0.
const MEDIA: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Both questions together.
const REVIEW_LIMIT: Duration = Duration::from_secs(10);
/// Whoever is asked about at once: more are turned away, so that strangers are no load to the API server.
const REVIEWS_MAX: usize = 8;
/// Longer tokens are none.
const TOKEN_BYTES_MAX: usize = 16 << 10;

pub struct Metrics {
    client: Client,
    figures: Figures,
    reviews: Semaphore,
}

impl Metrics {
    /// `client` may ask who somebody is and what they may.
    pub fn new(client: Client, figures: Figures) -> Arc<Self> {
        Arc::new(Self { client, figures, reviews: Semaphore::new(REVIEWS_MAX) })
    }

    pub async fn answer(&self, headers: &HeaderMap) -> Response {
        let Some(token) = token(headers) else {
            return refusal(StatusCode::UNAUTHORIZED, "send the bearer token of a service account");
        };
        let Ok(_slot) = self.reviews.try_acquire() else {
            return refusal(StatusCode::TOO_MANY_REQUESTS, "others are being asked about: try again");
        };
        match timeout(REVIEW_LIMIT, self.review(token)).await {
            Ok(Ok(Verdict::Reader)) => {
                ([(header::CONTENT_TYPE, MEDIA)], format!("{}# EOF\n", self.figures.text())).into_response()
            }
            Ok(Ok(Verdict::Stranger)) => refusal(StatusCode::UNAUTHORIZED, "the API server does not know the token"),
            Ok(Ok(Verdict::Denied(user))) => refusal(
                StatusCode::FORBIDDEN,
                &format!("{user} may not get {METRICS}: bind a ClusterRole with that nonResourceURL"),
            ),
            Ok(Err(error)) => {
                tracing::warn!(%error, "who asks for metrics cannot be found out");
                refusal(StatusCode::SERVICE_UNAVAILABLE, "the API server does not say who you are")
            }
            Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the API server does not answer"),
        }
    }

    async fn review(&self, token: &str) -> kube::Result<Verdict> {
        let params = PostParams::default();
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let asked = TokenReview { spec, ..TokenReview::default() };
        let told = Api::<TokenReview>::all(self.client.clone()).create(&params, &asked).await?.status;
        let Some(user) = told.filter(|told| told.authenticated == Some(true)).and_then(|told| told.user) else {
            return Ok(Verdict::Stranger);
        };
        let UserInfo { username, groups, uid, extra } = user;
        let spec = SubjectAccessReviewSpec {
            user: username.clone(),
            groups,
            uid,
            extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(METRICS.to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let asked = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let told = Api::<SubjectAccessReview>::all(self.client.clone()).create(&params, &asked).await?.status;
        Ok(match told.is_some_and(|told| told.allowed && told.denied != Some(true)) {
            true => Verdict::Reader,
            false => Verdict::Denied(username.unwrap_or_default()),
        })
    }
}

enum Verdict {
    Reader,
    /// The name of whoever it is.
    Denied(String),
    Stranger,
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn refusal(code: StatusCode, why: &str) -> Response {
    (code, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use apiserver::{Options, Profile, Server, ServiceAccountKeys, User};
    use k8s_openapi::api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    };
    use serde_json::{Value, json};
    use store::{Embedded, Limits};

    use super::*;

    async fn create<K>(api: Api<K>, object: Value)
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn answered(metrics: &Metrics, authorization: Option<&str>) -> (StatusCode, String) {
        let headers = authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        let response = metrics.answer(&headers.into_iter().collect()).await;
        let code = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn metrics_are_for_those_alone_who_may_get_them() {
        let options = Options {
            profile: Profile::Management,
            service_account: Some(ServiceAccountKeys {
                signing_key_pem: rcgen::KeyPair::generate().unwrap().serialize_pem(),
                issuer: "https://kubernetes.default.svc".to_owned(),
                ..ServiceAccountKeys::default()
            }),
            ..Options::default()
        };
        let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
        let client = Client::new(server.service_as(User::master("test")), "default");
        create(Api::<Namespace>::all(client.clone()), json!({"metadata": {"name": "watchers"}})).await;
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "watchers");
        let mut tokens = Vec::new();
        for name in ["reader", "other"] {
            create(accounts.clone(), json!({"metadata": {"name": name}})).await;
            let asked = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
            let made = accounts.create_token_request(name, &PostParams::default(), &asked).await.unwrap();
            tokens.push(format!("Bearer {}", made.status.unwrap().token.unwrap()));
        }
        let rules = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
        create(Api::<ClusterRole>::all(client.clone()), json!({"metadata": {"name": "metrics"}, "rules": rules})).await;
        let binding = json!({
            "metadata": {"name": "metrics"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "watchers"}],
        });
        create(Api::<ClusterRoleBinding>::all(client.clone()), binding).await;
        let metrics = Metrics::new(client, Figures::default());
        assert_eq!(answered(&metrics, Some(&tokens[0])).await, (StatusCode::OK, "# EOF\n".to_owned()));
        let (code, why) = answered(&metrics, Some(&tokens[1])).await;
        assert_eq!(code, StatusCode::FORBIDDEN);
        assert!(why.starts_with("system:serviceaccount:watchers:other may not get /metrics"), "{why}");
        for stranger in ["Bearer nonsense", "Basic YTpi", "Bearer "] {
            assert_eq!(answered(&metrics, Some(stranger)).await.0, StatusCode::UNAUTHORIZED, "{stranger}");
        }
        assert_eq!(answered(&metrics, None).await.0, StatusCode::UNAUTHORIZED);
        let longest = |bytes: usize| format!("Bearer {}", "a".repeat(bytes));
        let headers = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert!(token(&headers(&longest(TOKEN_BYTES_MAX))).is_some());
        assert!(token(&headers(&longest(TOKEN_BYTES_MAX + 1))).is_none());
    }

    #[tokio::test]
    async fn one_more_who_has_to_be_asked_about_than_the_limit_is_turned_away() {
        let server = Server::start(Arc::new(Embedded::memory(Limits::default())), Options::default()).await.unwrap();
        let client = Client::new(server.service_as(User::master("test")), "default");
        let metrics = Metrics::new(client, Figures::default());
        let mut slots = Vec::new();
        for _ in 0..REVIEWS_MAX - 1 {
            slots.push(metrics.reviews.try_acquire().unwrap());
        }
        assert_eq!(answered(&metrics, Some("Bearer nonsense")).await.0, StatusCode::UNAUTHORIZED);
        slots.push(metrics.reviews.try_acquire().unwrap());
        assert_eq!(answered(&metrics, Some("Bearer nonsense")).await.0, StatusCode::TOO_MANY_REQUESTS);
    }
}
