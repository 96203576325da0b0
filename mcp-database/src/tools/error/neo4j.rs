//! Neo4j's errors.

use shared::tool_error::{ToolError, code};

use crate::neo4j::cypher::gate::GateError;
use crate::neo4j::error::{GraphError, Refusal};

impl From<GraphError> for ToolError {
    fn from(error: GraphError) -> Self {
        let code = match &error {
            GraphError::Gate(GateError::Procedure { .. } | GateError::Function { .. }) => {
                "FUNCTION_REFUSED"
            }
            GraphError::Gate(_) | GraphError::NoRead(_) => "NOT_A_QUERY",
            GraphError::Parameter(_) | GraphError::Argument(_) => code::INVALID_ARGUMENTS,
            GraphError::MissingEnds { .. } => "NODES_MISSING",
            GraphError::Unexpected { .. } => "UNEXPECTED_COUNT",
            GraphError::ReadOnly(_) => "READ_ONLY",
            GraphError::Unreachable { .. } | GraphError::Login { .. } => "UNREACHABLE",
            GraphError::Timeout(_)
            | GraphError::Server {
                refusal: Refusal::TimedOut,
                ..
            } => code::TIMEOUT,
            GraphError::TooLarge(_) => code::RESULT_TOO_LARGE,
            GraphError::Unknown(_) => "OUTCOME_UNKNOWN",
            GraphError::Connection(_) => "CONNECTION_LOST",
            GraphError::Server { .. } => "DATABASE_ERROR",
            GraphError::Source(_) => "SOURCE_UNUSABLE",
        };
        let hint = error.hint();
        let message = match error {
            GraphError::Source(error) => return error.into(),
            GraphError::Server {
                position: Some(position),
                ..
            } => format!("{error}, at character {position}"),
            error => error.to_string(),
        };
        let told = Self::new(code, message);
        match hint {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_told_with_its_place() {
        let told = ToolError::from(GraphError::Server {
            refusal: Refusal::Syntax,
            code: "Neo.ClientError.Statement.SyntaxError".to_owned(),
            message: "Variable `x` not defined".to_owned(),
            position: Some(8),
        });
        assert_eq!(told.code, "DATABASE_ERROR");
        assert_eq!(
            told.message,
            "Variable `x` not defined (Neo.ClientError.Statement.SyntaxError), at character 8"
        );
    }
}
