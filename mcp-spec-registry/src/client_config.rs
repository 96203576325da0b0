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

/// The shell beside the registry, as a client starts it.
#[derive(Debug, Clone, Copy)]
pub struct Shell<'a> {
    /// Its program.
    pub program: &'a Path,
    /// The folder it works in.
    pub workspace: &'a Path,
    /// Its credential, which makes it ask this registry before each change.
    pub token: Option<&'a Path>,
}

/// The text to paste, with the programs and the arguments that reach this registry and, if wanted, a shell. Both get the name of
/// one agent: a grant works only for the agent that claimed the run.
pub fn client_config(
    client: Client,
    program: &Path,
    state_dir: Option<&Path>,
    shell: Option<Shell<'_>>,
) -> String {
    let text = |path: &Path| path.display().to_string();
    let agent = ["--agent".to_owned(), client.agent().to_owned()];
    let mut arguments = vec!["stdio".to_owned()];
    if let Some(state_dir) = state_dir {
        arguments.extend(["--state-dir".to_owned(), text(state_dir)]);
    }
    arguments.extend(agent.clone());
    let mut servers = vec![("spec-registry", text(program), arguments)];
    if let Some(shell) = shell {
        let mut arguments = vec!["--workspace".to_owned(), text(shell.workspace)];
        if let Some(token) = shell.token {
            arguments.extend([
                "--enforced".to_owned(),
                "--registry-token".to_owned(),
                text(token),
            ]);
        }
        arguments.extend(agent);
        servers.push(("bash-commander", text(shell.program), arguments));
    }
    match client {
        Client::ClaudeDesktop => {
            let servers: serde_json::Map<_, _> = servers
                .into_iter()
                .map(|(name, command, args)| {
                    (name.to_owned(), json!({ "command": command, "args": args }))
                })
                .collect();
            serde_json::to_string_pretty(&json!({ "mcpServers": servers })).unwrap_or_default()
        }
        Client::ClaudeCode => lines(&servers, "\n", |(name, program, arguments)| {
            let words: Vec<String> = arguments.iter().map(|word| shell_word(word)).collect();
            format!(
                "claude mcp add {name} -- {} {}",
                shell_word(program),
                words.join(" ")
            )
        }),
        // JSON strings and lists are TOML strings and lists.
        Client::Codex => lines(&servers, "\n\n", |(name, program, arguments)| {
            format!(
                "[mcp_servers.{name}]\ncommand = {}\nargs = {}",
                json!(program),
                json!(arguments)
            )
        }),
    }
}

type Server = (&'static str, String, Vec<String>);

fn lines(servers: &[Server], between: &str, line: impl Fn(&Server) -> String) -> String {
    let lines: Vec<String> = servers.iter().map(line).collect();
    lines.join(between)
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
            serde_json::from_str(&client_config(Client::ClaudeDesktop, program, None, None))?;
        assert_eq!(
            desktop["mcpServers"]["spec-registry"]["command"],
            program.display().to_string()
        );
        let code = client_config(Client::ClaudeCode, program, Some(Path::new("/s")), None);
        assert_eq!(
            code,
            r"claude mcp add spec-registry -- '/home/an a/it'\''s/mcp-spec-registry' stdio --state-dir /s --agent claude-code"
        );
        let codex: toml::Value =
            toml::from_str(&client_config(Client::Codex, program, None, None))?;
        let words = codex["mcp_servers"]["spec-registry"]["args"]
            .as_array()
            .map(Vec::len);
        assert_eq!(words, Some(3));
        Ok(())
    }

    #[test]
    fn both_servers_are_started_for_one_agent() -> anyhow::Result<()> {
        let shell = Shell {
            program: Path::new("/b/mcp-bash-commander"),
            workspace: Path::new("/w"),
            token: Some(Path::new("/t.toml")),
        };
        let program = Path::new("/b/mcp-spec-registry");
        let config = |client| client_config(client, program, None, Some(shell));
        let desktop: serde_json::Value = serde_json::from_str(&config(Client::ClaudeDesktop))?;
        let codex: toml::Value = toml::from_str(&config(Client::Codex))?;
        for name in ["spec-registry", "bash-commander"] {
            let arguments = desktop["mcpServers"][name]["args"].to_string();
            assert!(
                arguments.contains(r#""--agent","claude-desktop""#),
                "{arguments}"
            );
            assert!(codex["mcp_servers"].get(name).is_some(), "{codex}");
        }
        let code = config(Client::ClaudeCode);
        assert_eq!(
            code.lines().nth(1),
            Some(
                "claude mcp add bash-commander -- /b/mcp-bash-commander --workspace /w --enforced --registry-token /t.toml --agent claude-code"
            )
        );
        Ok(())
    }
}
