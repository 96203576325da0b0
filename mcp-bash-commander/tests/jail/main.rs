//! The jail from outside and from inside: what it lets through, what it stops, and what is left of it.

mod escape;
mod inputs;
mod lifetime;
mod limits;
mod published;
mod refusal;
mod support;
mod unprivileged;
