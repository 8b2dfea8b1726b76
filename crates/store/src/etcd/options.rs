//! Where an etcd is, and how it is spoken to.

use std::{net::IpAddr, str::FromStr, time::Duration};

use crate::{Limits, Revision};

/// The prefix of keys where none is named.
pub const PREFIX: &str = "/skep";
const ENDPOINTS_MAX: usize = 16;
const SCHEME: &str = "etcd://";

/// Why an address or a certificate cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    #[error("{0:?} is no address of an etcd: write etcd://HOST:PORT[,HOST:PORT...][/PREFIX]")]
    Address(String),
    #[error("{count} endpoints are over the limit of {ENDPOINTS_MAX}")]
    Endpoints { count: usize },
    #[error("read the {what} in PEM: {why}")]
    Pem { what: &'static str, why: String },
}

/// Members and prefix, as in `etcd://10.0.0.1:2379,10.0.0.2:2379/skep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// Begins with a slash and does not end with one. No installation's prefix may lie below another's.
    pub prefix: String,
}

impl Address {
    /// Whether `text` means an etcd at all.
    pub fn is_etcd(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Whether all members are on this machine, where nobody listens in.
    pub fn is_local(&self) -> bool {
        self.endpoints.iter().all(|endpoint| {
            let host = endpoint.rsplit_once(':').map_or(endpoint.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::Address(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoints: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(Invalid::Endpoints { count: endpoints.len() });
        }
        for endpoint in &endpoints {
            let (host, port) = endpoint.rsplit_once(':').ok_or_else(invalid)?;
            let bare = !host.contains([':', '@', '?', '#']) || (host.starts_with('[') && host.ends_with(']'));
            if host.is_empty() || !bare || port.parse::<u16>().is_err() {
                return Err(invalid());
            }
        }
        let prefix = prefix.trim_matches('/');
        if prefix.contains(['?', '#']) || prefix.chars().any(char::is_control) {
            return Err(invalid());
        }
        let prefix = if prefix.is_empty() { PREFIX.to_owned() } else { format!("/{prefix}") };
        Ok(Self { endpoints, prefix })
    }
}

/// Certificates in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who signs the members' certificates.
    pub ca_pem: String,
    /// Who we are to them: certificate chain and key.
    pub client: Option<(String, String)>,
}

#[derive(Clone)]
pub struct Options {
    pub address: Address,
    /// None: not encrypted.
    pub tls: Option<Tls>,
    /// Of these count: keys, values, operations of a commit (etcd has its own as well), history, watchers, backlogs and
    /// commits under way.
    pub limits: Limits,
    /// A member that takes longer with a call is left for the next one.
    pub request_timeout: Duration,
    /// After this, a small read is asked again of the next member, and a commit whose answer has not come is found out about: a leader that is lost takes with it what it was
    /// given last, and nobody says so.
    pub commit_timeout: Duration,
    /// How long a read or a commit goes on trying, over as many members as it takes.
    pub patience: Duration,
    /// How often one of the servers lets etcd forget what was before the last time; none: never.
    pub compact_interval: Option<Duration>,
    /// Revisions of a store that is made by this begin above: what was there before has lower ones.
    pub above: Revision,
}

impl Options {
    pub fn new(address: Address, tls: Option<Tls>) -> Self {
        Self {
            address,
            tls,
            limits: Limits::default(),
            request_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(2),
            patience: Duration::from_secs(20),
            compact_interval: Some(Duration::from_secs(300)),
            above: Revision(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        let read = |text: &str| text.parse::<Address>();
        let address = read("etcd://10.0.0.1:2379,[::1]:1,db.example.org:2379/a/b/").unwrap();
        assert_eq!(address.endpoints, ["10.0.0.1:2379", "[::1]:1", "db.example.org:2379"]);
        assert_eq!(address.prefix, "/a/b");
        assert!(!address.is_local() && read("etcd://127.0.0.1:1,[::1]:2,localhost:3").unwrap().is_local());
        assert_eq!(read("etcd://h:1").unwrap().prefix, PREFIX);
        for bad in [
            "",
            "h:1",
            "http://h:1",
            "etcd://",
            "etcd://h",
            "etcd://:1",
            "etcd://h:x",
            "etcd://h:1,",
            "etcd://a:b:1",
            "etcd://u@h:1",
            "etcd://h:1/p?x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = |count: usize| read(&format!("etcd://{}", vec!["h:1"; count].join(",")));
        assert!(many(ENDPOINTS_MAX).is_ok());
        assert_eq!(many(ENDPOINTS_MAX + 1), Err(Invalid::Endpoints { count: ENDPOINTS_MAX + 1 }));
    }
}
