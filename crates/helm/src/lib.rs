//! Charts and values in, manifests out, as Helm renders them. Pure: what a chart may learn of the world is given with the call.
//! Every loop, depth and size that a chart decides on has a limit: a tenant's chart cannot take the platform down.

pub mod chart;
pub mod data;
mod dependencies;
pub mod error;
mod functions;
pub mod manifests;
mod objects;
pub mod release;
mod rendering;
pub mod schema;
pub mod setting;
pub mod template;
pub mod values;
pub mod version;
pub mod world;

pub use self::{
    error::{Error, Result},
    rendering::{Prepared, Rendered, crds, render, render_text, render_unchecked},
};
