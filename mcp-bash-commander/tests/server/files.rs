//! Files through the server and through commands: the same ones.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::client::Place;

#[test]
fn commands_and_file_tools_see_the_same_files() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let written = client.ok(
        "write_file",
        &json!({"path": "a/run.sh", "content": "#!/bin/sh\necho ran\n", "executable": true}),
    )?;
    assert_eq!(written["created"], json!(true));
    let ran = client.exec("a/run.sh && echo changed >> a/run.sh && echo new > b")?;
    assert_eq!(
        (&ran["stdout"]["text"], &ran["exit_code"]),
        (&json!("ran\n"), &json!(0))
    );
    let read = client.ok("read_file", &json!({"path": "a/run.sh"}))?;
    assert_eq!(read["text"], json!("#!/bin/sh\necho ran\nchanged\n"));
    let stale = json!({"path": "a/run.sh", "content": "x", "expect_sha256": written["sha256"]});
    assert_eq!(client.error("write_file", &stale)?, "FILE_CHANGED");
    client.ok(
        "write_file",
        &json!({"path": "a/run.sh", "content": "x", "expect_sha256": read["sha256"]}),
    )?;
    assert_eq!(
        client.ok("read_file", &json!({"path": "b"}))?["text"],
        json!("new\n")
    );
    Ok(())
}

#[test]
fn a_link_that_a_command_planted_leads_the_server_nowhere() -> anyhow::Result<()> {
    let place = Place::new()?;
    let secret = place.path("secret");
    fs::write(&secret, "canary-4411")?;
    let mut client = place.start()?;
    client.exec(&format!("ln -s {} link", secret.display()))?;
    assert_eq!(
        fs::read_to_string(place.workspace().join("link"))?,
        "canary-4411",
        "the control"
    );
    assert_eq!(
        client.error("read_file", &json!({"path": "link"}))?,
        "OUTSIDE_WORKSPACE"
    );
    assert_eq!(
        client.error("write_file", &json!({"path": "link", "content": "x"}))?,
        "SYMLINK_ESCAPE"
    );
    assert_eq!(
        client.error("write_file", &json!({"path": "../secret", "content": "x"}))?,
        "INVALID_ARGUMENTS"
    );
    let seen = client.exec(&format!(
        "cat link {} /proc/1/root{}",
        secret.display(),
        secret.display()
    ))?;
    assert_ne!(seen["exit_code"], json!(0));
    assert!(!seen.to_string().contains("canary-4411"), "{seen}");
    assert_eq!(fs::read_to_string(&secret)?, "canary-4411");
    Ok(())
}

#[test]
fn a_large_file_is_read_in_pieces() -> anyhow::Result<()> {
    let place = Place::new()?;
    let text = "zeile ä\n".repeat(20_000);
    fs::write(place.workspace().join("large"), &text)?;
    symlink("large", place.workspace().join("also"))?;
    let mut client = place.start()?;
    let (mut read, mut offset) = (String::new(), json!(0));
    loop {
        let piece = client.ok(
            "read_file",
            &json!({"path": "also", "offset": offset, "max_bytes": 50_001}),
        )?;
        read.push_str(piece["text"].as_str().unwrap_or_default());
        if piece["truncated"] == json!(false) {
            break;
        }
        offset = piece["next_offset"].clone();
    }
    assert!(read == text, "the pieces do not make up the file");
    Ok(())
}

#[test]
fn clients_that_show_the_text_alone_see_bytes_and_lines_around_a_match() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.workspace().join("bytes"), [0, 1, 2, 255])?;
    fs::write(place.workspace().join("lines"), "one\ntwo\nthree\nfour\n")?;
    let mut client = place.start()?;
    let mut text = |tool: &str, arguments| -> anyhow::Result<String> {
        let result = client.call(tool, &arguments)?;
        Ok(result["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    let read = text("read_file", json!({"path": "bytes", "encoding": "base64"}))?;
    assert!(read.ends_with("base64, 4 bytes:\n| AAEC/w=="), "{read}");
    let found = text("search", json!({"pattern": "two", "context": 1}))?;
    let lines = "\n--\nlines-1- one\nlines:2: two\nlines-3- three";
    assert!(found.ends_with(lines), "{found}");
    let alone = text("search", json!({"pattern": "two"}))?;
    assert!(alone.ends_with("left out\nlines:2: two"), "{alone}");
    let refused = text("search", json!({"pattern": "two", "max": 5000}))?;
    assert!(refused.contains("`max` is 5000") && refused.contains("give 1 to 1000"));
    Ok(())
}

#[test]
fn a_read_only_workspace_is_read_only_for_both() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.workspace().join("f"), "kept")?;
    let policy = place.path("policy.toml");
    crate::client::write_private(&policy, "[workspace]\naccess = \"ro\"\n")?;
    let mut client = place.start_with(&["--policy", &policy.to_string_lossy()])?;
    assert_eq!(
        client.error("write_file", &json!({"path": "f", "content": "x"}))?,
        "READ_ONLY"
    );
    let tried = client.exec("cat f && ! echo x > f && ! touch g")?;
    assert_eq!(
        (&tried["exit_code"], &tried["stdout"]["text"]),
        (&json!(0), &json!("kept"))
    );
    assert_eq!(fs::read_to_string(place.workspace().join("f"))?, "kept");
    Ok(())
}

#[test]
fn what_the_policy_closes_is_read_by_nobody() -> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    std::fs::create_dir_all(at("app/keys/old"))?;
    for file in ["app/.env", "app/keys/old/a", "real.txt"] {
        std::fs::write(at(file), "canary-6620\n")?;
    }
    std::os::unix::fs::symlink("../real.txt", at("app/link.pem"))?;
    std::os::unix::fs::symlink("app/.env", at("harmless"))?;
    std::fs::write(at("app/plain"), "plain\n")?;
    let mut client =
        place.start_under("[workspace]\ndeny_read = [\"**/.env\", \"keys/\", \"*.pem\"]\n")?;
    for mode in ["direct", "overlay", "readonly"] {
        let told = client.ok(
            "exec",
            &json!({"command": "cat app/.env harmless app/link.pem real.txt app/keys/old/a app/keys/*/*; mv app/.env x; mv app/keys y; cp -r . /tmp/copy; \
                                ln app/.env z; grep -r canary . /tmp/copy; cat app/plain; rm -rf app/.env; cat app/.en?", "workspace": mode}),
        )?;
        assert!(!told.to_string().contains("canary-6620"), "{mode}: {told}");
        assert!(
            told["stdout"]["text"]
                .as_str()
                .is_some_and(|text| text.contains("plain")),
            "{told}"
        );
    }
    for path in ["app/.env", "app/keys/old/a", "app/./.env"] {
        assert_eq!(
            client.error("read_file", &json!({"path": path}))?,
            "READ_DENIED",
            "{path}"
        );
        let edit = json!({"path": path, "edits": [{"old": "canary", "new": "x"}]});
        assert_eq!(client.error("edit_file", &edit)?, "READ_DENIED", "{path}");
    }
    let found = client.ok("search", &json!({"pattern": "canary", "include": "all"}))?;
    assert!(
        !found.to_string().contains("app/.env") && !found.to_string().contains("keys"),
        "{found}"
    );
    assert_eq!(std::fs::read_to_string(at("app/.env"))?, "canary-6620\n");
    // Without the pattern the same commands read all of it.
    let mut open = place.start()?;
    let told = open.exec("cat app/.env app/keys/old/a")?;
    assert_eq!(told["stdout"]["text"], json!("canary-6620\ncanary-6620\n"));
    Ok(())
}

#[test]
fn a_file_with_a_name_outside_is_changed_only_where_the_policy_lets_it() -> anyhow::Result<()> {
    for (policy, overlay, reaches) in [
        ("", false, false),
        ("", true, false),
        ("[workspace]\nhard_links = \"allow\"\n", false, true),
    ] {
        let place = Place::new()?;
        let outside = place.path("outside");
        fs::write(&outside, "old\n")?;
        fs::create_dir(place.workspace().join("deep"))?;
        fs::hard_link(&outside, place.workspace().join("deep/linked"))?;
        let mut client = place.start_under(policy)?;
        let mut call = json!({"command": "cat deep/linked; echo new > deep/linked; mv deep moved"});
        if overlay {
            call["workspace"] = json!("overlay");
        }
        let explained = client
            .ok("explain", &json!({"path": "deep/linked"}))?
            .to_string();
        assert!(explained.contains("a name outside"), "{explained}");
        let tried = client.ok("exec", &call)?;
        assert_eq!(tried["stdout"]["text"], json!("old\n"), "{policy} {tried}");
        let now = fs::read_to_string(&outside)?;
        assert_eq!(now == "new\n", reaches, "{policy} {tried}");
        if !reaches && !overlay {
            let told = tried["stderr"]["text"].to_string();
            assert!(told.contains("Read-only file system"), "{told}");
            assert!(place.workspace().join("deep/linked").exists(), "it moved");
            // Where it is the file of this workspace alone, it is like any other.
            let copied = "cat deep/linked > copy && ! mv -f copy deep/linked";
            assert_eq!(client.exec(copied)?["exit_code"], json!(0));
        }
        let doctor = client.ok("doctor", &json!({}))?.to_string();
        assert!(doctor.contains("hard links") && doctor.contains("deep/linked") || reaches);
    }
    Ok(())
}
