//! What the members of an etcd say of themselves and of one another, as data, and what follows from it.

use std::collections::BTreeMap;

use api::machine::Machine;
use serde_json::Value;

use super::{
    Change,
    quorum::{self, Stays},
};

/// A member of the etcd cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Of its node; empty until it has started.
    pub name: String,
    pub learner: bool,
    /// Where its peers reach it: hosts without ports.
    pub hosts: Vec<String>,
}

impl Member {
    pub fn told(&self) -> String {
        if self.name.is_empty() { format!("{} (Name not yet assigned)", self.id) } else { self.name.clone() }
    }

    /// It runs on this machine: by the node's name, and before there is a node by the machine's addresses.
    pub fn is_on(&self, machine: &Machine) -> bool {
        let status = machine.status.as_ref();
        if let Some(node) = status.and_then(|status| status.node_ref.as_ref()) {
            return self.name == node.name;
        }
        let addresses = status.map_or(&[][..], |status| &status.addresses);
        addresses.iter().any(|address| {
            self.hosts.contains(&address.address) || (!self.name.is_empty() && self.name == address.address)
        })
    }
}

/// The cluster as one member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub own: u64,
    /// 0 while there is none.
    pub leader: u64,
    pub members: Vec<Member>,
    /// Kinds of alarms (NOSPACE, CORRUPT) with the member that raised each.
    pub alarms: Vec<(u64, String)>,
}

/// A 64 bit number, which the gateway writes as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl View {
    /// From the answers about members, status and alarms.
    pub fn read(list: &Value, status: &Value, alarms: &Value) -> Result<Self, String> {
        let unreadable = |what: &str, value: &Value| format!("the answer cannot be read: {what} is {value}");
        let id = |value: &Value| number(value).ok_or_else(|| unreadable("a member's id", value));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let host = |url: Value| {
            let rest = url.as_str()?.split_once("://")?.1.to_owned();
            let host = rest.rsplit_once(':').map_or(rest.as_str(), |(host, _)| host);
            Some(host.trim_matches(['[', ']']).to_owned())
        };
        let members = each(&list["members"]);
        let members = members.iter().map(|member| {
            Ok(Member {
                id: id(&member["ID"])?,
                name: text(&member["name"]),
                learner: member["isLearner"] == true,
                hosts: each(&member["peerURLs"]).into_iter().filter_map(host).collect(),
            })
        });
        let alarms = each(&alarms["alarms"]);
        let alarms = alarms.iter().filter(|alarm| alarm["alarm"] != "NONE");
        Ok(Self {
            own: id(&status["header"]["member_id"])?,
            leader: number(&status["leader"]).unwrap_or(0),
            members: members.collect::<Result<_, String>>()?,
            alarms: alarms
                .map(|alarm| Ok((id(&alarm["memberID"])?, text(&alarm["alarm"]))))
                .collect::<Result<_, String>>()?,
        })
    }

    fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<_> = self.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        ids
    }
}

/// The cluster as all its members see it together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub members: Vec<Member>,
    pub leader: u64,
    alarms: Vec<(u64, String)>,
    /// By node: who has nothing to complain of, or why not.
    said: BTreeMap<String, Result<(), Trouble>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be asked: nothing is known of it.
    Unreached(String),
    Unwell(String),
}

fn names(members: &[Member]) -> String {
    let mut names: Vec<_> = members.iter().map(Member::told).collect();
    names.sort();
    names.join(", ")
}

impl Look {
    /// Put together from what each member says; `Err` if none of them has a leader.
    pub fn of(views: BTreeMap<String, Result<View, String>>) -> Result<Self, String> {
        let led = || views.values().flatten().filter(|view| view.leader != 0);
        let Some(best) = led().find(|view| view.leader == view.own).or_else(|| led().next()) else {
            let why = views.iter().map(|(node, view)| match view {
                Ok(_) => format!("{node} has no leader"),
                Err(why) => format!("{node}: {why}"),
            });
            return Err(why.collect::<Vec<_>>().join("; "));
        };
        let best = best.clone();
        let said = views.into_iter().map(|(node, view)| {
            let said = match view {
                Err(why) => Err(Trouble::Unreached(format!("Failed to connect to etcd: {why}"))),
                Ok(view) if view.leader == 0 => Err(Trouble::Unwell("Etcd member has no leader".to_owned())),
                Ok(view) if view.ids() != best.ids() => {
                    let (here, there) = (names(&view.members), names(&best.members));
                    let why =
                        format!("Etcd member reports the cluster is composed by {here}, other members report {there}");
                    Err(Trouble::Unwell(why))
                }
                Ok(_) => Ok(()),
            };
            (node, said)
        });
        Ok(Self { said: said.collect(), members: best.members, leader: best.leader, alarms: best.alarms })
    }

    /// What is wrong with the member on a node.
    pub fn trouble(&self, node: &str) -> Option<Trouble> {
        let unwell = |why: String| Some(Trouble::Unwell(why));
        let Some(member) = self.members.iter().find(|member| member.name == node) else {
            let names = names(&self.members);
            return unwell(format!(
                "Etcd reports the cluster is composed by {names}, but the etcd member hosted on Node {node} is not included"
            ));
        };
        if member.learner {
            return unwell("Waiting for learner etcd member to be promoted".to_owned());
        }
        let alarms = self.alarms.iter().filter(|(id, _)| *id == member.id).map(|(_, alarm)| alarm.as_str());
        let alarms: Vec<_> = alarms.collect();
        if !alarms.is_empty() {
            return unwell(format!("Etcd reports alarms: {}", alarms.join(", ")));
        }
        let unasked = || Trouble::Unreached("Etcd member has not been asked yet".to_owned());
        self.said.get(node).map_or_else(|| Some(unasked()), |said| said.clone().err())
    }

    /// The member on a machine.
    pub fn member_of(&self, machine: &Machine) -> Option<&Member> {
        self.members.iter().find(|member| member.is_on(machine))
    }

    /// The member that may be on a machine of which neither node nor addresses are known: it is on none of the others. Nobody's
    /// where one of those is not known either.
    pub fn may_be_of<'a>(
        &self,
        machine: &Machine,
        others: impl Iterator<Item = &'a Machine> + Clone,
    ) -> Option<&Member> {
        if !is_unknown(machine) || others.clone().any(is_unknown) {
            return None;
        }
        self.members.iter().find(|member| !others.clone().any(|other| member.is_on(other)))
    }

    /// Members that run on none of the machines, those without a name first; nothing while some machine may yet turn out
    /// to have one: its node is not known, and neither are its addresses.
    pub fn strays<'a>(&self, machines: impl Iterator<Item = &'a Machine> + Clone) -> Vec<&Member> {
        if machines.clone().any(is_unknown) {
            return Vec::new();
        }
        let is_stray = |member: &&Member| !machines.clone().any(|machine| member.is_on(machine));
        let mut strays: Vec<_> = self.members.iter().filter(is_stray).collect();
        strays.sort_by_key(|member| (member.name.as_str(), member.id));
        strays
    }

    /// Most voters are well after the member goes, if one does, and another comes, if one does.
    pub fn keeps_quorum(&self, without: Option<u64>, adds: bool) -> bool {
        let staying = self.members.iter().filter(|member| Some(member.id) != without).map(|member| Stays {
            learner: member.learner || member.name.is_empty(),
            well: self.trouble(&member.name).is_none(),
        });
        quorum::is_kept(&staying.collect::<Vec<_>>(), adds)
    }

    /// Most voters are well while the member is away for a while.
    pub fn bears_absence(&self, member: u64) -> bool {
        let (well, all) = self.voters();
        let own = self.members.iter().any(|other| other.id == member && self.trouble(&other.name).is_none());
        well - usize::from(own && well > 0) > all / 2
    }

    /// How many voters are well, and how many there are.
    pub fn voters(&self) -> (usize, usize) {
        let voters = self.members.iter().filter(|member| !member.learner && !member.name.is_empty());
        (voters.clone().filter(|member| self.trouble(&member.name).is_none()).count(), voters.count())
    }

    /// What has to be asked so that the member goes; `nodes` are those of machines that stay, the best first. `Err` says why
    /// it cannot go. One that never started has no vote, and can go always.
    pub fn removal(&self, member: &Member, nodes: &[String]) -> Result<Change, String> {
        let unstarted = member.name.is_empty() || member.learner;
        if !unstarted && !self.keeps_quorum(Some(member.id), false) {
            return Err("the operation can lead to etcd quorum loss. Please check the etcd status".to_owned());
        }
        let stays = |name: &&String| self.members.iter().any(|other| other.name == **name && other.id != member.id);
        let via: Vec<_> = nodes.iter().filter(stays).cloned().collect();
        if via.is_empty() {
            return Err("no etcd member stays that could be asked".to_owned());
        }
        Ok(Change { leadership: self.handover(member, nodes), remove: Some(member.id), via })
    }

    /// The leader's node and the member that is to lead, if this member leads.
    pub fn handover(&self, member: &Member, nodes: &[String]) -> Option<(String, u64)> {
        if member.id != self.leader || member.name.is_empty() {
            return None;
        }
        let fit = |name: &&String| self.trouble(name).is_none() && **name != member.name;
        let target = nodes.iter().find(fit)?;
        let target = self.members.iter().find(|other| other.name == *target)?;
        Some((member.name.clone(), target.id))
    }
}

/// Where it runs is not known.
fn is_unknown(machine: &Machine) -> bool {
    machine.status.as_ref().is_none_or(|status| status.node_ref.is_none() && status.addresses.is_empty())
}

#[cfg(test)]
pub(in crate::control_plane) mod tests {
    use api::machine::{AddressType, MachineAddress, MachineSpec, NodeRef};
    use serde_json::json;

    use super::*;

    /// Members of these names, the first of which leads, all asked and well.
    pub fn well(names: &[&str]) -> Look {
        let members: Vec<_> = (1..).zip(names).map(|(id, name)| member(id, name)).collect();
        let view = |own| View { own, leader: 1, members: members.clone(), alarms: Vec::new() };
        Look::of((1..).zip(names).map(|(id, name)| ((*name).to_owned(), Ok(view(id)))).collect()).unwrap()
    }

    impl Look {
        /// The member on the node does not answer any more.
        pub fn unreached(&mut self, node: &str) {
            let why = "Failed to connect to etcd: it is dead".to_owned();
            self.said.insert(node.to_owned(), Err(Trouble::Unreached(why)));
        }
    }

    pub fn member(id: u64, name: &str) -> Member {
        Member { id, name: name.to_owned(), learner: false, hosts: vec![format!("10.0.0.{id}")] }
    }

    fn machine(node: Option<&str>, address: Option<&str>) -> Machine {
        let mut machine = Machine::new("m", MachineSpec::default());
        let status = machine.status.get_or_insert_default();
        status.node_ref = node.map(|name| NodeRef { name: name.to_owned() });
        let addresses = address.into_iter();
        let addresses =
            addresses.map(|found| MachineAddress { address: found.to_owned(), type_: AddressType::InternalIP });
        status.addresses = addresses.collect();
        machine
    }

    fn view(own: u64, leader: u64, names: &[&str]) -> Result<View, String> {
        let members = (1..).zip(names).map(|(id, name)| member(id, name)).collect();
        Ok(View { own, leader, members, alarms: Vec::new() })
    }

    #[test]
    fn the_gateways_answers_are_read() {
        let list = json!({"header": {}, "members": [
            {"ID": "10501334649042878790", "name": "a", "peerURLs": ["https://10.0.0.1:2380"]},
            {"ID": "7", "peerURLs": ["https://[fd00::2]:2380"], "isLearner": true},
        ]});
        let status = json!({"header": {"member_id": "10501334649042878790"}, "leader": "7"});
        let alarms = json!({"alarms": [{"memberID": "7", "alarm": "NOSPACE"}, {"memberID": "7", "alarm": "NONE"}]});
        let read = View::read(&list, &status, &alarms).unwrap();
        assert_eq!((read.own, read.leader), (10_501_334_649_042_878_790, 7));
        assert_eq!(
            read.members[1],
            Member { id: 7, name: String::new(), learner: true, hosts: vec!["fd00::2".into()] }
        );
        assert_eq!(read.alarms, [(7, "NOSPACE".to_owned())]);
        assert!(View::read(&json!({"members": [{"ID": "x"}]}), &status, &json!({})).is_err());
    }

    #[test]
    fn each_member_is_judged_by_what_it_says_and_what_is_said_of_it() {
        let mut views: BTreeMap<String, Result<View, String>> = BTreeMap::new();
        views.insert("a".into(), view(1, 1, &["a", "b", "c", "d"]));
        views.insert("b".into(), view(2, 1, &["a", "b", "c"]));
        views.insert("c".into(), Err("refused".into()));
        views.insert("d".into(), view(4, 0, &["a", "b", "c", "d"]));
        let mut look = Look::of(views).unwrap();
        let told = |look: &Look, node: &str| match look.trouble(node) {
            None => "well".to_owned(),
            Some(Trouble::Unreached(why)) => format!("? {why}"),
            Some(Trouble::Unwell(why)) => format!("! {why}"),
        };
        assert_eq!(told(&look, "a"), "well");
        assert!(told(&look, "b").starts_with("! Etcd member reports the cluster is composed by a, b, c, other"));
        assert_eq!(told(&look, "c"), "? Failed to connect to etcd: refused");
        assert_eq!(told(&look, "d"), "! Etcd member has no leader");
        assert!(told(&look, "e").contains("is not included"));
        look.alarms = vec![(1, "NOSPACE".into()), (1, "CORRUPT".into())];
        assert_eq!(told(&look, "a"), "! Etcd reports alarms: NOSPACE, CORRUPT");
        look.members[0].learner = true;
        assert_eq!(told(&look, "a"), "! Waiting for learner etcd member to be promoted");
        let nobody = [("a".to_owned(), view(1, 0, &["a"])), ("b".to_owned(), Err("refused".to_owned()))];
        assert_eq!(Look::of(nobody.into()).unwrap_err(), "a has no leader; b: refused");
    }

    #[test]
    fn a_leader_hands_over_before_it_goes_and_the_last_one_stays() {
        let look = well(&["a", "b", "c"]);
        let staying = ["c".to_owned(), "b".to_owned()];
        let leadership = Some(("a".to_owned(), 3));
        let change = Change { leadership, remove: Some(1), via: staying.to_vec() };
        assert_eq!(look.removal(&look.members[0], &staying), Ok(change));
        let change = Change { leadership: None, remove: Some(2), via: vec!["c".into()] };
        assert_eq!(look.removal(&look.members[1], &["c".to_owned()]), Ok(change));
        let alone = well(&["a"]);
        assert!(alone.removal(&alone.members[0], &["b".to_owned()]).unwrap_err().contains("quorum loss"));
    }

    #[test]
    fn a_member_is_found_by_its_machines_addresses_while_there_is_no_node() {
        let mut look = well(&["a", "b", "c"]);
        look.members[2].name = String::new();
        let joining = machine(None, Some("10.0.0.3"));
        assert_eq!(look.member_of(&joining).map(|member| member.id), Some(3));
        assert_eq!(look.member_of(&machine(Some("b"), None)).map(|member| member.id), Some(2));
        assert_eq!(look.member_of(&machine(None, Some("10.0.0.9"))), None);
        let [a, b] = ["a", "b"].map(|node| machine(Some(node), None));
        assert!(look.strays([&a, &b, &joining].into_iter()).is_empty());
        assert_eq!(look.strays([&a, &b].into_iter()).len(), 1);
        let other = machine(None, Some("10.0.0.9"));
        assert_eq!(look.strays([&a, &b, &other].into_iter()).len(), 1, "the one that joins is another");
        let unknown = machine(None, None);
        assert!(look.strays([&a, &b, &unknown].into_iter()).is_empty(), "it may be the one that joins");
        assert!(look.removal(&look.members[2], &["a".to_owned()]).is_ok(), "it has no vote");
        assert!(look.removal(&look.members[1], &["a".to_owned()]).is_err(), "not while another one learns");
    }
}
