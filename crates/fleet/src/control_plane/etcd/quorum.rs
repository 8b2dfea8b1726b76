//! Whether etcd keeps its quorum when a member comes or goes.
//!
//! Source: etcd FAQ, "What is failure tolerance"; kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers,
//! targetEtcdClusterHealthy.

/// A member that is there after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stays {
    /// Has no vote yet; one without a name is taken for one that starts.
    pub learner: bool,
    pub well: bool,
}

/// Most voters are well when only `staying` are left and, if `adds`, one more has come. That one is taken for unwell unless
/// at most one member is there now: from one to two there is no other way. While one learns, nothing is safe.
pub fn is_kept(staying: &[Stays], adds: bool) -> bool {
    if staying.iter().any(|member| member.learner) {
        return false;
    }
    let voters = staying.len() + usize::from(adds);
    let doubtful = adds && staying.len() > 1;
    let unwell = staying.iter().filter(|member| !member.well).count() + usize::from(doubtful);
    voters - unwell > voters / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `w` is well, `u` unwell, `l` learns.
    fn kept(staying: &str, adds: bool) -> bool {
        let staying: Vec<_> =
            staying.chars().map(|letter| Stays { learner: letter == 'l', well: letter == 'w' }).collect();
        is_kept(&staying, adds)
    }

    #[test]
    fn a_member_goes_only_while_most_of_those_that_stay_are_well() {
        for (staying, safe) in [
            ("", false),
            ("w", true),
            ("u", false),
            ("ww", true),
            ("wu", false),
            ("www", true),
            ("wwu", true),
            ("wuu", false),
            ("wwwu", true),
            ("wwuu", false),
            ("wwwuu", true),
            ("wwwwuu", true),
            ("wwwuuu", false),
            ("wwl", false),
            ("l", false),
        ] {
            assert_eq!(kept(staying, false), safe, "{staying:?} stay");
        }
    }

    #[test]
    fn one_that_comes_is_thought_unwell_once_there_are_two() {
        for (staying, safe) in [
            ("", true),
            ("w", true),
            ("u", false),
            ("ww", true),
            ("wu", false),
            ("www", true),
            ("wwu", false),
            ("wwww", true),
            ("wwwu", true),
            ("wwwwu", true),
            ("wwwuu", false),
            ("wwl", false),
        ] {
            assert_eq!(kept(staying, true), safe, "one is added to {staying:?}");
        }
    }
}
