//! A call of a tool up to where something would happen: its arguments decoded and checked.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::changes::ChangesParams;
use super::edit_file::EditFileParams;
use super::exec::ExecParams;
use super::others::{ExplainParams, ListSessionsParams, ReadFileParams, SearchParams, StopParams};
use super::read_output::ReadOutputParams;
use super::write_file::WriteFileParams;
use super::write_input::WriteInputParams;
use super::{changes, exec, read_output, write_file, write_input};
use shared::tool_error::ToolError;

/// The tools with arguments.
pub const TOOLS: [&str; 11] = [
    "changes",
    "edit_file",
    "exec",
    "explain",
    "list_sessions",
    "read_file",
    "read_output",
    "search",
    "stop",
    "write_file",
    "write_input",
];

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The arguments do not fit the tool's schema.
    NotDecoded,
    /// They fit, but cannot be used.
    Refused(ToolError),
    /// Nothing is wrong with them.
    Fine,
    /// So this would run.
    Runs(Vec<String>),
    /// So this would be written to a command.
    Writes(Vec<u8>),
}

/// Decodes and checks the arguments of a call.
pub fn call(tool: &str, arguments: &Value) -> Outcome {
    let fine = |()| Outcome::Fine;
    let result =
        match tool {
            "changes" => {
                written::<ChangesParams>(arguments).map(|params| changes::check(&params).map(fine))
            }
            "edit_file" => written::<EditFileParams>(arguments).map(|params| {
                let (_, edits) = params.into_edits();
                assert_eq!(
                    edits.len(),
                    arguments["edits"].as_array().map_or(0, Vec::len)
                );
                Ok(Outcome::Fine)
            }),
            "exec" => written::<ExecParams>(arguments)
                .map(|params| exec::checked(&params).map(Outcome::Runs)),
            "explain" => read::<ExplainParams>(arguments).map(|_| Ok(Outcome::Fine)),
            "list_sessions" => read::<ListSessionsParams>(arguments).map(|_| Ok(Outcome::Fine)),
            "read_file" => read::<ReadFileParams>(arguments).map(|_| Ok(Outcome::Fine)),
            "read_output" => read::<ReadOutputParams>(arguments)
                .map(|params| read_output::checked(&params).map(fine)),
            "search" => read::<SearchParams>(arguments).map(|_| Ok(Outcome::Fine)),
            "stop" => read::<StopParams>(arguments).map(|_| Ok(Outcome::Fine)),
            "write_file" => written::<WriteFileParams>(arguments)
                .map(|params| write_file::check(&params).map(fine)),
            _ => written::<WriteInputParams>(arguments)
                .map(|params| write_input::checked(&params).map(Outcome::Writes)),
        };
    match result {
        None => Outcome::NotDecoded,
        Some(Err(error)) => Outcome::Refused(error),
        Some(Ok(outcome)) => outcome,
    }
}

fn read<T: DeserializeOwned>(arguments: &Value) -> Option<T> {
    serde_json::from_value(arguments.clone()).ok()
}

/// Arguments that also travel to the registry: what is sent there means the same.
fn written<T: DeserializeOwned + Serialize>(arguments: &Value) -> Option<T> {
    let params: T = read(arguments)?;
    let sent = serde_json::to_value(&params).expect("arguments can be written");
    let again: T = read(&sent).expect("written arguments can be read");
    assert_eq!(
        serde_json::to_value(&again).ok().as_ref(),
        Some(&sent),
        "what is sent is not what was asked for"
    );
    Some(params)
}
