//! Programs that want a terminal, driven as a person would: keys in, a screen out.

use serde_json::{Value, json};

use crate::client::{Client, Place};

/// Starts a program with a terminal; its id and what it says first.
fn open(client: &mut Client, command: &str) -> anyhow::Result<(Value, Value)> {
    let started = client.ok(
        "exec",
        &json!({"command": command, "tty": {"rows": 20, "cols": 60}}),
    )?;
    anyhow::ensure!(started["state"] == "running", "{started}");
    Ok((started["id"].clone(), started))
}

fn write(client: &mut Client, id: &Value, mut input: Value) -> anyhow::Result<Value> {
    input["id"] = id.clone();
    client.ok("write_input", &input)
}

fn screen(answer: &Value) -> String {
    answer["screen"]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_python_prompt_answers_and_says_that_it_waits() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let (id, started) = open(&mut client, "/usr/bin/python3 -q")?;
    assert_eq!(
        (&started["waited"], &started["awaiting_input"]),
        (&json!("input"), &json!(true)),
        "{started}"
    );
    let answer = write(&mut client, &id, json!({"text": "6 * 7\n"}))?;
    assert!(screen(&answer).contains("42"), "{answer}");
    assert_eq!(answer["waited"], json!("input"));
    let ended = write(
        &mut client,
        &id,
        json!({"keys": ["ctrl-d"], "wait": {"until": "exit"}}),
    )?;
    assert_eq!(
        (&ended["state"], &ended["exit_code"]),
        (&json!("exited"), &json!(0))
    );
    assert_eq!(
        client.error("write_input", &json!({"id": id, "text": "x"}))?,
        "INPUT_CLOSED"
    );

    let (id, _) = open(&mut client, "/usr/bin/python3 -q")?;
    let raised = write(
        &mut client,
        &id,
        json!({"text": "while True: pass\n\n", "wait": {"ms": 300}}),
    )?;
    assert_eq!(raised["awaiting_input"], json!(false), "{raised}");
    let interrupted = write(&mut client, &id, json!({"keys": ["ctrl-c"]}))?;
    assert!(
        screen(&interrupted).contains("KeyboardInterrupt"),
        "{interrupted}"
    );
    Ok(())
}

#[test]
fn a_pager_is_read_as_a_screen() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lines: Vec<String> = (1..=100).map(|number| format!("line {number}")).collect();
    std::fs::write(place.workspace().join("long"), lines.join("\n") + "\n")?;
    let mut client = place.start()?;
    let (id, _) = open(&mut client, "less long")?;
    let first = client.ok("read_output", &json!({"id": id, "screen": true}))?;
    assert!(screen(&first).starts_with("line 1\nline 2\n"), "{first}");
    let last = write(&mut client, &id, json!({"text": "G"}))?;
    assert!(screen(&last).contains("line 100") && !screen(&last).contains("line 1\n"));
    let found = write(&mut client, &id, json!({"text": "?line 42$\n"}))?;
    assert!(screen(&found).starts_with("line 42"), "{found}");
    let ended = write(
        &mut client,
        &id,
        json!({"text": "q", "wait": {"until": "exit"}}),
    )?;
    assert_eq!(ended["exit_code"], json!(0));
    Ok(())
}

#[test]
fn an_editor_writes_a_file_and_follows_the_size_of_its_terminal() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let (id, _) = open(&mut client, "vim -u NONE -N note.txt")?;
    let typed = write(
        &mut client,
        &id,
        json!({"text": "ihello from the jail", "keys": ["escape"]}),
    )?;
    assert!(screen(&typed).starts_with("hello from the jail"), "{typed}");
    assert_eq!(typed["screen"]["alternate"], json!(true));
    let resized = write(&mut client, &id, json!({"resize": {"rows": 8, "cols": 30}}))?;
    assert_eq!(screen(&resized).lines().count(), 8, "{resized}");
    let ended = write(
        &mut client,
        &id,
        json!({"text": ":wq\n", "wait": {"until": "exit"}}),
    )?;
    assert_eq!(ended["exit_code"], json!(0));
    assert_eq!(
        std::fs::read_to_string(place.workspace().join("note.txt"))?,
        "hello from the jail\n"
    );
    Ok(())
}

#[test]
fn what_looks_like_a_prompt_is_waited_for_and_a_real_one_is_not() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let call = json!({"command": "printf 'cost 5 $ '; sleep 1; echo done", "tty": {"rows": 5, "cols": 40}, "wait": {"until": "exit"}});
    let looks = client.ok("exec", &call)?;
    assert_eq!(
        (&looks["state"], looks["stdout"]["text"].as_str()),
        (&json!("exited"), Some("cost 5 $ done\r\n"))
    );
    let reads = client.ok(
        "exec",
        &json!({"command": "printf 'name: '; read -r name; echo hello $name", "stdin_open": true}),
    )?;
    assert_eq!(
        (&reads["awaiting_input"], &reads["waited"]),
        (&json!(true), &json!("input"))
    );
    let answer = client.ok(
        "write_input",
        &json!({"id": reads["id"], "text": "ana\n", "wait": {"until": "exit"}}),
    )?;
    assert_eq!(answer["stdout"]["text"], json!("hello ana\n"));
    Ok(())
}

#[test]
fn a_pipe_is_written_to_until_its_end_and_words_are_waited_for() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let started = client.ok("exec", &json!({"command": "sort", "stdin_open": true}))?;
    let id = started["id"].clone();
    client.ok(
        "write_input",
        &json!({"id": id, "text": "b\na\n", "wait": {"until": "none"}}),
    )?;
    let sorted = client.ok(
        "write_input",
        &json!({"id": id, "eof": true, "wait": {"until": "exit"}}),
    )?;
    assert_eq!(sorted["stdout"]["text"], json!("a\nb\n"));

    let serving = client.ok(
        "exec",
        &json!({"command": "echo starting; sleep 0.3; echo listening on 80 >&2; sleep 100", "wait": {"pattern": "listening on \\d+"}}),
    )?;
    assert_eq!(
        (&serving["state"], &serving["waited"]),
        (&json!("running"), &json!("pattern"))
    );
    client.ok("stop", &json!({"id": serving["id"]}))?;
    for (call, code) in [
        (json!({"id": serving["id"], "text": "x"}), "NO_INPUT"),
        (json!({"id": "x1", "text": "x"}), "UNKNOWN_SESSION"),
        (
            json!({"id": serving["id"], "keys": ["hyper-x"]}),
            "INVALID_ARGUMENTS",
        ),
        (json!({"id": serving["id"]}), "INVALID_ARGUMENTS"),
        (
            json!({"id": serving["id"], "resize": {"rows": 0, "cols": 5}}),
            "INVALID_ARGUMENTS",
        ),
    ] {
        assert_eq!(client.error("write_input", &call)?, code, "{call}");
    }
    Ok(())
}

#[test]
fn lines_that_match_are_found_with_their_positions() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let ended = client.exec("seq 1 2000; echo the error; seq 1 2000")?;
    let found = client.ok(
        "read_output",
        &json!({"id": ended["id"], "grep": "error|^1999$"}),
    )?;
    assert_eq!(
        found["text"],
        json!("8883:1999\n8893:the error\n17786:1999\n"),
        "{found}"
    );
    assert_eq!(found["end"], json!(true));
    Ok(())
}

/// Starts a command that does not read its terminal for a while, and types more than a terminal holds.
fn overfill(client: &mut Client, command: &str) -> anyhow::Result<Value> {
    let started =
        json!({"command": command, "tty": {"rows": 20, "cols": 60}, "wait": {"until": "none"}});
    let id = client.ok("exec", &started)?["id"].clone();
    let much = "a".repeat(65_536);
    client.call("write_input", &json!({"id": id, "text": much}))
}

#[test]
fn a_terminal_that_closes_while_it_is_written_to_stops_nobody() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    for command in [
        "stty raw -echo; sleep 0.5",
        "stty raw -echo; sleep 0.2; exec </dev/null >/dev/null 2>&1; sleep 1",
    ] {
        let answer = overfill(&mut client, command)?;
        assert_eq!(answer["isError"], json!(true), "{command}: {answer}");
        let told = answer["content"].to_string();
        assert!(told.contains("INPUT_CLOSED"), "{command}: {told}");
        assert_eq!(client.exec("true")?["exit_code"], json!(0));
    }
    Ok(())
}

#[test]
fn a_terminal_that_was_let_go_and_opened_again_is_read_on() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let letting_go = "trap '' HUP; exec 3<>/dev/tty 4</dev/null; exec 0<&4 1>&4 2>&4 3>&-; sleep 0.3; \
                      exec 1>/dev/tty && echo back";
    let done = client.ok(
        "exec",
        &json!({"command": letting_go, "tty": {"rows": 20, "cols": 60}, "wait": {"until": "exit"}}),
    )?;
    let told = done["stdout"]["text"].to_string();
    assert!(told.contains("back"), "{done}");
    assert_eq!(done["output_open"], json!(false), "{done}");
    Ok(())
}
