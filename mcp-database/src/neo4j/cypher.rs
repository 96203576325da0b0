//! What an agent writes in Cypher: its words, what of it is let through, and how names are quoted in what we write ourselves.

pub mod fingerprint;
pub mod gate;
pub mod names;
pub mod tokens;
