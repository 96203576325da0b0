//! The jail from outside and from inside: what it lets through, what it stops, and what is left of it.

mod cases;
mod checks;
mod commands;
mod container;
mod denials;
mod document;
mod escape;
mod files;
mod groups;
mod guard;
mod inputs;
mod kept;
mod lifetime;
mod limits;
mod matrix;
mod network;
mod no_userns;
mod outside;
mod overlay;
mod processes;
mod published;
mod refusal;
#[path = "../common/skips.rs"]
mod skips;
mod support;
mod terminals;
mod unprivileged;
