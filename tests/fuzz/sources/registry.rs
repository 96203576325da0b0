//! The parts of the crate `mcp-spec-registry` that fuzz targets reach, from the same files.
//!
//! The crate itself would bring SQLite and the protocol library, which take minutes to build with coverage counters.

#[path = "../../../mcp-spec-registry/src"]
mod sources {
    pub mod specification;
}

pub use sources::specification;
