//! Whose a control group, container or folder is, so that what a process that is gone left can be removed, and nothing else.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::{Identity, usage};

/// The namespace that process numbers are of.
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A process, by what no other one shares with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    boot: String,
    pid_namespace: u64,
    identity: Identity,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Ok(Self {
            boot: fs::read_to_string(BOOT)?.trim().to_owned(),
            pid_namespace: fs::metadata(PID_NAMESPACE)?.ino(),
            identity: usage::identify(pid),
        })
    }

    /// The one that a text tells of, and what stands behind it.
    pub(super) fn told(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(5, '.');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            pid_namespace: parts.next()?.parse().ok()?,
            identity: Identity {
                pid: parts.next()?.parse().ok()?,
                start_ticks: parts.next()?.parse().ok()?,
            },
        };
        Some((owner, parts.next().unwrap_or_default()))
    }

    /// Has it ended? `this` asks. Of processes in other containers nothing is known: they may live.
    pub(super) fn is_gone(&self, this: &Self) -> bool {
        self.boot != this.boot
            || self.pid_namespace == this.pid_namespace
                && usage::identify(self.identity.pid) != self.identity
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            boot,
            pid_namespace,
            identity: Identity { pid, start_ticks },
        } = self;
        write!(formatter, "{boot}.{pid_namespace}.{pid}.{start_ticks}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_found_again_by_its_text_and_other_texts_tell_of_none() -> anyhow::Result<()> {
        let this = Owner::this()?;
        let text = format!("{this}.7");
        assert_eq!(Owner::told(&text), Some((this.clone(), "7")));
        assert_eq!(Owner::told(&this.to_string()), Some((this, "")));
        for other in ["", "server", "user.slice", "boot.1.2", "boot.1.2.x"] {
            assert_eq!(Owner::told(other), None, "{other}");
        }
        Ok(())
    }

    #[test]
    fn only_who_cannot_be_alive_is_gone() -> anyhow::Result<()> {
        let this = Owner::this()?;
        let mut number_used_again = this.clone();
        number_used_again.identity.start_ticks -= 1;
        let mut of_another_boot = this.clone();
        of_another_boot.boot = "another".to_owned();
        let mut elsewhere = number_used_again.clone();
        elsewhere.pid_namespace += 1;
        let gone = [&this, &number_used_again, &of_another_boot, &elsewhere]
            .map(|owner| owner.is_gone(&this));
        assert_eq!(gone, [false, true, true, false]);
        Ok(())
    }
}
