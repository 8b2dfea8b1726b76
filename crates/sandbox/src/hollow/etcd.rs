//! The etcd of a hollow cluster: who is a member, and the part of etcd's API that control planes are run with.
//!
//! The members' data is the cluster's API server's own; what is kept here is what decides whether a cluster lives: a member
//! that is gone and not removed still counts for the quorum, and without quorum the cluster's API is not reached.
//! Members fail as tests tell them to ([`Fault`]). Source: etcd's rpc.proto (Cluster, Maintenance) in the JSON form of its
//! gateway, and kubeadm's stacked etcd.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use apiserver::Forward;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{At, Guard, Op, Range, SharedStore};
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use super::cluster::{Cluster, data_prefix};

/// The port of kubeadm's etcd for clients.
const PORT: u16 = 2379;
/// The port of kubeadm's API servers.
const API_PORT: u16 = 6443;
const BODY_BYTES_MAX: usize = 64 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// gRPC's codes, as the gateway gives them.
const INVALID: u32 = 3;
const NOT_FOUND: u32 = 5;
const PRECONDITION: u32 = 9;
const UNAVAILABLE: u32 = 14;

/// How the etcd member on a node fails, until it is told otherwise or the sandbox ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not run: it has no vote, answers nobody, and the API server beside it serves nobody.
    Down,
    /// It answers so much later.
    Slow(Duration),
    /// It does what it is asked, and its answers are lost.
    Mute,
    /// It answers calls of this path with an error, and does none of them.
    Refuses(&'static str),
}

/// Paths of the calls that members are asked, to have them refused.
pub mod calls {
    pub const MEMBERS: &str = "/v3/cluster/member/list";
    pub const REMOVE: &str = "/v3/cluster/member/remove";
    pub const STATUS: &str = "/v3/maintenance/status";
    pub const ALARMS: &str = "/v3/maintenance/alarm";
    pub const TRANSFER: &str = "/v3/maintenance/transfer-leadership";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    id: u64,
    /// Of its node; empty until it has started.
    name: String,
    #[serde(default)]
    learner: bool,
    /// The server that it runs on.
    machine: String,
    address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    members: Vec<Member>,
    leader: u64,
    /// Of the last member that was added.
    last: u64,
    #[serde(default)]
    alarms: Vec<(u64, String)>,
}

pub struct Etcd {
    state: Mutex<State>,
    /// One change of the membership at a time, as in etcd.
    changing: tokio::sync::Mutex<()>,
    store: SharedStore,
    key: Bytes,
    /// By node.
    faults: Mutex<BTreeMap<String, Fault>>,
}

impl Etcd {
    /// Reads who is a member, or begins with none.
    pub async fn open(cluster: &str, store: &SharedStore) -> Result<Self, store::Error> {
        // Beside the API server's keys, so that it goes with the cluster's data.
        let key = Bytes::from(format!("{}etcd", data_prefix(cluster)));
        let page = store.range(Range::key(key.clone()), At::Latest, 1).await?;
        let state = page.items.first().and_then(|item| serde_json::from_slice(&item.value).ok()).unwrap_or_default();
        let (state, changing, faults) = (Mutex::new(state), Default::default(), Default::default());
        Ok(Self { state, changing, store: store.clone(), key, faults })
    }

    pub fn set_fault(&self, node: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.lock().insert(node.to_owned(), fault),
            None => self.faults.lock().remove(node),
        };
    }

    fn fault(&self, node: &str) -> Option<Fault> {
        self.faults.lock().get(node).cloned()
    }

    pub fn is_down(&self, node: &str) -> bool {
        self.fault(node) == Some(Fault::Down)
    }

    /// Adds the member of a machine that joins; nothing if it is one. `alive` are the machines that run.
    pub async fn join(&self, machine: &str, node: &str, address: &str, alive: &[String]) -> Result<(), String> {
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        if state.members.iter().any(|member| member.machine == machine) {
            return Ok(());
        }
        if state.members.iter().any(|member| member.learner) {
            return Err("etcdserver: too many learner members in cluster".to_owned());
        }
        if !state.members.is_empty() && !has_quorum(&state, alive) {
            return Err("etcdserver: re-configuration failed due to not enough started members".to_owned());
        }
        state.last += 1;
        state.members.push(Member {
            id: id(&self.key, state.last),
            name: node.to_owned(),
            learner: false,
            machine: machine.to_owned(),
            address: address.to_owned(),
        });
        self.write(state).await
    }

    /// Adds a member that never starts, as a machine does that fails in the middle of joining.
    pub async fn add_unstarted(&self, address: &str) -> Result<(), String> {
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        state.last += 1;
        let (id, address) = (id(&self.key, state.last), address.to_owned());
        state.members.push(Member { id, name: String::new(), learner: true, machine: String::new(), address });
        self.write(state).await
    }

    /// Most members live; or there are none, because etcd is elsewhere.
    pub fn has_quorum(&self, alive: &[String]) -> bool {
        let state = self.state.lock();
        state.members.is_empty() || has_quorum(&state, alive)
    }

    /// Raises an alarm of the member on a node; false if there is no such member.
    pub async fn raise_alarm(&self, node: &str, alarm: &str) -> Result<bool, String> {
        let found = self.state.lock().members.iter().find(|member| member.name == node).map(|member| member.id);
        let Some(id) = found else { return Ok(false) };
        self.alarm(&json!({"action": "ACTIVATE", "alarm": alarm}), Some(id)).await?;
        Ok(true)
    }

    /// Ends all alarms, as a person does who has made space.
    pub async fn end_alarms(&self) -> Result<(), String> {
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        if state.alarms.is_empty() {
            return Ok(());
        }
        state.alarms.clear();
        self.write(state).await
    }

    /// Voters, those of them that live, and members that have no vote yet.
    pub fn count(&self, alive: &[String]) -> (usize, usize, usize) {
        let state = self.state.lock();
        let voters: Vec<&Member> = state.members.iter().filter(|member| !member.learner).collect();
        let living = voters.iter().filter(|member| alive.contains(&member.machine)).count();
        (voters.len(), living, state.members.len() - voters.len())
    }

    async fn write(&self, state: State) -> Result<(), String> {
        let value = serde_json::to_vec(&state).expect("numbers and strings are JSON");
        let op = Op::Put { key: self.key.clone(), value: Bytes::from(value) };
        self.store.commit(Guard::default(), vec![op]).await.map_err(|error| format!("etcdserver: {error}"))?;
        *self.state.lock() = state;
        Ok(())
    }

    /// The leader: the one that was, while it lives; else the oldest that lives.
    fn leader(&self, alive: &[String]) -> u64 {
        let mut state = self.state.lock();
        let lives = |member: &&Member| alive.contains(&member.machine);
        if !has_quorum(&state, alive) {
            return 0;
        }
        if !state.members.iter().filter(lives).any(|member| member.id == state.leader) {
            state.leader = state.members.iter().find(lives).map_or(0, |member| member.id);
        }
        state.leader
    }

    /// One call of the gateway, made at the member of `machine`.
    async fn call(&self, path: &str, body: &Value, machine: &str, alive: &[String]) -> Result<Value, (u32, String)> {
        let leader = self.leader(alive);
        let own = self.state.lock().members.iter().find(|member| member.machine == machine).map(|member| member.id);
        let own = own.ok_or_else(|| (UNAVAILABLE, "etcdserver: server stopped".to_owned()))?;
        let header =
            json!({"cluster_id": id(&self.key, 0).to_string(), "member_id": own.to_string(), "raft_term": "2"});
        let list = || {
            let state = self.state.lock();
            let member = |member: &Member| {
                // As the gateway writes protobuf: what is empty or false is left out.
                let mut told = json!({
                    "ID": member.id.to_string(), "peerURLs": [format!("https://{}:2380", member.address)],
                });
                if member.learner {
                    told["isLearner"] = true.into();
                }
                if !member.name.is_empty() {
                    told["name"] = member.name.as_str().into();
                    told["clientURLs"] = json!([format!("https://{}:{PORT}", member.address)]);
                }
                told
            };
            json!({"header": header, "members": state.members.iter().map(member).collect::<Vec<_>>()})
        };
        let target = |field: &str| {
            let given = &body[field];
            let id = given.as_u64().or_else(|| given.as_str()?.parse().ok());
            id.ok_or_else(|| (INVALID, format!("json: {field} is not a member's id")))
        };
        match path {
            calls::MEMBERS if leader == 0 => Err((UNAVAILABLE, "etcdserver: no leader".to_owned())),
            calls::MEMBERS => Ok(list()),
            calls::REMOVE => {
                let wanted = target("ID")?;
                self.remove(wanted, alive).await?;
                Ok(list())
            }
            "/v3/cluster/member/promote" => {
                self.promote(target("ID")?).await?;
                Ok(list())
            }
            calls::STATUS => Ok(json!({
                "header": header, "version": "3.6.0", "dbSize": "0", "leader": leader.to_string(), "raftTerm": "2",
                "errors": if leader == 0 { vec!["etcdserver: no leader"] } else { Vec::new() },
            })),
            calls::ALARMS if leader == 0 => Err((UNAVAILABLE, "etcdserver: no leader".to_owned())),
            calls::ALARMS => {
                let alarms = self.alarm(body, target("memberID").ok()).await.map_err(|why| (UNAVAILABLE, why))?;
                let told = |(id, alarm): &(u64, String)| json!({"memberID": id.to_string(), "alarm": alarm});
                Ok(json!({"header": header, "alarms": alarms.iter().map(told).collect::<Vec<_>>()}))
            }
            "/v3/maintenance/defragment" => Ok(json!({ "header": header })),
            calls::TRANSFER => {
                let wanted = target("targetID")?;
                if own != leader {
                    return Err((PRECONDITION, "etcdserver: not leader".to_owned()));
                }
                let mut state = self.state.lock();
                let fits = |member: &Member| member.id == wanted && alive.contains(&member.machine);
                if !state.members.iter().any(fits) {
                    return Err((PRECONDITION, "etcdserver: bad leader transferee".to_owned()));
                }
                state.leader = wanted;
                Ok(json!({ "header": header }))
            }
            _ => Err((NOT_FOUND, "Not Found".to_owned())),
        }
    }

    async fn remove(&self, wanted: u64, alive: &[String]) -> Result<(), (u32, String)> {
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        let Some(place) = state.members.iter().position(|member| member.id == wanted) else {
            return Err((NOT_FOUND, "etcdserver: member not found".to_owned()));
        };
        if !has_quorum(&state, alive) {
            return Err((UNAVAILABLE, "etcdserver: no leader".to_owned()));
        }
        let gone = state.members.remove(place);
        state.alarms.retain(|(id, _)| *id != gone.id);
        if !has_quorum(&state, alive) {
            let text = "etcdserver: re-configuration failed due to not enough started members";
            return Err((PRECONDITION, text.to_owned()));
        }
        self.write(state).await.map_err(|why| (UNAVAILABLE, why))
    }

    async fn promote(&self, wanted: u64) -> Result<(), (u32, String)> {
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        let found = state.members.iter_mut().find(|member| member.id == wanted);
        let member = found.ok_or_else(|| (NOT_FOUND, "etcdserver: member not found".to_owned()))?;
        if !member.learner {
            return Err((PRECONDITION, "etcdserver: can only promote a learner member".to_owned()));
        }
        if member.name.is_empty() {
            let text = "etcdserver: can only promote a learner member which is in sync with leader";
            return Err((PRECONDITION, text.to_owned()));
        }
        member.learner = false;
        self.write(state).await.map_err(|why| (UNAVAILABLE, why))
    }

    /// Raises or ends an alarm, and tells those that there are.
    async fn alarm(&self, body: &Value, of: Option<u64>) -> Result<Vec<(u64, String)>, String> {
        let kind = body["alarm"].as_str().unwrap_or("NONE").to_owned();
        let raises = match body["action"].as_str() {
            Some("ACTIVATE") => true,
            Some("DEACTIVATE") => false,
            _ => return Ok(self.state.lock().alarms.clone()),
        };
        let _turn = self.changing.lock().await;
        let mut state = self.state.lock().clone();
        let alarm = (of.unwrap_or_default(), kind);
        state.alarms.retain(|other| *other != alarm);
        if raises {
            state.alarms.push(alarm);
        }
        let alarms = state.alarms.clone();
        self.write(state).await.map(|()| alarms)
    }
}

fn has_quorum(state: &State, alive: &[String]) -> bool {
    let voters = state.members.iter().filter(|member| !member.learner);
    voters.clone().filter(|member| alive.contains(&member.machine)).count() * 2 > voters.count()
}

/// Ids look like etcd's: 64 bits that tell nothing.
fn id(seed: &[u8], count: u64) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[seed, &count.to_be_bytes()].concat());
    digest.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Streams into the pods of a hollow cluster: its etcd members and API servers answer, and nothing else runs.
#[derive(Default)]
pub struct Pods(OnceLock<Weak<Cluster>>);

impl Pods {
    pub fn set(&self, cluster: Weak<Cluster>) {
        let _ = self.0.set(cluster);
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.0.get()?.upgrade()
    }
}

impl Forward for Pods {
    fn open<'a>(&'a self, namespace: &'a str, pod: &'a str, port: u16) -> BoxFuture<'a, io::Result<DuplexStream>> {
        Box::pin(async move {
            let refused = || {
                let text =
                    format!("failed to connect to localhost:{port} inside pod {namespace}/{pod}: connection refused");
                io::Error::new(io::ErrorKind::ConnectionRefused, text)
            };
            if let (Some(node), Some(cluster)) = (pod.strip_prefix("kube-apiserver-"), self.cluster()) {
                let members = cluster.members.read().clone();
                let found = members.into_iter().find(|(_, member)| member.node == node);
                let found = found.filter(|_| namespace == "kube-system" && port == API_PORT);
                let (machine, member) = found.ok_or_else(refused)?;
                let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
                tokio::spawn(async move {
                    tokio::select! {
                        () = cluster.server.serve_connection(ours, member.tls) => {}
                        () = cluster.ceases(&machine) => {}
                    }
                });
                return Ok(theirs);
            }
            let node = pod.strip_prefix("etcd-").filter(|_| namespace == "kube-system" && port == PORT);
            let (Some(node), Some(cluster)) = (node, self.cluster()) else { return Err(refused()) };
            let members = cluster.members.read().clone();
            let found = members.into_iter().find(|(_, member)| member.node == node && !cluster.etcd.is_down(node));
            let found = found.and_then(|(machine, member)| Some((machine, member.etcd_tls?)));
            let Some((machine, tls)) = found else { return Err(refused()) };
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            let (cluster, node) = (Arc::downgrade(&cluster), node.to_owned());
            tokio::spawn(async move {
                // Ends with the stream.
                let Ok(stream) = TlsAcceptor::from(tls).accept(ours).await else { return };
                if stream.get_ref().1.peer_certificates().is_none() {
                    return;
                }
                let service = hyper::service::service_fn(move |request| {
                    let (cluster, machine, node) = (cluster.clone(), machine.clone(), node.clone());
                    async move {
                        let fault = cluster.upgrade().and_then(|cluster| cluster.etcd.fault(&node));
                        if let Some(Fault::Slow(delay)) = fault {
                            tokio::time::sleep(delay).await;
                        }
                        if let Some(Fault::Refuses(path)) = fault
                            && request.uri().path() == path
                        {
                            return Ok(refusal(UNAVAILABLE, "etcdserver: request timed out"));
                        }
                        let answer = answer(cluster, &machine, request).await;
                        match fault {
                            Some(Fault::Mute | Fault::Down) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                            _ => Ok(answer),
                        }
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
            Ok(theirs)
        })
    }
}

async fn answer(cluster: Weak<Cluster>, machine: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if (parts.method.clone(), parts.uri.path()) == (Method::GET, "/health") {
        let well = cluster.upgrade().is_some_and(|cluster| cluster.has_quorum());
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return json_response(status, &json!({"health": well.to_string()}));
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok();
    let body = body.and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    let said = match (cluster.upgrade(), body) {
        _ if parts.method != Method::POST => Err((NOT_FOUND, "Method Not Allowed".to_owned())),
        (None, _) => Err((UNAVAILABLE, "etcdserver: server stopped".to_owned())),
        (_, None) => Err((INVALID, "the body is not JSON".to_owned())),
        (Some(cluster), Some(body)) => cluster.etcd.call(parts.uri.path(), &body, machine, &cluster.alive()).await,
    };
    match said {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err((code, text)) => refusal(code, &text),
    }
}

fn refusal(code: u32, text: &str) -> Response<Full<Bytes>> {
    let status = match code {
        NOT_FOUND => StatusCode::NOT_FOUND,
        UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    json_response(status, &json!({"error": text, "code": code, "message": text}))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use store::{Embedded, Limits};

    use super::*;

    fn machines(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    async fn three() -> (Etcd, SharedStore) {
        let store: SharedStore = Arc::new(Embedded::memory(Limits::default()));
        let etcd = Etcd::open("c", &store).await.unwrap();
        for (count, machine) in ["a", "b", "c"].into_iter().enumerate() {
            etcd.join(machine, machine, "10.0.0.1", &machines(&["a", "b", "c"][..count])).await.unwrap();
        }
        (etcd, store)
    }

    #[tokio::test]
    async fn a_member_that_is_gone_counts_until_it_is_removed() {
        let (etcd, store) = three().await;
        assert!(etcd.has_quorum(&machines(&["a", "b"])));
        assert!(!etcd.has_quorum(&machines(&["a"])));
        let alive = machines(&["a", "b"]);
        let list = etcd.call("/v3/cluster/member/list", &json!({}), "a", &alive).await.unwrap();
        let gone = json!({"ID": list["members"][2]["ID"]});
        etcd.call("/v3/cluster/member/remove", &gone, "a", &alive).await.unwrap();
        let again = etcd.call("/v3/cluster/member/remove", &gone, "a", &alive).await.unwrap_err();
        assert_eq!(again, (NOT_FOUND, "etcdserver: member not found".to_owned()));
        assert_eq!(etcd.state.lock().members.len(), 2);
        assert_eq!(*Etcd::open("c", &store).await.unwrap().state.lock(), *etcd.state.lock());
    }

    #[tokio::test]
    async fn without_quorum_nobody_joins_or_goes() {
        let (etcd, _) = three().await;
        let alive = machines(&["a"]);
        assert!(etcd.join("d", "d", "10.0.0.4", &alive).await.is_err());
        let first = etcd.state.lock().members[1].id.to_string();
        assert!(etcd.call("/v3/cluster/member/remove", &json!({"ID": first}), "a", &alive).await.is_err());
        let status = etcd.call("/v3/maintenance/status", &json!({}), "a", &alive).await.unwrap();
        assert_eq!(status["errors"], json!(["etcdserver: no leader"]));
    }

    #[tokio::test]
    async fn one_that_never_started_has_no_vote_and_lets_nobody_else_in() {
        let (etcd, _) = three().await;
        let alive = machines(&["a", "b"]);
        etcd.add_unstarted("10.0.0.9").await.unwrap();
        assert!(etcd.has_quorum(&alive));
        assert_eq!(etcd.count(&alive), (3, 2, 1));
        let why = etcd.join("d", "d", "10.0.0.4", &alive).await.unwrap_err();
        assert_eq!(why, "etcdserver: too many learner members in cluster");
        let list = etcd.call("/v3/cluster/member/list", &json!({}), "a", &alive).await.unwrap();
        let last = list["members"][3].clone();
        assert_eq!((&last["isLearner"], last.get("name")), (&json!(true), None));
        let id = json!({"ID": last["ID"]});
        assert!(etcd.call("/v3/cluster/member/promote", &id, "a", &alive).await.is_err());
        etcd.call("/v3/cluster/member/remove", &id, "a", &alive).await.unwrap();
        etcd.join("d", "d", "10.0.0.4", &alive).await.unwrap();
    }

    #[tokio::test]
    async fn an_alarm_is_told_until_it_is_ended_or_its_member_is_gone() {
        let (etcd, _) = three().await;
        let alive = machines(&["a", "b", "c"]);
        let of = etcd.state.lock().members[1].id.to_string();
        let mut alarm = json!({"action": "ACTIVATE", "memberID": of, "alarm": "NOSPACE"});
        let told = etcd.call("/v3/maintenance/alarm", &alarm, "a", &alive).await.unwrap();
        assert_eq!(told["alarms"], json!([{"memberID": of, "alarm": "NOSPACE"}]));
        alarm["action"] = "DEACTIVATE".into();
        etcd.call("/v3/maintenance/alarm", &alarm, "a", &alive).await.unwrap();
        let told = etcd.call("/v3/maintenance/alarm", &json!({"action": "GET"}), "a", &alive).await.unwrap();
        assert_eq!(told["alarms"], json!([]));
    }

    #[tokio::test]
    async fn an_alarm_of_a_node_is_raised_and_all_are_ended() {
        let (etcd, store) = three().await;
        assert!(etcd.raise_alarm("b", "NOSPACE").await.unwrap());
        assert!(!etcd.raise_alarm("x", "NOSPACE").await.unwrap());
        assert_eq!(etcd.state.lock().alarms.len(), 1);
        etcd.end_alarms().await.unwrap();
        assert_eq!(Etcd::open("c", &store).await.unwrap().state.lock().alarms, []);
    }

    #[tokio::test]
    async fn leadership_moves_at_the_leaders_word_only() {
        let (etcd, _) = three().await;
        let alive = machines(&["a", "b", "c"]);
        let target = json!({"targetID": etcd.state.lock().members[1].id.to_string()});
        assert!(etcd.call("/v3/maintenance/transfer-leadership", &target, "c", &alive).await.is_err());
        etcd.call("/v3/maintenance/transfer-leadership", &target, "a", &alive).await.unwrap();
        let status = etcd.call("/v3/maintenance/status", &json!({}), "c", &alive).await.unwrap();
        assert_eq!(status["leader"], target["targetID"]);
    }
}
