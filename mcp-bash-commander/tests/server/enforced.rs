//! Enforced mode without a registry: nothing is changed, everything else works. (With one, it is tested end to end.)

use base64::Engine as _;
use serde_json::json;

use crate::client::{Client, Place, write_private};

/// A server that asks a registry which is not there.
fn start(place: &Place) -> anyhow::Result<Client> {
    // The encoding of the curve's base point: a valid key of nobody.
    let mut key = [0x66; 32];
    key[0] = 0x58;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let credential = place.path("credential.toml");
    let lines = [
        "principal = \"shell\"",
        "kind = \"service\"",
        "server = \"mcp-bash-commander\"",
        "token = \"canary-token-5512\"",
        &format!("registry_key = \"ed25519:{key}\""),
    ];
    write_private(&credential, &(lines.join("\n") + "\n"))?;
    let socket = format!("unix:{}", place.path("no-registry.sock").display());
    place.start_with(&[
        "--enforced",
        "--registry",
        &socket,
        "--registry-token",
        &credential.to_string_lossy(),
    ])
}

#[test]
fn nothing_is_changed_without_a_grant_or_without_a_registry() -> anyhow::Result<()> {
    let place = Place::new()?;
    std::fs::write(place.workspace().join("f"), "kept")?;
    let mut client = start(&place)?;
    let write = json!({"path": "f", "content": "x"});
    assert_eq!(client.error("write_file", &write)?, "GRANT_REQUIRED");
    assert_eq!(
        client.error("exec", &json!({"command": "echo x > f"}))?,
        "GRANT_REQUIRED"
    );
    let granted =
        json!({"path": "f", "content": "x", "grant": "gr_00000000000000000000000000000000"});
    assert_eq!(
        client.error("write_file", &granted)?,
        "REGISTRY_UNREACHABLE"
    );
    assert_eq!(
        client.error(
            "write_file",
            &json!({"path": "f", "content": "x", "grant": 7})
        )?,
        "INVALID_ARGUMENTS"
    );
    assert_eq!(
        client.ok("read_file", &json!({"path": "f"}))?["text"],
        json!("kept")
    );
    assert_eq!(
        client.ok("list_sessions", &json!({}))?["sessions"],
        json!([])
    );
    assert_eq!(
        client.error("stop", &json!({"id": "x1"}))?,
        "UNKNOWN_SESSION"
    );
    let doctor = client.ok("doctor", &json!({}))?;
    assert_eq!(doctor["status"], json!("fail"));
    assert!(!doctor.to_string().contains("canary-token-5512"));
    Ok(())
}

#[test]
fn only_calls_that_need_a_grant_take_one() -> anyhow::Result<()> {
    let place = Place::new()?;
    let takes_grant = |client: &mut Client| -> anyhow::Result<Vec<String>> {
        let listed = client.request("tools/list", &json!({}))?;
        let tools = listed["result"]["tools"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let with_grant = tools
            .iter()
            .filter(|tool| tool["inputSchema"]["properties"].get("grant").is_some());
        Ok(with_grant
            .filter_map(|tool| Some(tool["name"].as_str()?.to_owned()))
            .collect())
    };
    assert_eq!(
        takes_grant(&mut start(&place)?)?,
        ["changes", "edit_file", "exec", "write_file", "write_input"]
    );
    assert_eq!(takes_grant(&mut place.start()?)?, Vec::<String>::new());
    Ok(())
}
