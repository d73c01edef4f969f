//! The control plane: which mappings there are, and that those run which should.
//!
//! Reading order: [`spec`] (what was asked for becomes what can run) with [`tags`], [`plane`] (what
//! people may do with mappings), [`store`] (what is kept of that), [`reconciler`] (what is done about it).

mod destination;
pub mod plane;
pub mod reconciler;
pub mod spec;
pub mod store;
pub mod tags;
#[cfg(test)]
mod tests;
