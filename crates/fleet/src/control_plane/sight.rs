//! What the controller remembers of workload clusters between reconciles: how their etcd looked, when they last answered,
//! and what lets us into their etcd. None of it is needed: a restart asks anew.

use std::{collections::HashMap, sync::Arc};

use control::{Error, Key, Result};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio_rustls::rustls::ClientConfig;

use super::etcd::{self, Look};
use crate::certificates::{self, Pair};

/// The members of a settled control plane are asked this often: what its pods' state does not tell (an alarm, a member that
/// hangs) is rare, and asking costs a stream and a TLS handshake for each member. Whenever something is to be done, or is
/// not well, they are asked in every reconcile.
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Conditions that come from a workload cluster stay as they were for so long after it answered last
/// (Cluster API: remote-conditions-grace-period).
const GRACE: SignedDuration = SignedDuration::from_mins(5);
/// A client certificate is good for a day, and used for half of it.
const CLIENT_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// Certificates that could not be read are asked for again.
const READ_EVERY: SignedDuration = SignedDuration::from_secs(READ_EVERY_S as i64);
pub const READ_EVERY_S: u64 = 30;

#[derive(Default)]
pub struct Sight(Mutex<HashMap<Key, Memory>>);

#[derive(Default)]
struct Memory {
    answered: Option<Timestamp>,
    look: Option<(Timestamp, Vec<String>, Arc<Look>)>,
    access: Option<(Timestamp, String, Arc<ClientConfig>)>,
    /// By node: when the end of its certificates was asked for, and the answer.
    ends: HashMap<String, (Timestamp, Option<Timestamp>)>,
}

/// What is remembered of the end of a node's certificates.
#[derive(Debug, PartialEq)]
pub enum End {
    /// To be asked for now.
    Due,
    /// Asked for lately, without an answer.
    Asked,
    Known(Timestamp),
}

impl Sight {
    /// How etcd looked when the members on these nodes were asked last, unless that is too long ago.
    pub fn last(&self, cluster: &Key, nodes: &[String], now: Timestamp) -> Option<Arc<Look>> {
        let memory = self.0.lock();
        let (at, asked, look) = memory.get(cluster)?.look.as_ref()?;
        (asked == nodes && now.duration_since(*at) < LOOK_EVERY).then(|| look.clone())
    }

    pub fn keep(&self, cluster: &Key, nodes: &[String], look: &Arc<Look>, now: Timestamp) {
        self.0.lock().entry(cluster.clone()).or_default().look = Some((now, nodes.to_vec(), look.clone()));
    }

    pub fn answers(&self, cluster: &Key, now: Timestamp) {
        self.0.lock().entry(cluster.clone()).or_default().answered = Some(now);
    }

    /// The cluster does not answer: whether it has not been so for long.
    pub fn is_fresh(&self, cluster: &Key, now: Timestamp) -> bool {
        let mut memory = self.0.lock();
        let answered = memory.entry(cluster.clone()).or_default().answered.get_or_insert(now);
        now.duration_since(*answered) < GRACE
    }

    /// What lets us into the cluster's etcd: signed once, and again when the authority changes or half its life is over.
    pub fn access(&self, cluster: &Key, authority: Pair, now: Timestamp) -> Result<Arc<ClientConfig>> {
        if let Some((at, pem, tls)) = self.0.lock().get(cluster).and_then(|memory| memory.access.as_ref())
            && *pem == authority.public
            && now.duration_since(*at) < CLIENT_LIFE
        {
            return Ok(tls.clone());
        }
        let pair = certificates::etcd_client(&cluster.name, &authority, now)?;
        let tls = etcd::tls(&authority.public, &pair).map_err(|why| {
            Error::blocked("CertificatesCorrupted", format!("the etcd authority of {cluster} is of no use: {why}"))
        })?;
        let kept = (now, authority.public, tls.clone());
        self.0.lock().entry(cluster.clone()).or_default().access = Some(kept);
        Ok(tls)
    }

    /// The end of the node's certificates: an answer is kept (writing it down may meet a conflict), a node that gives none
    /// is not asked in every reconcile.
    pub fn end(&self, cluster: &Key, node: &str, now: Timestamp) -> End {
        let mut memory = self.0.lock();
        let ends = &mut memory.entry(cluster.clone()).or_default().ends;
        match ends.get(node) {
            Some((_, Some(end))) => End::Known(*end),
            Some((asked, None)) if now.duration_since(*asked) < READ_EVERY => End::Asked,
            _ => {
                ends.insert(node.to_owned(), (now, None));
                End::Due
            }
        }
    }

    pub fn keep_end(&self, cluster: &Key, node: &str, now: Timestamp, end: Timestamp) {
        self.0.lock().entry(cluster.clone()).or_default().ends.insert(node.to_owned(), (now, Some(end)));
    }

    /// Only these nodes' certificates are still to be noted.
    pub fn keep_ends_of(&self, cluster: &Key, nodes: &[&str]) {
        if let Some(memory) = self.0.lock().get_mut(cluster) {
            memory.ends.retain(|node, _| nodes.contains(&node.as_str()));
        }
    }

    pub fn forget(&self, cluster: &Key) {
        self.0.lock().remove(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_good_for_a_while_and_for_the_nodes_that_were_asked() {
        let (sight, key) = (Sight::default(), Key::new("ns", "demo"));
        let (now, nodes) = (Timestamp::UNIX_EPOCH, ["a".to_owned()]);
        assert!(sight.last(&key, &nodes, now).is_none());
        sight.keep(&key, &nodes, &Arc::default(), now);
        assert!(sight.last(&key, &nodes, now + SignedDuration::from_secs(299)).is_some());
        assert!(sight.last(&key, &nodes, now + SignedDuration::from_secs(300)).is_none());
        assert!(sight.last(&key, &["a".to_owned(), "b".to_owned()], now).is_none());
        sight.forget(&key);
        assert!(sight.last(&key, &nodes, now).is_none());
    }

    #[test]
    fn the_end_of_certificates_is_asked_for_once_and_again_only_when_nothing_came() {
        let (sight, key) = (Sight::default(), Key::new("ns", "demo"));
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        assert_eq!(sight.end(&key, "a", at(0)), End::Due);
        assert_eq!(sight.end(&key, "a", at(1)), End::Asked);
        assert_eq!(sight.end(&key, "b", at(1)), End::Due, "another node is not held up");
        assert_eq!(sight.end(&key, "a", at(30)), End::Due);
        sight.keep_end(&key, "a", at(30), at(1000));
        assert_eq!(sight.end(&key, "a", at(31)), End::Known(at(1000)));
        sight.keep_ends_of(&key, &["b"]);
        assert_eq!(sight.end(&key, "a", at(32)), End::Due, "what was noted is forgotten");
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_given_time() {
        let (sight, key) = (Sight::default(), Key::new("ns", "demo"));
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        assert!(sight.is_fresh(&key, at(0)));
        assert!(!sight.is_fresh(&key, at(300)));
        sight.answers(&key, at(301));
        assert!(sight.is_fresh(&key, at(600)));
    }
}
