//! The approval page: server-rendered, without any script.

use std::net::SocketAddr;

use axum::Router;

use crate::registry::Registry;

/// The routes of the page, for a listener on this loopback address.
pub fn router(_registry: Registry, _address: SocketAddr) -> Router {
    Router::new()
}
