//! Connections to clusters whose kubeconfig we have.

mod limits;

use std::time::Duration;

use futures::future::BoxFuture;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};

use self::limits::{ANSWER_BYTES_MAX, Limits};
use crate::{Error, Key, Result};

/// One call to a workload cluster.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Turns a kubeconfig into a client.
pub trait Connect: Send + Sync + 'static {
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<Client>>;
}

/// Over the network, as the kubeconfig says.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Connect for Direct {
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<Client>> {
        Box::pin(async move {
            let unreadable =
                |error: &dyn std::fmt::Display| Error::Retry(format!("the kubeconfig cannot be used: {error}"));
            // The parser's own words quote the lines around, and those of a proxy its password: conditions show them to everybody.
            let kubeconfig = Kubeconfig::from_yaml(kubeconfig).map_err(|_| unreadable(&"it is not a kubeconfig"))?;
            let mut clusters = kubeconfig.clusters.iter().filter_map(|one| one.cluster.as_ref());
            if clusters.any(|cluster| cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty())) {
                return Err(unreadable(&"it has a proxy-url: workload clusters are reached directly"));
            }
            // It is a tenant's to write, and this machine's files and programs are not.
            let is_local = |user: &AuthInfo| {
                user.exec.is_some()
                    || user.auth_provider.is_some()
                    || [&user.token_file, &user.client_certificate, &user.client_key].into_iter().any(Option::is_some)
            };
            let mut users = kubeconfig.auth_infos.iter().filter_map(|one| one.auth_info.as_ref());
            let mut authorities = kubeconfig.clusters.iter().filter_map(|one| one.cluster.as_ref());
            if users.any(is_local) || authorities.any(|cluster| cluster.certificate_authority.is_some()) {
                return Err(unreadable(&"it names files or programs: only what it holds itself is used"));
            }
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let mut config = config.map_err(|error| unreadable(&error))?;
            // What the environment names is on the way to clouds.
            config.proxy_url = None;
            config.connect_timeout = Some(CALL_LIMIT);
            let client = ClientBuilder::try_from(config).map_err(|error| unreadable(&error))?;
            Ok(client.with_layer(&Limits(ANSWER_BYTES_MAX)).build())
        })
    }
}

/// One call to a workload cluster, which must not hold up the reconciles of others: an API that goes away in the middle of
/// a call may never answer it.
pub async fn bounded<T, E>(
    cluster: &Key,
    call: impl Future<Output = std::result::Result<T, E>>,
) -> Result<std::result::Result<T, E>> {
    let answered = tokio::time::timeout(CALL_LIMIT, call).await;
    answered.map_err(|_| Error::Retry(format!("the API of cluster {cluster} does not answer within {CALL_LIMIT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_that_never_answers_holds_up_nobody() {
        let cluster = Key::new("default", "demo");
        let started = tokio::time::Instant::now();
        let never = bounded::<(), ()>(&cluster, std::future::pending()).await;
        assert!(never.unwrap_err().to_string().contains("does not answer within 5s"));
        assert_eq!(started.elapsed(), CALL_LIMIT);
        assert_eq!(bounded::<_, ()>(&cluster, async { Ok(1) }).await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn a_kubeconfig_runs_no_program_and_reads_no_file_of_this_machine() {
        let kubeconfig = |cluster: &str, user: &str| {
            format!(
                "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
                 clusters: [{{name: a, cluster: {{server: 'https://192.0.2.1:6443'{cluster}}}}}]\n\
                 users: [{{name: a, user: {{{user}}}}}]\n"
            )
        };
        for (cluster, user) in [
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/a], interactiveMode: Never}",
            ),
            ("", "auth-provider: {name: gcp, config: {cmd-path: touch}}"),
            ("", "tokenFile: /etc/passwd"),
            ("", "client-certificate: /etc/passwd, client-key: /etc/passwd"),
            (", certificate-authority: /etc/passwd", "token: a"),
        ] {
            let told = Direct.connect(&kubeconfig(cluster, user)).await.err().map(|error| error.chain());
            assert!(told.as_ref().is_some_and(|told| told.contains("files or programs")), "{user}: {told:?}");
        }
        assert!(Direct.connect(&kubeconfig("", "token: a")).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_that_a_kubeconfig_hides_is_told() {
        let kubeconfig = |cluster: &str, user: &str| {
            format!(
                "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
                 clusters:\n- name: a\n  cluster: {{server: 'https://192.0.2.1:6443', {cluster}}}\n\
                 users:\n- name: a\n  user:\n    token: s3cret\n    {user}\n"
            )
        };
        let told = async |text: String| Direct.connect(&text).await.err().unwrap().chain();
        let proxy = told(kubeconfig("proxy-url: 'http://user:s3cret@proxy.test:3128'", "")).await;
        assert!(proxy.contains("proxy-url") && !proxy.contains("s3cret"), "{proxy}");
        let broken = told(kubeconfig("", "token-file: [")).await;
        assert!(broken.contains("kubeconfig") && !broken.contains("s3cret"), "{broken}");
    }
}
