//! A jail for one command or a session of them: namespaces, private root, Landlock and seccomp around processes that die with the
//! server.
//!
//! Three processes take part. The server asks; the *launcher*, a small single-threaded helper started before tokio, clones; and
//! in each jail our own *init* (process 1 of its pid namespace) builds the root, starts the command, reaps, and makes sockets
//! inside the jail's network for published ports. The server itself never forks and never enters a jail.
//!
//! So it is in [`Mode::Strict`]. In the others a container engine makes namespaces and root, or nobody does; the launcher, or the
//! engine, starts the same init, which does what is left to it.
//!
//! ```no_run
//! # use mcp_bash_commander::jail::*;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let launcher = Launcher::start()?; // first thing in `main`, before tokio
//! let workspace = Workspace::open("/srv/site".as_ref(), "/srv/site".as_ref(), Access::ReadWrite)?;
//! let mut spec = JailSpec::new(["/bin/sh", "-c", "id -u"]);
//! spec.command.cwd = "/srv/site".into();
//! spec.workspace = Some(workspace);
//! let JailedProcess { stdout, stderr, command, .. } = launcher.run(spec).await?;
//! // read stdout and stderr to their ends, then
//! let exit = command.wait().await;
//! # Ok(()) }
//! ```

mod cgroup;
mod child;
mod codec;
mod contained;
mod container;
mod datagram;
mod denials;
mod error;
mod exit;
mod filter;
mod home;
mod hosted;
mod idmap;
mod init;
mod landlock;
mod launcher;
mod layer;
mod leader;
mod limits;
mod memory;
mod mode;
mod networks;
mod observe;
mod order;
mod owner;
mod pinned;
mod probe;
mod process;
mod processes;
mod protocol;
mod root;
mod seccomp;
mod spawner;
mod spec;
mod start;
mod streams;
mod sys;
mod template;
mod usage;
mod waiting;
mod workspace;

pub use container::ContainerSettings;
pub use error::JailError;
pub use exit::{Exit, Finished};
pub use init::proxy_address;
pub use launcher::Launcher;
pub use layer::{Isolation, Layer};
pub use mode::Mode;
pub use observe::Lookups;
pub use probe::{LayerReport, LayerStatus, probe_layers, probe_mode};
pub use process::{DeniedCall, Identity, Jail, JailedCommand, JailedProcess};
pub use protocol::Reach;
pub use spec::{
    Access, CommandSpec, JailSpec, Lifetime, Limits, Masked, Network, PinnedInput, Stdin,
    TerminalSize, Workspace, system_toolchain,
};
pub use streams::{Input, Output};
pub use usage::{EndedProcess, Usage};
pub use waiting::AwaitedInput;
