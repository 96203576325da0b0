//! Whose containers and files these are, so that the next server removes what one that is gone left, and nothing else.

use std::collections::HashMap;
use std::fmt;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use crate::jail::{JailError, usage};

/// The label that names the owner of a container.
pub(super) const LABEL: &str = "spec-driven-ai.mcp-bash-commander";

/// A server process; never confused with a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    boot: String,
    pid: i32,
    start_ticks: u64,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> Result<Self, JailError> {
        let boot = boot().map_err(JailError::io("read the boot's identity"))?;
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        Ok(Self {
            boot,
            pid,
            start_ticks: usage::identify(pid).start_ticks,
        })
    }

    /// The one that a label or name tells of.
    pub(super) fn told(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            pid: parts.next()?.parse().ok()?,
            start_ticks: parts.next()?.parse().ok()?,
        };
        Some(owner)
    }

    /// Does it run?
    pub(super) fn is_alive(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
            && usage::identify(self.pid).start_ticks == self.start_ticks
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            boot,
            pid,
            start_ticks,
        } = self;
        write!(formatter, "{boot}.{pid}.{start_ticks}")
    }
}

fn boot() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Removes the containers of servers that are gone.
pub(super) async fn remove_left(engine: &Docker) {
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
            .and_then(|labels| Owner::told(labels.get(LABEL)?));
        let (Some(id), Some(owner)) = (container.id, owner) else {
            continue;
        };
        if owner.is_alive() {
            continue;
        }
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        if let Err(error) = engine.remove_container(&id, Some(options)).await {
            tracing::warn!(%error, container = id, "a container of an earlier server is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_found_again_by_its_name_and_is_alive_only_while_it_runs() -> anyhow::Result<()> {
        let this = Owner::this()?;
        assert_eq!(Owner::told(&this.to_string()), Some(this.clone()));
        assert!(this.is_alive());
        let before = Owner {
            start_ticks: this.start_ticks + 1,
            ..this.clone()
        };
        let of_another_boot = Owner {
            boot: "another".to_owned(),
            ..this
        };
        assert!(!before.is_alive() && !of_another_boot.is_alive());
        assert_eq!(Owner::told("nobody"), None);
        Ok(())
    }
}
