//! The control API over HTTP, as AWS Lambda has it for event source mappings and their tags.
//!
//! Reading order: [`routes`] (which operation is at which path), `shapes` (what requests may hold, and
//! what is answered), `constraints` (the language of the model's limits), `json` and `query` (reading
//! what came), [`errors`], [`openapi`] (the same for machines). What mappings are and who runs them is
//! for [`crate::control`].

mod constraints;
pub mod errors;
mod json;
pub mod openapi;
mod query;
pub mod routes;
mod shapes;
