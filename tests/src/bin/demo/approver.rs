//! Who decides: the human at the page or the terminal, or a test approver who uses the same plane.

use std::io::IsTerminal as _;

use serde_json::Value;
use tests::{human::unknown_criteria, run::text};

use crate::{stage::Stage, story::Story};

const TEST_APPROVER: &str = "test-approver";
/// Protects nothing: the state directory is temporary and the approver is marked as a test.
const TEST_SECRET: &str = "this is only a test";

/// Who decides.
pub(crate) enum Approver {
    /// Whoever sits there.
    Human,
    /// The demo itself, marked as a test.
    Test {
        /// Says no once.
        reject_first: bool,
    },
}

impl Approver {
    /// Makes sure that somebody may decide.
    pub(crate) async fn enrol(&self, stage: &Stage, story: &mut Story) -> anyhow::Result<()> {
        match self {
            Self::Test { .. } => {
                let words = [
                    "enrol",
                    "--name",
                    TEST_APPROVER,
                    "--test",
                    "--secret-fd",
                    "0",
                ];
                stage.human(&words, Some(TEST_SECRET)).await?;
                story.enrolled(TEST_APPROVER, true);
            }
            Self::Human => {
                let name = std::env::var("USER").unwrap_or_else(|_| "me".to_owned());
                let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
                if can_ask {
                    story.ask(&format!(
                        "first, enrol yourself (mcp-spec-registry enrol --name {name})"
                    ));
                    loop {
                        let status = stage.on_terminal(&["enrol", "--name", &name]).await?;
                        match status.code() {
                            Some(0) => break,
                            // It was interrupted, and so is everything.
                            Some(130) | None => anyhow::bail!("nobody was enrolled"),
                            Some(_) => story.ask("that did not work; once more"),
                        }
                    }
                    story.enrolled(&name, false);
                } else {
                    let line = stage.command_line(&format!("enrol --name {name}"));
                    story.ask(&format!(
                        "first, enrol yourself in another terminal: {line}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Decides the checkpoint, if it is this one's to decide; a human does it in their own time.
    pub(crate) async fn decide(
        &self,
        stage: &Stage,
        checkpoint: &str,
        is_first_v1: bool,
    ) -> anyhow::Result<()> {
        let Self::Test { reject_first } = self else {
            return Ok(());
        };
        let shown: Value =
            serde_json::from_str(&stage.human(&["show", checkpoint, "--json"], None).await?)?;
        let code = text(&shown, "code")?;
        let rejects = *reject_first && is_first_v1;
        let (verdict, reason) = if rejects {
            ("reject", "bind to loopback only")
        } else {
            ("approve", "read and understood, by a test")
        };
        let mut words = vec![
            verdict,
            checkpoint,
            "--name",
            TEST_APPROVER,
            "--reason",
            reason,
        ];
        words.extend(["--code", code, "--secret-fd", "0", "--json"]);
        for criterion in unknown_criteria(&shown) {
            words.extend(["--accept-unknown", criterion]);
        }
        stage.human(&words, Some(TEST_SECRET)).await?;
        Ok(())
    }
}
