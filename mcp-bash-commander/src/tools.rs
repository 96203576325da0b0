//! The list of all tools. None of them changes the policy.

pub(crate) mod approval;
mod changes;
mod doctor;
mod edit_file;
mod error;
pub(crate) mod exec;
mod explain;
mod list_sessions;
mod read_file;
mod read_output;
mod search;
mod stop;
mod view;
mod wait;
mod write_file;
mod write_input;

use rmcp::handler::server::tool::ToolRouter;
use shared::tools::{ToolEffect, ToolsError, finish};

use crate::server::BashCommander;

/// All tools with their annotations.
///
/// # Errors
/// A tool that declares no effect.
pub(crate) fn router() -> Result<ToolRouter<BashCommander>, ToolsError> {
    let tools = BashCommander::changes_router()
        + BashCommander::doctor_router()
        + BashCommander::edit_file_router()
        + BashCommander::exec_router()
        + BashCommander::explain_router()
        + BashCommander::list_sessions_router()
        + BashCommander::read_file_router()
        + BashCommander::read_output_router()
        + BashCommander::search_router()
        + BashCommander::stop_router()
        + BashCommander::write_file_router()
        + BashCommander::write_input_router();
    finish(tools, EFFECTS)
}

const EFFECTS: &[ToolEffect] = &[
    changes::EFFECT,
    doctor::EFFECT,
    edit_file::EFFECT,
    exec::EFFECT,
    explain::EFFECT,
    list_sessions::EFFECT,
    read_file::EFFECT,
    read_output::EFFECT,
    search::EFFECT,
    stop::EFFECT,
    write_file::EFFECT,
    write_input::EFFECT,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_tools_costs_clients_little() -> anyhow::Result<()> {
        let mut tools = router()?;
        shared::tools::shorten(&mut tools);
        let bytes = shared::tools::listed_bytes(&tools);
        assert!(bytes <= 12 * 1024, "{bytes} bytes");
        Ok(())
    }

    #[test]
    fn no_schema_has_what_some_clients_do_not_take() -> anyhow::Result<()> {
        let listed = serde_json::to_string(&router()?.list_all())?;
        for foreign in ["\"null\"", "\"$ref\"", "\"uint", "\"int64\""] {
            assert!(!listed.contains(foreign), "{foreign} in {listed}");
        }
        Ok(())
    }
}
