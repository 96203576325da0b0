//! Containers that a server which is gone left behind.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use crate::jail::owner::Owner;

/// The label that names the owner of a container.
pub(super) const LABEL: &str = "spec-driven-ai.mcp-bash-commander";

/// Removes the containers of servers that are gone; `this` asks.
pub(super) async fn remove_left(engine: &Docker, this: &Owner) {
    let with_label = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&with_label)
        .build();
    let containers = match engine.list_containers(Some(options)).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::warn!(%error, "containers of earlier servers cannot be looked for");
            return;
        }
    };
    for container in containers {
        let owner = container
            .labels
            .and_then(|labels| Some(Owner::told(labels.get(LABEL)?)?.0));
        let (Some(id), Some(owner)) = (container.id, owner) else {
            continue;
        };
        if !owner.is_gone(this) {
            continue;
        }
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        if let Err(error) = engine.remove_container(&id, Some(options)).await {
            tracing::warn!(%error, container = id, "a container of an earlier server is left");
        }
    }
}
