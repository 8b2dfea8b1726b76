//! One of several processes does the work: the holder of a Lease (`coordination.k8s.io/v1`; the rules are those of client-go's
//! `tools/leaderelection`, so that other programs' electors agree).
//!
//! A holder that cannot renew stops its work before anybody else can begin: by its own clock, which only has to run as fast
//! as the others'.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Clock;

/// How long a lease holds, how long its holder goes on without having renewed it, and the pause between tries.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub lease: Duration,
    pub renew_deadline: Duration,
    pub retry: Duration,
}

impl Default for Timing {
    /// kube-controller-manager's.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// A candidate.
pub struct Election {
    pub client: Client,
    pub clock: Clock,
    pub namespace: String,
    /// Of the Lease; made if it is not there.
    pub name: String,
    /// Of this process, unlike any other's.
    pub identity: String,
    pub timing: Timing,
}

/// The work did not end although the lease was lost, and others may have begun: the process must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work went on although its lease was lost")]
pub struct Overrun;

/// The Lease as it was last seen, and since when it has been so.
struct Seen {
    record: (Option<String>, Option<MicroTime>),
    at: Instant,
    duration: Duration,
}

impl Election {
    /// Does `work` whenever this process holds the lease, until `stop`. The token that it gets ends when the lease is lost or
    /// `stop` comes; it must then return before the lease ends for the others.
    pub async fn lead<W>(
        self,
        stop: CancellationToken,
        mut work: impl FnMut(CancellationToken) -> W,
    ) -> Result<(), Overrun>
    where
        W: Future<Output = ()>,
    {
        let mut seen = None;
        loop {
            tokio::select! {
                () = self.acquire(&mut seen) => {}
                () = stop.cancelled() => return Ok(()),
            }
            tracing::info!(lease = self.name, identity = self.identity, "leading");
            let lost = stop.child_token();
            let working = work(lost.clone());
            tokio::pin!(working);
            let mut renewed = Instant::now();
            let ended = loop {
                let deadline = renewed + self.timing.renew_deadline;
                let renewing = async {
                    sleep(self.timing.retry).await;
                    self.try_hold(&mut seen).await
                };
                tokio::select! {
                    () = &mut working => break true,
                    () = stop.cancelled() => break false,
                    held = timeout_at(deadline, renewing) => match held {
                        Ok(true) => renewed = Instant::now(),
                        Ok(false) if Instant::now() < deadline && self.is_ours(seen.as_ref()) => {}
                        Ok(false) | Err(_) => break false,
                    },
                }
            };
            lost.cancel();
            if !ended && timeout_at(renewed + self.timing.lease, &mut working).await.is_err() {
                return Err(Overrun);
            }
            tracing::info!(lease = self.name, "no longer leading");
            if stop.is_cancelled() {
                self.release().await;
                return Ok(());
            }
            sleep(self.timing.retry).await;
        }
    }

    async fn acquire(&self, seen: &mut Option<Seen>) {
        while !self.try_hold(seen).await {
            sleep(self.timing.retry).await;
        }
    }

    fn is_ours(&self, seen: Option<&Seen>) -> bool {
        seen.is_some_and(|seen| seen.record.0.as_deref() == Some(&self.identity))
    }

    /// Takes or renews the lease; whether it is ours now.
    async fn try_hold(&self, seen: &mut Option<Seen>) -> bool {
        match self.hold(seen).await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(%error, lease = self.name, "the lease was not taken");
                false
            }
        }
    }

    async fn hold(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let now = MicroTime(self.clock.now());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let made = api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
            self.look(&made, seen);
            return Ok(true);
        };
        self.look(&lease, seen);
        let old = lease.spec.take().unwrap_or_default();
        let holder = old.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            spec.acquire_time = old.acquire_time;
            spec.lease_transitions = old.lease_transitions;
        } else {
            let over = seen.as_ref().is_none_or(|seen| seen.at + seen.duration <= Instant::now());
            if !holder.is_empty() && !over {
                return Ok(false);
            }
            spec.lease_transitions = Some(old.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        lease.spec = Some(spec);
        // The version that was read goes along: of two who try at once, one is refused.
        let held = api.replace(&self.name, &PostParams::default(), &lease).await?;
        self.look(&held, seen);
        Ok(true)
    }

    /// Notes when the lease last changed, by our own clock.
    fn look(&self, lease: &Lease, seen: &mut Option<Seen>) {
        let spec = lease.spec.clone().unwrap_or_default();
        let record = (spec.holder_identity, spec.renew_time);
        if seen.as_ref().is_some_and(|seen| seen.record == record) {
            return;
        }
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(self.timing.lease, Duration::from_secs);
        *seen = Some(Seen { record, at: Instant::now(), duration });
    }

    /// Gives the lease up, so that nobody has to wait for its end.
    async fn release(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let give = async {
            let mut lease = api.get(&self.name).await?;
            let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(self.clock.now()));
            api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        if let Ok(Err(error)) = tokio::time::timeout(self.timing.retry, give).await {
            let error: kube::Error = error;
            tracing::debug!(%error, lease = self.name, "the lease was not given up");
        }
    }
}
