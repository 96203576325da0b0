//! The parts of the crate `shared` that fuzz targets reach, from the same files.
//!
//! The crate itself would bring an HTTP server and a TLS library, which take minutes to build with coverage counters.

#[path = "../../../shared/src"]
mod sources {
    pub mod digest;
    pub mod plan;
}

pub use sources::{digest, plan};
