//! The list of all tools. None of them approves, waives, activates, resumes or enrols: only humans do, elsewhere.

mod agent_register;
mod checkpoint_wait;
mod deviation_report;
mod error;
mod execution_begin;
mod generation_complete;
mod plan_submit;
mod rationale_record;
mod run_claim;
mod run_get;
mod run_list;
mod run_request;
mod spec_get;
mod spec_propose;
mod spec_search;
mod spec_validate;
mod view;

use rmcp::handler::server::tool::ToolRouter;
use shared::tools::{ToolEffect, ToolsError, finish};

use crate::server::SpecRegistry;

/// All tools with their annotations.
///
/// # Errors
/// A tool that declares no effect.
pub(crate) fn router() -> Result<ToolRouter<SpecRegistry>, ToolsError> {
    let tools = SpecRegistry::agent_register_router()
        + SpecRegistry::checkpoint_wait_router()
        + SpecRegistry::deviation_report_router()
        + SpecRegistry::execution_begin_router()
        + SpecRegistry::generation_complete_router()
        + SpecRegistry::plan_submit_router()
        + SpecRegistry::rationale_record_router()
        + SpecRegistry::run_claim_router()
        + SpecRegistry::run_get_router()
        + SpecRegistry::run_list_router()
        + SpecRegistry::run_request_router()
        + SpecRegistry::spec_get_router()
        + SpecRegistry::spec_propose_router()
        + SpecRegistry::spec_search_router()
        + SpecRegistry::spec_validate_router();
    finish(tools, EFFECTS)
}

const EFFECTS: &[ToolEffect] = &[
    agent_register::EFFECT,
    checkpoint_wait::EFFECT,
    deviation_report::EFFECT,
    execution_begin::EFFECT,
    generation_complete::EFFECT,
    plan_submit::EFFECT,
    rationale_record::EFFECT,
    run_claim::EFFECT,
    run_get::EFFECT,
    run_list::EFFECT,
    run_request::EFFECT,
    spec_get::EFFECT,
    spec_propose::EFFECT,
    spec_search::EFFECT,
    spec_validate::EFFECT,
];
