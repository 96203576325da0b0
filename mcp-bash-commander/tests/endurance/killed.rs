//! `kill -9` of the server at any moment of its life: nothing it started is alive a second later, and the next server finds its way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Place, Server};
use crate::machine::{Process, family};
use crate::processes::{eventually, processes_with, tag, within};
use crate::scale::{Scale, Sequence, alone, seed};

/// How soon everything must be gone.
const SOON: Duration = Duration::from_secs(1);
/// Tagged processes of each call on average, at least, once everything runs.
const EACH_RUNS: u64 = 2;

/// Fresh jails, kept sessions, terminals, overlays, and daemons by every trick of the shell. Each process has `tag` as an argument.
fn calls(tag: &str) -> Vec<Value> {
    let sleep = format!("sleep {tag}");
    let none = json!({"until": "none"});
    vec![
        json!({"argv": ["sleep", tag]}),
        json!({"command": sleep, "session": "first"}),
        json!({"command": format!("setsid {sleep} & nohup {sleep} & ({sleep} &) & {sleep}"), "session": "first", "wait": none}),
        json!({"command": sleep, "tty": {"rows": 24, "cols": 80}, "wait": none}),
        json!({"command": format!("trap '' HUP TERM INT; {sleep}; true"), "tty": {"rows": 24, "cols": 80}, "session": "terminal"}),
        json!({"command": format!("echo changed > changed; {sleep} & {sleep}"), "workspace": "overlay", "wait": none}),
        json!({"command": format!("echo changed > changed; {sleep}"), "workspace": "overlay", "session": "overlaid"}),
        json!({"command": format!("setsid {sleep} & disown -a; (setsid sh -c '{sleep} & {sleep}' &) ; nohup {sleep}")}),
        json!({"command": sleep, "stdin_open": true, "wait": none}),
        json!({"command": format!("while :; do setsid {sleep} & read -t 0.01 < <({sleep}); done"), "wait": none}),
    ]
}

fn ask_for_everything(server: &mut Server, tag: &str, shift: usize) -> anyhow::Result<()> {
    let mut calls = calls(tag);
    let by = shift % calls.len();
    calls.rotate_left(by);
    for call in calls {
        server.begin("exec", &call)?;
    }
    Ok(())
}

/// Kills the server, and says how long it took until nothing of it was alive.
fn kill_and_wait(server: Server, tag: &str) -> anyhow::Result<Duration> {
    let relatives = family(server.id());
    let killed = server.kill()?;
    let left = || -> anyhow::Result<(usize, usize)> {
        let alive = relatives
            .iter()
            .filter(|process| Process::is_alive(**process));
        Ok((processes_with(tag)?, alive.count()))
    };
    let rest = SOON.saturating_sub(killed.elapsed());
    within(rest, "nothing of the server is alive", || {
        Ok(left()? == (0, 0))
    })
    .map_err(|error| error.context(format!("tagged, related: {:?}", left())))?;
    Ok(killed.elapsed())
}

fn overlays(place: &Place) -> Vec<fs::DirEntry> {
    let folder = place.state().join("overlays");
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

#[test]
fn a_server_killed_at_any_moment_leaves_nothing_alive() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let seed = seed()?;
    eprintln!("ENDURANCE_SEED={seed}");
    let mut random = Sequence::new(seed);
    let place = Place::new()?;
    let tag = tag(4);
    let everything = EACH_RUNS * calls(&tag).len() as u64;
    let all_run = time_until_everything_runs(&place, &tag)?;
    let (mut alive, mut took) = (Vec::new(), Vec::new());
    for round in 0..scale.kills {
        // So many processes, and then a time: neither depends on how fast the machine happens to be alone.
        let (enough, pause) = (random.next(everything + 1), random.next(1000));
        let pause = all_run * u32::try_from(pause)? / 1000;
        let mut server = place.spawn(&[])?;
        ask_for_everything(&mut server, &tag, usize::try_from(random.next(100))?)?;
        eventually("enough runs", || Ok(processes_with(&tag)? as u64 >= enough))?;
        let until = Instant::now() + pause;
        // The time is not waited for because of anything: it is the random one.
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
        alive.push(processes_with(&tag)?);
        let gone = kill_and_wait(server, &tag).map_err(|error| {
            error.context(format!(
                "round {round}, {enough} processes and {pause:?} later"
            ))
        })?;
        took.push(gone);
    }
    alive.sort_unstable();
    took.sort_unstable();
    eprintln!(
        "everything runs after {all_run:?}; {} kills with {:?} to {:?} tagged processes alive (median {:?}); all gone after {:?} at most (median {:?})",
        scale.kills,
        alive.first(),
        alive.last(),
        alive.get(alive.len() / 2),
        took.last(),
        took.get(took.len() / 2)
    );
    assert!(alive.last() > Some(&10), "everything ran in some round");
    next_server_finds_its_way(&place, &tag)
}

#[test]
fn what_a_server_left_that_was_killed_while_it_made_an_overlay_is_removed() -> anyhow::Result<()> {
    let _turn = alone();
    for made in [&[][..], &["upper"], &["upper", "work"]] {
        let place = Place::new()?;
        let overlay = place
            .state()
            .join("overlays/0123456789abcdef/fedcba9876543210");
        fs::create_dir_all(&overlay)?;
        fs::set_permissions(place.state(), fs::Permissions::from_mode(0o700))?;
        for name in made {
            fs::create_dir(overlay.join(name))?;
        }
        let mut server = place.start()?;
        let call = json!({"argv": ["true"], "workspace": "overlay"});
        assert_eq!(server.ok("exec", &call)?["exit_code"], json!(0));
        assert!(!overlay.exists(), "with {made:?} it is still there");
    }
    Ok(())
}

/// From the start of a server until all it was asked for runs; it is killed then.
fn time_until_everything_runs(place: &Place, tag: &str) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut server = place.spawn(&[])?;
    ask_for_everything(&mut server, tag, 0)?;
    let everything = EACH_RUNS * calls(tag).len() as u64;
    eventually("everything runs", || {
        let has_overlays = overlays(place)
            .iter()
            .any(|folder| count_folders(&folder.path()) == 2);
        Ok(has_overlays && processes_with(tag)? as u64 >= everything)
    })?;
    let all_run = started.elapsed();
    kill_and_wait(server, tag)?;
    Ok(all_run)
}

/// A server killed with overlays in use, and one after it that removes them.
fn next_server_finds_its_way(place: &Place, tag: &str) -> anyhow::Result<()> {
    time_until_everything_runs(place, tag)?;
    let left: Vec<_> = overlays(place)
        .iter()
        .map(fs::DirEntry::file_name)
        .collect();
    assert!(!left.is_empty(), "the killed server left its overlays");

    let mut server = place.start()?;
    let fresh = server.ok("exec", &json!({"command": "echo works; test ! -e changed"}))?;
    assert_eq!(
        (&fresh["exit_code"], &fresh["stdout"]["text"]),
        (&json!(0), &json!("works\n"))
    );
    let overlaid = server.ok(
        "exec",
        &json!({"command": "test ! -e changed && echo x > changed", "workspace": "overlay", "session": "first"}),
    )?;
    assert_eq!(overlaid["exit_code"], json!(0));
    let now: Vec<_> = overlays(place)
        .iter()
        .map(fs::DirEntry::file_name)
        .collect();
    eprintln!(
        "overlay folders left by killed servers: {}, after the next: {}",
        left.len(),
        now.len()
    );
    assert_eq!(now.len(), 1, "only its own: {now:?}");
    assert!(!left.contains(&now[0]), "it is a new one");
    drop(server);
    let log = place.run(&["audit", "verify"])?;
    eprintln!("{}", String::from_utf8_lossy(&log.stdout).trim());
    assert!(
        log.status.success(),
        "{}",
        String::from_utf8_lossy(&log.stderr)
    );
    Ok(())
}

fn count_folders(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .count()
}
