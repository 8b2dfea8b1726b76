//! Reading what clouds really send: `null` where a value was promised.

use serde::{Deserialize, Deserializer};

/// `null` reads as the type's default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares a struct as it is read from the wire: every field may be missing or `null`.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {
        $(
            #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
            #[serde(default)]
            $(#[$meta])*
            pub struct $name {
                $($(#[$fmeta])* #[serde(deserialize_with = "crate::lenient::or_default")] pub $field: $ty,)*
            }
        )*
    };
}

/// Declares a struct as it is sent: a `None`, an empty list, map or string is left out.
macro_rules! draft {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {
        $(
            #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
            $(#[$meta])*
            pub struct $name {
                $($(#[$fmeta])* #[serde(skip_serializing_if = "crate::lenient::Unset::unset")] pub $field: $ty,)*
            }
        )*
    };
}

/// What [`draft!`] leaves out.
pub(crate) trait Unset {
    fn unset(&self) -> bool;
}

impl<T> Unset for Option<T> {
    fn unset(&self) -> bool {
        self.is_none()
    }
}

impl<T> Unset for Vec<T> {
    fn unset(&self) -> bool {
        self.is_empty()
    }
}

impl Unset for String {
    fn unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Unset for std::collections::BTreeMap<K, V> {
    fn unset(&self) -> bool {
        self.is_empty()
    }
}

impl Unset for serde_json::Map<String, serde_json::Value> {
    fn unset(&self) -> bool {
        self.is_empty()
    }
}
