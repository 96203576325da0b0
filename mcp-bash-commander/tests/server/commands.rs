//! What commands do and how they end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::client::{Client, Place, missing};
use crate::processes::{eventually, processes_with, tag};

#[test]
fn a_command_ends_with_its_own_exit_code_or_signal() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let done = client.ok("exec", &json!({"argv": ["true"]}))?;
    assert_eq!(
        (&done["state"], &done["exit_code"], &done["timed_out"]),
        (&json!("exited"), &json!(0), &json!(false))
    );
    assert_eq!(
        (&done["isolation"]["mode"], missing(&done)),
        (&json!("strict"), Vec::new())
    );
    let failed = client.exec("echo out; echo err >&2; exit 37")?;
    assert_eq!(
        (&failed["state"], &failed["exit_code"]),
        (&json!("exited"), &json!(37))
    );
    assert_eq!(
        (&failed["stdout"]["text"], &failed["stderr"]["text"]),
        (&json!("out\n"), &json!("err\n"))
    );
    let signalled = client.exec("kill -SEGV $$")?;
    assert_eq!(
        (&signalled["exit_code"], &signalled["signal"]),
        (&Value::Null, &json!(11))
    );
    Ok(())
}

#[test]
fn arguments_without_a_shell_stay_as_they_are() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    for argument in ["$(id)", "a b", "*", "'\"", "; true", "-n", "\n", "ü", ""] {
        let done = client.ok("exec", &json!({"argv": ["printf", "%s", argument]}))?;
        assert_eq!(done["stdout"]["text"], json!(argument));
    }
    Ok(())
}

#[test]
fn input_folder_and_environment_are_the_calls() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.workspace().join("sub"))?;
    let mut client = place.start()?;
    let done = client.ok("exec", &json!({
        "command": "cat; pwd; echo $GREETING", "stdin": "typed\n", "cwd": "sub", "env": {"GREETING": "hi"}
    }))?;
    let expected = format!(
        "typed\n{}\nhi\n",
        place.workspace().canonicalize()?.join("sub").display()
    );
    assert_eq!(done["stdout"]["text"], json!(expected));
    Ok(())
}

#[test]
fn nothing_of_the_servers_environment_reaches_a_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    // The server has SERVER_SECRET=canary-7351.
    let server = fs::read_to_string(format!("/proc/{}/environ", client.id()))?;
    assert!(server.contains("canary-7351"), "the control");
    let done =
        client.exec("env; cat /proc/*/environ 2>/dev/null; cat /proc/*/cmdline 2>/dev/null")?;
    assert!(
        !done["stdout"]["text"].to_string().contains("canary-7351"),
        "{done}"
    );
    Ok(())
}

#[test]
fn a_command_over_its_time_is_killed_with_all_it_started() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(1);
    let command = format!(
        "trap '' TERM INT HUP; setsid sleep {seconds} & nohup sleep {seconds} & echo started; wait"
    );
    let session = client.launch(&command)?;
    eventually("the sleepers run", || Ok(processes_with(&seconds)? == 2))?;
    client.ok("stop", &json!({"id": session, "signal": "KILL"}))?;
    assert_eq!(processes_with(&seconds)?, 0);
    let killed = client.ok("exec", &json!({"command": command, "timeout_ms": 500}))?;
    assert_eq!(
        (&killed["state"], &killed["timed_out"]),
        (&json!("killed"), &json!(true))
    );
    assert_eq!(
        (&killed["exit_code"], &killed["stdout"]["text"]),
        (&Value::Null, &json!("started\n"))
    );
    eventually("the sleepers are gone", || {
        Ok(processes_with(&seconds)? == 0)
    })
}

#[test]
fn a_command_that_spins_is_killed_in_time_and_what_it_used_is_told() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let spun = client.ok(
        "exec",
        &json!({"command": "while :; do :; done", "timeout_ms": 1000}),
    )?;
    assert_eq!(
        (&spun["state"], &spun["timed_out"], &spun["signal"]),
        (&json!("killed"), &json!(true), &json!(9))
    );
    let (wall, cpu) = (&spun["wall_ms"], &spun["cpu_ms"]);
    let wall = wall.as_u64().unwrap_or_default();
    // Other tests want the processor too, so less of it than of time may have gone by.
    assert!((1000..1500).contains(&wall), "{spun}");
    assert!(
        (200..=wall).contains(&cpu.as_u64().unwrap_or_default()),
        "{spun}"
    );
    assert!(
        spun["max_rss_bytes"].as_u64().unwrap_or_default() > 0,
        "{spun}"
    );
    Ok(())
}

#[test]
fn a_process_that_holds_the_output_does_not_hold_the_answer() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(2);
    let done = client.exec(&format!("sleep {seconds} & echo done"))?;
    assert_eq!(
        (
            &done["exit_code"],
            &done["stdout"]["text"],
            &done["output_open"]
        ),
        (&json!(0), &json!("done\n"), &json!(true))
    );
    eventually("what it left behind is ended", || {
        Ok(processes_with(&seconds)? == 0)
    })
}

#[test]
fn no_output_is_lost_however_fast_a_command_ends() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    for round in 0..200 {
        let done = client.exec("seq 1 20000 | tail -1")?;
        assert_eq!(done["stdout"]["text"], json!("20000\n"), "round {round}");
        assert_eq!(done["output_open"], json!(false), "round {round}");
    }
    Ok(())
}

#[test]
fn a_hundred_megabytes_of_output_stay_a_small_answer() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let peak = |client: &Client| -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", client.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    client.exec("true")?;
    let before = peak(&client)?;
    let done =
        client.exec("echo first; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo last")?;
    assert_eq!(done["stdout"]["bytes"], json!(100_000_012));
    let text = done["stdout"]["text"].as_str().context("no text")?;
    assert!(text.starts_with("first\nx") && text.ends_with("x\nlast\n"));
    assert!(text.len() < 31_000, "{}", text.len());
    assert!(
        peak(&client)? < before + 20_000,
        "{before} kB before, {} kB after",
        peak(&client)?
    );
    let tail = client.ok("read_output", &json!({"id": done["id"], "tail": 6}))?;
    assert_eq!(
        (&tail["text"], &tail["end"]),
        (&json!("\nlast\n"), &json!(true))
    );
    Ok(())
}

#[test]
fn binary_output_comes_back_byte_for_byte() -> anyhow::Result<()> {
    use base64::Engine as _;
    let place = Place::new()?;
    let mut client = place.start()?;
    let bytes: Vec<u8> = (0..200_000_u32)
        .map(|number| u8::try_from(number * 7919 % 256).unwrap_or(0))
        .collect();
    fs::write(place.workspace().join("binary"), &bytes)?;
    let done = client.exec("cat binary")?;
    assert_eq!(done["stdout"]["bytes"], json!(bytes.len()));
    let (mut read, mut cursor) = (Vec::new(), json!(0));
    while read.len() < bytes.len() {
        let piece = client.ok(
            "read_output",
            &json!({"id": done["id"], "cursor": cursor, "encoding": "base64"}),
        )?;
        read.extend(
            base64::engine::general_purpose::STANDARD
                .decode(piece["text"].as_str().context("no text")?)?,
        );
        cursor = piece["cursor"].clone();
    }
    assert!(read == bytes, "the bytes differ");
    Ok(())
}

#[test]
fn a_published_port_is_reached_from_the_host() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.workspace().join("index.html"), "hello from the jail")?;
    let mut client = place.start()?;
    let started = client.ok(
        "exec",
        &json!({
            "command": "exec python3 -m http.server 80", "publish": [80], "wait": {"until": "none"}
        }),
    )?;
    assert_eq!(started["published"][0]["port"], json!(80));
    let address = started["published"][0]["address"]
        .as_str()
        .context("no address")?
        .to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let fetch = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    eventually("the server answers", || {
        Ok(fetch().is_ok_and(|answer| answer.ends_with("hello from the jail")))
    })?;
    client.ok("stop", &json!({"id": started["id"]}))?;
    eventually("the port is closed", || {
        Ok(TcpStream::connect(&address).is_err())
    })
}

#[test]
fn a_cancelled_call_kills_its_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(3);
    let id = client.ask(
        "tools/call",
        &json!({"name": "exec", "arguments": {"command": format!("sleep {seconds}")}}),
    )?;
    eventually("the sleeper runs", || Ok(processes_with(&seconds)? > 0))?;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}))?;
    eventually("the sleeper is gone", || Ok(processes_with(&seconds)? == 0))?;
    client.exec("true")?;
    Ok(())
}

#[test]
fn the_end_of_the_client_ends_everything_at_once() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(4);
    client.launch(&format!("sleep {seconds} & sleep {seconds}"))?;
    client.ask(
        "tools/call",
        &json!({"name": "exec", "arguments": {"command": format!("sleep {seconds}")}}),
    )?;
    eventually("the sleepers run", || Ok(processes_with(&seconds)? >= 3))?;
    let status = client.close()?;
    assert!(status.success(), "{status}");
    eventually("the sleepers are gone", || {
        Ok(processes_with(&seconds)? == 0)
    })
}

#[test]
fn a_killed_server_leaves_no_process_behind() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(5);
    client.launch(&format!("setsid sleep {seconds} & sleep {seconds}"))?;
    eventually("the sleepers run", || Ok(processes_with(&seconds)? >= 2))?;
    drop(client);
    eventually("the sleepers are gone", || {
        Ok(processes_with(&seconds)? == 0)
    })
}

#[test]
fn progress_is_told_to_a_client_that_asks_for_it() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let id = client.ask(
        "tools/call",
        &json!({
            "name": "exec",
            "arguments": {"command": "echo working; read forever < <(sleep 4; echo)"},
            "_meta": {"progressToken": "p1"}
        }),
    )?;
    let first = client.message()?;
    assert_eq!(first["method"], json!("notifications/progress"), "{first}");
    assert_eq!(first["params"]["progressToken"], json!("p1"));
    assert!(
        first["params"]["message"]
            .to_string()
            .contains("stdout 8 bytes"),
        "{first}"
    );
    eventually("the answer comes", || {
        Ok(client.message()?["id"] == json!(id))
    })
}

#[test]
fn signals_that_whoever_started_the_server_ignores_reach_a_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    let ignoring = ["-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "sh"];
    let mut command = place.command_by("sh", &ignoring);
    let mut client = Client::start(&mut command, &json!({}))?;
    // Those above 31 the C library keeps to itself.
    let ignored = |status: &str| -> anyhow::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = u64::from_str_radix(line.context("no signals")?.trim(), 16)?;
        Ok(mask & 0x7FFF_FFFF)
    };
    let of_server = fs::read_to_string(format!("/proc/{}/status", client.id()))?;
    assert_ne!(ignored(&of_server)?, 0, "the control");
    let told = client.ok("exec", &json!({"argv": ["cat", "/proc/self/status"]}))?;
    let of_command = told["stdout"]["text"].as_str().context("no text")?;
    assert_eq!(ignored(of_command)?, 0);
    Ok(())
}
