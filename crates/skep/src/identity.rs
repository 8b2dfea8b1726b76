//! All servers of an installation have the same authority and the same key for service accounts. The store knows their digests,
//! never the keys: a server with others is told before it serves anybody.

use anyhow::{Result, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{At, Commit, Expect, Guard, Op, Range, SharedStore, snapshot::UNFINISHED};

use crate::state::State;

const KEY: &str = "/skep/identity";
/// The files that the servers of an installation share.
const FILES: [&str; 3] = ["ca.crt", "ca.key", "sa.key"];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// SHA-256 of the authority's certificate (PEM), and of the public key of service accounts (PEM), in hexadecimal.
    authority_sha256: String,
    service_accounts_sha256: String,
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Identity {
    fn of(state: &State) -> Result<Self> {
        let key = rcgen::KeyPair::from_pem(&state.service_account_key()?)?;
        Ok(Self {
            authority_sha256: sha256(state.authority()?.certificate.trim().as_bytes()),
            service_accounts_sha256: sha256(key.public_key_pem().as_bytes()),
        })
    }
}

/// Checks that this state folder is one of the installation whose store it is; the first server's makes it so. With
/// `replace`, this one's becomes the installation's.
pub async fn check(store: &SharedStore, state: &State, replace: bool) -> Result<()> {
    if !store.range(Range::key(UNFINISHED), At::Latest, 1).await?.items.is_empty() {
        bail!(
            "the store is not whole: a restore or a move into it did not come to its end; do it again with --replace"
        );
    }
    loop {
        let found = store.range(Range::key(KEY), At::Latest, 1).await?.items.pop();
        let files = FILES.join(", ");
        if found.is_some() && !replace && FILES.iter().any(|name| !state.path(name).exists()) {
            bail!(
                "this installation has servers already: copy {files} from the state folder of one of them into {} first",
                state.path("").display()
            );
        }
        let ours = Identity::of(state)?;
        let guard = match &found {
            Some(item) if serde_json::from_slice::<Identity>(&item.value).is_ok_and(|known| known == ours) => {
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
