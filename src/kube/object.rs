//! Objects of the API, with what all of them have, and what is told of them.

use super::KubeError;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What every object has.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Where it is; empty for what is in no namespace.
    pub namespace: String,
    /// Unique within its kind and namespace.
    pub name: String,
    /// Unique for ever.
    pub uid: String,
    /// Its version, or that of the deletion.
    pub resource_version: String,
    /// What made it.
    pub owner_references: Vec<OwnerReference>,
}

/// What made an object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct OwnerReference {
    /// Kind of the owner.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether it controls the object.
    pub controller: bool,
}

/// An object of the API, with those of its fields that are needed.
pub trait KubeObject: DeserializeOwned {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

/// What a reflector tells.
#[derive(Debug)]
pub enum Told<T> {
    /// A list begins.
    Begun,
    /// An object of it.
    Listed(T),
    /// The list is complete: what was not in it is not there.
    Complete,
    /// An object is new, or another than before.
    Changed(T),
    /// An object is gone from what is watched.
    Deleted(T),
    /// An object that cannot be read, and is there.
    Unreadable(ObjectMeta, String),
    /// The API server can be asked again.
    Well,
    /// It cannot.
    Trouble(KubeError),
}
