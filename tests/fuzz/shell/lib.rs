//! The parts of the crate `mcp-bash-commander` that fuzz targets reach, from the same files.
//!
//! The crate itself would bring the protocol library and a runtime, which take minutes to build with coverage counters. What is only
//! visible inside a module of the crate is reached by a file of this folder that stands in that module.

#![expect(
    dead_code,
    reason = "a part of what the files hold is for the rest of the server"
)]

#[path = "../../../mcp-bash-commander/src"]
mod sources {
    pub mod policy;
    pub mod workspace;
}

pub use sources::{policy, workspace};

#[path = "../../../mcp-bash-commander/src/jail"]
mod jail {
    mod error;
    mod layer;
    mod mode;
    mod spec;

    pub use error::JailError;
    pub use layer::Layer;
    pub use mode::Mode;
    pub use spec::{Access, Limits, Masked, Network, TerminalSize, Workspace, system_toolchain};

    /// Stands for the observer of a jail, of which there is none here.
    #[derive(Debug, Clone, Default)]
    pub struct Lookups;
}

#[path = "../../../mcp-bash-commander/src/network"]
pub mod network {
    mod address;
    mod allow;
    mod range;
    mod reachable;
    mod refusal;
    mod secrets;

    const HTTP_PORT: u16 = 80;
    const HTTPS_PORT: u16 = 443;

    pub mod http {
        mod head;

        #[path = "../../../../tests/fuzz/shell/head.rs"]
        mod reached;

        pub use reached::destination;
    }

    #[path = "../../../tests/fuzz/shell/address.rs"]
    mod reached;

    pub use allow::{AllowList, AllowListError, Decision, Entry, WrittenEntry};
    pub use reached::canonical;
    pub use reachable::Reachable;
    pub use refusal::{ConnectFailure, Reason, Refusal};
    pub use secrets::{Secret, SecretError, Secrets, WrittenSecret};
}

#[path = "../../../mcp-bash-commander/src/session"]
pub mod session {
    mod screen;
    mod spool;
    mod text;

    #[path = "../../../tests/fuzz/shell/session.rs"]
    mod reached;

    pub use reached::{Kept, Shown};
    use reached::{Session, lock};
    pub use screen::Screen;
    pub use spool::{Piece, SpoolFolder};
    pub use text::{Excerpt, cut_to_characters};
}

mod server {
    use std::time::Duration;

    include!(concat!(env!("OUT_DIR"), "/server.rs"));
}

#[path = "../../../mcp-bash-commander/src/tools"]
pub mod tools {
    #[path = "../../../tests/fuzz/shell/tools.rs"]
    mod reached;

    mod error {
        use shared::tool_error::{ToolError, code};

        include!(concat!(env!("OUT_DIR"), "/tools_error.rs"));
    }

    mod exec {
        use std::collections::BTreeMap;

        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use shared::tool_error::ToolError;

        use super::wait::{Until, Wait};
        use super::write_input::Size;
        use crate::policy::EnvironmentRules;

        mod arguments;

        include!(concat!(env!("OUT_DIR"), "/tools_exec.rs"));

        /// What would run, after everything that is checked before.
        pub(super) fn checked(params: &ExecParams) -> Result<Vec<String>, ToolError> {
            arguments::check(params)?;
            let argv = arguments::argv(params)?;
            params.wait.checked(Until::Exit)?;
            params.tty.map(Size::checked).transpose()?;
            let _ = EnvironmentRules::default().of_call(&params.env);
            Ok(argv)
        }
    }

    mod wait {
        use std::time::Duration;

        use regex::bytes::{Regex, RegexBuilder};
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use shared::tool_error::ToolError;

        use super::error::invalid;

        include!(concat!(env!("OUT_DIR"), "/tools_wait.rs"));
    }

    mod write_input {
        use std::num::NonZeroU16;

        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use serde_json::{Map, Value};
        use shared::tool_error::ToolError;

        use super::error::invalid;
        use super::wait::{Until, Wait};
        use crate::jail::TerminalSize;

        include!(concat!(env!("OUT_DIR"), "/tools_write_input.rs"));

        /// What would be written.
        pub(super) fn checked(params: &WriteInputParams) -> Result<Vec<u8>, ToolError> {
            params.wait.checked(Until::Idle)?;
            params.resize.map(Size::checked).transpose()?;
            let bytes = bytes(params)?;
            let most = params.text.as_ref().map_or(0, String::len) + 8 * params.keys.len();
            assert!(bytes.len() <= most, "a key has more than eight bytes");
            Ok(bytes)
        }
    }

    mod read_output {
        use regex::bytes::{Regex, RegexBuilder};
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use serde_json::{Map, Value};
        use shared::tool_error::ToolError;

        use super::error::invalid;
        use super::wait::{Until, Wait};

        include!(concat!(env!("OUT_DIR"), "/tools_read_output.rs"));

        pub(super) fn checked(params: &ReadOutputParams) -> Result<(), ToolError> {
            check(params)?;
            params.grep.as_deref().map(line_pattern).transpose()?;
            params.wait.checked(Until::None)?;
            Ok(())
        }
    }

    mod changes {
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use shared::digest::Digest;
        use shared::tool_error::ToolError;

        use super::error::invalid;

        include!(concat!(env!("OUT_DIR"), "/tools_changes.rs"));

        pub(super) fn check(params: &ChangesParams) -> Result<(), ToolError> {
            checked(params).map(drop)
        }
    }

    mod edit_file {
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};

        use crate::workspace::{Edit, Occurrences};

        include!(concat!(env!("OUT_DIR"), "/tools_edit_file.rs"));

        impl EditFileParams {
            pub(super) fn into_edits(self) -> (String, Vec<Edit>) {
                (self.path, self.edits.into_iter().map(Edit::from).collect())
            }
        }
    }

    mod write_file {
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};
        use shared::tool_error::ToolError;

        use super::error::invalid;
        use crate::workspace::Expected;

        include!(concat!(env!("OUT_DIR"), "/tools_write_file.rs"));

        pub(super) fn check(params: &WriteFileParams) -> Result<(), ToolError> {
            expected(params.expect_sha256.as_deref()).map(drop)
        }
    }

    /// The tools that only take their arguments apart.
    mod others {
        use schemars::JsonSchema;
        use serde::{Deserialize, Serialize};

        use super::read_output::Encoding;

        include!(concat!(env!("OUT_DIR"), "/tools_explain.rs"));
        include!(concat!(env!("OUT_DIR"), "/tools_list_sessions.rs"));
        include!(concat!(env!("OUT_DIR"), "/tools_read_file.rs"));
        include!(concat!(env!("OUT_DIR"), "/tools_search.rs"));
        include!(concat!(env!("OUT_DIR"), "/tools_stop.rs"));
    }

    pub use reached::{Outcome, TOOLS, call};
}
