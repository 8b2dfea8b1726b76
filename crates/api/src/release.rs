//! `release.giantswarm.io/v1alpha1`: what a version of the platform consists of. The schema is data (`published`).
//!
//! Source: giantswarm/releases sdk/api/v1alpha1.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What of a Release is read here; charts look up the rest of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "release.giantswarm.io",
    version = "v1alpha1",
    kind = "Release",
    plural = "releases",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
pub struct ReleaseSpec {
    pub components: Vec<Component>,
}

/// A part of the platform, the charts that clusters are made of among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub catalog: String,
    pub name: String,
    pub version: String,
}
