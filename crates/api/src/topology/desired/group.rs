//! Workers of a topology come as MachineDeployments or as MachinePools: how each is called where.

use serde_json::Value;

use crate::names::{TOPOLOGY_DEPLOYMENT_LABEL, TOPOLOGY_POOL_LABEL};

/// What workers are made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Deployments,
    Pools,
}

impl Group {
    /// In the order in which they are made.
    pub const ALL: [Self; 2] = [Self::Deployments, Self::Pools];

    /// The kind of their objects.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Deployments => "MachineDeployment",
            Self::Pools => "MachinePool",
        }
    }

    /// The list below `workers`, of a topology and of a class.
    pub fn list(self) -> &'static str {
        match self {
            Self::Deployments => "machineDeployments",
            Self::Pools => "machinePools",
        }
    }

    /// What variables are about them.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Deployments => "machineDeployment",
            Self::Pools => "machinePool",
        }
    }

    /// Holds their name in the topology.
    pub fn label(self) -> &'static str {
        match self {
            Self::Deployments => TOPOLOGY_DEPLOYMENT_LABEL,
            Self::Pools => TOPOLOGY_POOL_LABEL,
        }
    }

    /// The name that an object of theirs has in the topology.
    pub(super) fn of(self, object: &Value) -> &Value {
        &object["metadata"]["labels"][self.label()]
    }
}
