//! One command after another, in fresh jails and in kept ones: nothing piles up.

use serde_json::{Value, json};

use crate::client::{Place, Server};
use crate::machine::{Holdings, family, kilobytes, launcher};
use crate::processes::eventually;
use crate::scale::{Scale, alone};

/// More commands than a server remembers.
const WARM_UP: u64 = 120;
/// What memory may grow by however many commands run; allocators keep some of what they had.
const SERVER_GROWTH_KB: u64 = 4096;
const HELPER_GROWTH_KB: u64 = 512;

fn execs(server: &mut Server, count: u64) -> anyhow::Result<()> {
    for number in 0..count {
        let session = if number % 2 == 0 {
            Value::Null
        } else {
            json!("soak")
        };
        let done = server.ok("exec", &json!({"argv": ["/bin/true"], "session": session}))?;
        anyhow::ensure!(done["exit_code"] == json!(0), "exec {number}: {done}");
    }
    Ok(())
}

/// Memory of the server, its launcher, and the kept jail's init.
fn memory(server: u32) -> anyhow::Result<[u64; 3]> {
    let launcher = launcher(server)?;
    let init = family(launcher).get(1).map_or(launcher, |init| init.id);
    Ok([
        kilobytes(server, "VmRSS")?,
        kilobytes(launcher, "VmRSS")?,
        kilobytes(init, "VmRSS")?,
    ])
}

#[test]
fn however_many_commands_run_nothing_piles_up() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let place = Place::new()?;
    let mut server = place.start()?;
    execs(&mut server, WARM_UP)?;
    let id = server.id();
    // Server, launcher and the kept jail's init: the last fresh jail may just be ending.
    eventually("the jails are over", || Ok(family(id).len() == 3))?;
    let (before, memory_before) = (Holdings::of(id)?, memory(id)?);
    eprintln!(
        "before {} execs: {before:?}, kB {memory_before:?}",
        scale.execs
    );
    for part in 1..=4 {
        execs(&mut server, scale.execs / 4)?;
        eprintln!("after {part}/4: kB {:?}", memory(id)?);
    }
    let mut after = Holdings::of(id)?;
    let is_flat = eventually("what is held is as before", || {
        after = Holdings::of(id)?;
        Ok(after == before)
    });
    let memory_after = memory(id)?;
    eprintln!(
        "after {} execs: {after:?}, kB {memory_after:?}",
        scale.execs
    );
    is_flat?;
    assert_eq!(after.zombies, 0);
    let growth: Vec<u64> = memory_after
        .iter()
        .zip(memory_before)
        .map(|(after, before)| after.saturating_sub(before))
        .collect();
    let most = [SERVER_GROWTH_KB, HELPER_GROWTH_KB, HELPER_GROWTH_KB];
    assert!(
        growth
            .iter()
            .zip(most)
            .all(|(growth, most)| *growth <= most),
        "memory grew by {growth:?} kB, at most {most:?} are right"
    );
    Ok(())
}

/// Init of a kept jail shares its memory with each command until that becomes its program.
#[test]
fn a_kept_session_does_not_grow_with_the_commands_it_has_seen() -> anyhow::Result<()> {
    const COMMANDS: u32 = 300;
    let _turn = alone();
    let place = Place::new()?;
    let mut server = place.start()?;
    let argv = vec!["true"; 1000];
    let long = json!({"argv": argv, "session": "long"});
    for _ in 0..20 {
        server.ok("exec", &long)?;
    }
    let [_, _, before] = memory(server.id())?;
    for _ in 0..COMMANDS {
        server.ok("exec", &long)?;
    }
    let [_, _, after] = memory(server.id())?;
    eprintln!(
        "init after {COMMANDS} commands of 1000 arguments: {before} kB before, {after} kB after"
    );
    assert!(
        after < before + HELPER_GROWTH_KB,
        "{before} kB before, {after} kB after {COMMANDS} commands"
    );
    Ok(())
}
