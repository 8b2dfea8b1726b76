//! One way to speak of every resource: where it lives and what its body is wrapped in. The calls themselves are on
//! [`Client`](crate::Client): `list`, `get`, `create`, `update`, `delete`.

use serde::{Serialize, de::DeserializeOwned};

use crate::endpoint::{Microversion, Service};

/// A kind of object that can be read.
pub trait Resource: DeserializeOwned + Send + 'static {
    const SERVICE: Service;
    /// Below the service's versioned endpoint: `floatingips`, `lbaas/listeners`.
    const PATH: &'static str;
    /// The key of one object's body: `floatingip`. Empty: the body is the object itself (Glance).
    const ONE: &'static str;
    /// The key of a list's body.
    const MANY: &'static str;
    /// Where lists are, if not at [`Self::PATH`]: `servers/detail`.
    const LIST_PATH: &'static str = Self::PATH;
    /// Members of a list are wrapped once more, as Nova's keypairs are.
    const ITEM: &'static str = "";
}

/// A body that creates a `R`.
pub trait Writes<R: Resource>: Serialize + Sync {
    /// The lowest microversion that understands the body; calls use the client's own if that is higher.
    fn needs(&self) -> Microversion {
        Microversion::NONE
    }

    /// Keys beside the object's own (`os:scheduler_hints`).
    fn beside(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }
}

/// What identifies an object and its state to code that is generic over kinds.
pub trait Reads: Resource {
    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

macro_rules! resource {
    ($name:ty, $service:ident, $path:literal, $one:literal, $many:literal $(, list: $list:literal)? $(, item: $item:literal)?) => {
        impl crate::resource::Resource for $name {
            const SERVICE: crate::Service = crate::Service::$service;
            const PATH: &'static str = $path;
            const ONE: &'static str = $one;
            const MANY: &'static str = $many;
            $(const LIST_PATH: &'static str = $list;)?
            $(const ITEM: &'static str = $item;)?
        }
    };
}

macro_rules! named {
    ($($name:ty),*) => {
        $(impl crate::resource::Reads for $name {
            fn id(&self) -> &str {
                &self.id
            }
            fn name(&self) -> &str {
                &self.name
            }
        })*
    };
}
