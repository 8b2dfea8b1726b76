//! The kinds that Skep serves as custom resources: their types, schemas, defaults, validation and conditions.
//!
//! Everything here is a pure function of its input: no IO, no clock, no runtime. Controllers, the embedded API's
//! admission and a webhook server use the same code. Field names, groups and limits are those of the published
//! Cluster API v1beta2 and of the OpenStack provider's v1beta2, so that users' manifests work unchanged. Both are served as
//! v1beta1 as well: schemas in `published`, what becomes of each field in `conversion`.

pub mod admission;
pub mod app;
pub mod cluster;
pub mod cluster_class;
pub mod cluster_configuration;
pub mod condition;
pub mod control_plane;
pub mod conversion;
pub mod crd;
pub mod drain_rule;
pub mod extension;
pub mod health_check;
pub mod in_place;
pub mod ip_address;
pub mod kubeadm;
pub mod machine;
pub mod machine_pool;
pub mod meta;
pub mod names;
pub mod node_configuration;
pub mod openstack_cluster;
pub mod openstack_identity;
pub mod openstack_image;
pub mod openstack_machine;
pub mod openstack_machine_pool;
pub mod openstack_pool;
pub mod openstack_reference;
pub mod openstack_server;
pub mod published;
pub mod release;
pub mod resource_set;
mod rules;
pub mod topology;
pub mod version;
