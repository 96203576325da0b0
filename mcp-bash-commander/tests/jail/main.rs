//! The jail from outside and from inside: what it lets through, what it stops, and what is left of it.

mod checks;
mod denials;
mod escape;
mod inputs;
mod kept;
mod lifetime;
mod limits;
mod network;
mod overlay;
mod published;
mod refusal;
mod support;
mod terminals;
mod unprivileged;
