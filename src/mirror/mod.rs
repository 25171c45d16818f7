//! `afferent mirror`.

pub mod page;
pub mod plan;
pub mod policy;
pub mod report;
pub mod spec;
