//! The command line and its environment variables.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use shared::{config::parse_duration, serve::HttpArgs};

use crate::{approval::cli::ApprovalCommand, checks::AllowedAddress, client_config::Client};

/// Prefix of the environment variables: `--state-dir` is `SPEC_REGISTRY_STATE_DIR`.
pub const ENVIRONMENT: &str = "SPEC_REGISTRY";

/// Outcome specifications, plans that humans approve, and the record of what was done.
///
/// Without a command it speaks MCP on stdin and stdout, as a thin pipe to the registry of this state directory, which is started when
/// none runs. Humans decide on the page that `queue` names, or with `approve`, `reject` and `clarify`.
#[derive(Debug, clap::Parser)]
#[command(name = "mcp-spec-registry", version)]
pub struct Config {
    /// Where state is kept [default: $XDG_STATE_HOME/spec-driven-ai/mcp-spec-registry].
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Where the sockets are [default: $XDG_RUNTIME_DIR/spec-driven-ai/…, else below the state directory].
    #[arg(long, value_name = "DIR", global = true)]
    pub socket_dir: Option<PathBuf>,
    /// How `stdio` connects.
    #[command(flatten)]
    pub pipe: PipeArgs,
    /// Check everything that is read at start, say what it comes to, and end.
    #[arg(long, global = true)]
    pub check_config: bool,
    /// What to do instead of speaking MCP.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How the pipe of `stdio` connects, and as whom.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PipeArgs {
    /// Another registry: unix:PATH of its agent socket, or the URL of its Streamable HTTP endpoint.
    #[arg(long, value_name = "unix:PATH|URL", global = true)]
    pub connect: Option<String>,
    /// A token made by `token add --kind agent`.
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Name of the agent; believed only from the registry's own uid [default: uid:<n>].
    #[arg(long, value_name = "NAME", global = true)]
    pub agent: Option<String>,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Speak MCP on stdin and stdout (the default).
    Stdio,
    /// Be the registry: hold the state directory and listen.
    Serve(ServeCommand),
    /// What humans do.
    #[command(flatten)]
    Approval(ApprovalCommand),
    /// The audit.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print what to put into a client's configuration.
    ClientConfig {
        /// Which client.
        client: Client,
        /// Also the shell, `mcp-bash-commander` from this program's folder, for this workspace.
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// The shell's credential (`token add --kind service`): it then asks this registry before each change.
        #[arg(long, value_name = "FILE", requires = "workspace")]
        shell_token: Option<PathBuf>,
    },
    /// Look at everything the registry needs and at what its checkpoints are worth; names what is missing and how to mend it.
    Doctor {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures for the registry, without keys or store.
    #[command(hide = true)]
    CheckWorker,
}

/// How the registry listens.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeCommand {
    /// The agent plane over Streamable HTTP.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Address of the approval page; loopback only [default: a free port of 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub approval_listen: Option<SocketAddr>,
    /// Group that may use the agent socket.
    #[arg(long, value_name = "GROUP")]
    pub agent_group: Option<String>,
    /// Group that may use the effect socket.
    #[arg(long, value_name = "GROUP")]
    pub effect_group: Option<String>,
    /// An address that checks may dial besides published ports; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub check_allow: Vec<AllowedAddress>,
    /// End when nobody was connected and no run was open for this long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle_exit: Option<Duration>,
    /// Life of the handles that `execution_begin` gives [default: 10m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub grant_ttl: Option<Duration>,
    /// Started by a client, in a process session of its own.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// What can be done with the audit.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check the whole audit: 0 and a summary, or 1 and the first bad entry.
    Verify {
        /// A signed head noted earlier (a receipt, or a file that holds one): also finds a cut-off end.
        #[arg(long, value_name = "HEAD|FILE")]
        against: Option<String>,
    },
}
