//! What to put into an MCP client's configuration to connect it to this registry.

use std::path::Path;

use serde_json::json;

/// A client whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// Claude Desktop: `claude_desktop_config.json`.
    ClaudeDesktop,
    /// Claude Code: a command.
    ClaudeCode,
    /// Codex: config.toml.
    Codex,
}

/// The text to paste, with the program and the arguments that reach this registry.
pub fn client_config(client: Client, program: &Path, state_dir: Option<&Path>) -> String {
    let program = program.display().to_string();
    let mut arguments = vec!["stdio".to_owned()];
    if let Some(state_dir) = state_dir {
        arguments.extend(["--state-dir".to_owned(), state_dir.display().to_string()]);
    }
    arguments.extend(["--agent".to_owned(), client.agent().to_owned()]);
    match client {
        Client::ClaudeDesktop => {
            let server = json!({ "command": program, "args": arguments });
            let text = json!({ "mcpServers": { "spec-registry": server } });
            serde_json::to_string_pretty(&text).unwrap_or_default()
        }
        Client::ClaudeCode => {
            let words: Vec<String> = arguments.iter().map(|word| shell_word(word)).collect();
            format!(
                "claude mcp add spec-registry -- {} {}",
                shell_word(&program),
                words.join(" ")
            )
        }
        Client::Codex => {
            // JSON strings and lists are TOML strings and lists.
            format!(
                "[mcp_servers.spec-registry]\ncommand = {}\nargs = {}",
                json!(program),
                json!(arguments)
            )
        }
    }
}

impl Client {
    fn agent(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "claude-desktop",
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
        }
    }
}

fn shell_word(word: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./:=@".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_survives_blanks_and_quotes_in_paths() -> anyhow::Result<()> {
        let program = Path::new("/home/an a/it's/mcp-spec-registry");
        let desktop: serde_json::Value =
            serde_json::from_str(&client_config(Client::ClaudeDesktop, program, None))?;
        assert_eq!(
            desktop["mcpServers"]["spec-registry"]["command"],
            program.display().to_string()
        );
        let code = client_config(Client::ClaudeCode, program, Some(Path::new("/s")));
        assert_eq!(
            code,
            r"claude mcp add spec-registry -- '/home/an a/it'\''s/mcp-spec-registry' stdio --state-dir /s --agent claude-code"
        );
        let codex: toml::Value = toml::from_str(&client_config(Client::Codex, program, None))?;
        let words = codex["mcp_servers"]["spec-registry"]["args"]
            .as_array()
            .map(Vec::len);
        assert_eq!(words, Some(3));
        Ok(())
    }
}
