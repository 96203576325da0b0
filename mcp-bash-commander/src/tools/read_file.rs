//! `read_file`

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::read_output::Encoding;
use super::view::{StreamView, quote};
use crate::server::BashCommander;
use crate::session::{Piece, cut_to_characters};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("read_file", "Read a file", EffectClass::Read);

const MOST_BYTES: u32 = 131_072;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadFileParams {
    /// Relative to the workspace.
    path: String,
    /// First byte.
    #[serde(default)]
    offset: u64,
    /// 1 to 131072.
    #[serde(default = "default_bytes")]
    max_bytes: u32,
    /// `base64` gives every byte as it is.
    #[serde(default)]
    encoding: Encoding,
}

fn default_bytes() -> u32 {
    30_000
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReadFileResult {
    /// Empty for a binary file, unless base64 was asked for.
    text: String,
    binary: bool,
    /// Size of the whole file.
    bytes: u64,
    /// Of the whole file; absent over 16 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    /// There is more behind what is shown.
    truncated: bool,
    /// Give this as `offset` to read on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u64>,
}

#[tool_router(router = read_file_router, vis = "pub(super)")]
impl BashCommander {
    /// Reads a file of the workspace, or a part of it.
    #[tool]
    async fn read_file(
        &self,
        Parameters(params): Parameters<ReadFileParams>,
    ) -> Result<Json<ReadFileResult>, ToolError> {
        if !(1..=MOST_BYTES).contains(&params.max_bytes) {
            return Err(invalid(
                format!("`max_bytes` is {}", params.max_bytes),
                "give 1 to 131072",
            ));
        }
        self.check_readable(&params.path)?;
        let workspace = Arc::clone(&self.state().workspace);
        let (path, offset) = (params.path.clone(), params.offset);
        let most = usize::try_from(params.max_bytes).unwrap_or(usize::MAX);
        let slice = tokio::task::spawn_blocking(move || workspace.read(&path, offset, most))
            .await
            .map_err(|error| ToolError::internal(&error))??;
        let binary = slice.is_binary();
        let mut piece = Piece {
            start: params.offset,
            bytes: slice.bytes,
        };
        let text = match params.encoding {
            Encoding::Base64 => STANDARD.encode(&piece.bytes),
            Encoding::Text if binary => String::new(),
            Encoding::Text => {
                let is_end = piece.end() >= slice.size;
                cut_to_characters(&mut piece, is_end);
                String::from_utf8_lossy(&piece.bytes).into_owned()
            }
        };
        let end = piece.end();
        let truncated = end < slice.size;
        let mut summary = format!(
            "bytes {} to {end} of {} of the file",
            params.offset.min(end),
            slice.size
        );
        if binary && params.encoding == Encoding::Text {
            summary.push_str("; it is binary: ask for base64, or look with exec: file, xxd");
        } else {
            let name = match params.encoding {
                Encoding::Text => "content",
                Encoding::Base64 => "content in base64",
            };
            let shown = StreamView {
                text: text.clone(),
                bytes: piece.bytes.len() as u64,
                omitted: 0,
                cursor: end,
            };
            quote(&mut summary, name, &shown);
        }
        let result = ReadFileResult {
            text,
            binary,
            bytes: slice.size,
            sha256: slice.sha256,
            truncated,
            next_offset: truncated.then_some(end),
        };
        Ok(structured(result, summary))
    }
}
