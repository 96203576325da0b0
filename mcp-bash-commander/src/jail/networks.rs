//! Network namespaces that serve one jail after another. To make one takes a tenth of all that a jail costs, and one with nothing in it is
//! as good as new.

use std::os::fd::OwnedFd;

use super::order::{Order, Surroundings};
use super::{Layer, Network};

/// Most that are kept for later.
const MOST: usize = 8;

/// Network namespaces in which nothing is left.
#[derive(Debug, Default)]
pub(super) struct Networks(Vec<OwnedFd>);

impl Networks {
    /// One for a jail that [`may_share`], if there is any.
    pub(super) fn take(&mut self) -> Option<OwnedFd> {
        self.0.pop()
    }

    /// Takes back that of a jail all of whose processes have ended.
    pub(super) fn give_back(&mut self, network: Option<OwnedFd>) {
        if self.0.len() < MOST {
            self.0.extend(network);
        }
    }
}

/// Whether a jail leaves nothing in its network: the loopback interface is down and stays so, nothing listens, the server has no socket in
/// it, and with the jail's last process its last socket is gone.
pub(super) fn may_share(order: &Order) -> bool {
    let layers = [
        Layer::UserNs,
        Layer::PidNs,
        Layer::NetNs,
        Layer::Capabilities,
        Layer::Landlock,
        Layer::Seccomp,
    ];
    order.network == Network::None
        && order.published.is_empty()
        && order.surroundings == Surroundings::Own
        && layers.into_iter().all(|layer| order.has(layer))
}
