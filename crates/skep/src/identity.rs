//! All servers of an installation have the same authority and the same key for service accounts. The store knows their digests,
//! never the keys: a server with others is told before it serves anybody.

use anyhow::{Result, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{At, Commit, Expect, Guard, Op, Range, SharedStore, snapshot::UNFINISHED};

use crate::state::State;

const KEY: &str = "/skep/identity";
/// The files that the servers of an installation share; the last one unless the key of service accounts is given elsewhere, where
/// whoever gives it sees to it (it can be rotated, one server after the other).
const FILES: [&str; 3] = ["ca.crt", "ca.key", "sa.key"];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// SHA-256 of the authority's certificate (PEM), and of the public key of service accounts (PEM), in hexadecimal.
    authority_sha256: String,
    #[serde(default)]
    service_accounts_sha256: Option<String>,
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Identity {
    fn of(state: &State, own_key: bool) -> Result<Self> {
        let service_accounts_sha256 = match own_key {
            true => {
                let key = rcgen::KeyPair::from_pem(&state.service_account_key()?)?;
                Some(sha256(key.public_key_pem().as_bytes()))
            }
            false => None,
        };
        let authority_sha256 = sha256(state.authority()?.certificate.trim().as_bytes());
        Ok(Self { authority_sha256, service_accounts_sha256 })
    }

    /// Whether a server with these keys belongs to the installation that is `known`.
    fn belongs_to(&self, known: &Self) -> bool {
        let keys = (&self.service_accounts_sha256, &known.service_accounts_sha256);
        self.authority_sha256 == known.authority_sha256 && !matches!(keys, (Some(ours), Some(theirs)) if ours != theirs)
    }
}

/// Checks that this state folder is one of the installation whose store it is; the first server's makes it so. With
/// `replace`, this one's becomes the installation's.
pub async fn check(store: &SharedStore, state: &State, own_key: bool, replace: bool) -> Result<()> {
    if !store.range(Range::key(UNFINISHED), At::Latest, 1).await?.items.is_empty() {
        bail!(
            "the store is not whole: a restore or a move into it did not come to its end; do it again with --replace"
        );
    }
    loop {
        let found = store.range(Range::key(KEY), At::Latest, 1).await?.items.pop();
        let shared = if own_key { &FILES[..] } else { &FILES[..2] };
        let files = shared.join(", ");
        if found.is_some() && !replace && shared.iter().any(|name| !state.path(name).exists()) {
            bail!(
                "this installation has servers already: copy {files} from the state folder of one of them into {} first",
                state.path("").display()
            );
        }
        let ours = Identity::of(state, own_key)?;
        let guard = match &found {
            Some(item)
                if serde_json::from_slice::<Identity>(&item.value).is_ok_and(|known| ours.belongs_to(&known)) =>
            {
                return Ok(());
            }
            Some(_) if !replace => bail!(
                "the keys in {} are not those of the installation whose store this is: copy {files} from the state folder of one of its servers, or make these the installation's with --replace-identity (every kubeconfig and token that was given out ends)",
                state.path("").display()
            ),
            Some(item) => Expect::ModifiedAt(item.modified),
            None => Expect::Absent,
        };
        let put = Op::Put { key: KEY.into(), value: serde_json::to_vec(&ours)?.into() };
        // Of two servers that are the first at once, one finds the other's.
        if let Commit::Done(_) =
            store.commit(Guard(vec![(Bytes::from_static(KEY.as_bytes()), guard)]), vec![put]).await?
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_belongs_to_an_installation_with_its_keys() {
        let identity = |authority: &str, accounts: Option<&str>| Identity {
            authority_sha256: authority.to_owned(),
            service_accounts_sha256: accounts.map(str::to_owned),
        };
        let known = identity("a", Some("b"));
        assert!(identity("a", Some("b")).belongs_to(&known));
        assert!(identity("a", None).belongs_to(&known), "its key is given elsewhere");
        assert!(!identity("a", Some("c")).belongs_to(&known) && !identity("x", Some("b")).belongs_to(&known));
    }
}
