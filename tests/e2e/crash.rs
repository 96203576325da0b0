//! `kill -9` of the registry and of the shell at random points of runs: nothing acknowledged is lost, nothing is done twice.

mod agent;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tests::client::Client;
use tests::process::ServerProcess;
use tests::processes::until_none_of;
use tests::run::{AGENT, Place, call, registered};

use self::agent::{Agent, Ledger};

/// Kills of each server.
const KILLS: u32 = 100;
/// A run takes about so many acknowledged calls; a server is killed after some of them.
const MOST_CALLS: u32 = 10;
/// The kill comes up to so long after the call before it was acknowledged.
const LONGEST_DELAY_US: u32 = 30_000;
/// How long the kernel may take to end what was in the jails.
const JAILS_END_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn no_kill_of_the_registry_loses_or_doubles_what_was_acknowledged() -> anyhow::Result<()> {
    let mut dice = Dice::thrown()?;
    let place = Place::make().await?;
    let mut registry = place.start_registry(&[]).await?;
    place.prepare().await?;
    let (_shell, shell) = place.start_shell().await?;
    let mut ledger = Ledger::new();
    for round in 1..=KILLS {
        let client = connected(&place).await?;
        let seed = dice.seed;
        let checked = async {
            ledger.holds(&client, &place).await?;
            let agent = Agent::new(&place, &client, &shell, &mut ledger);
            agent.play(until_kill(&mut dice, &registry)).await?;
            registry.wait().await?;
            registry = place.start_registry(&[]).await?;
            place.human(&["audit", "verify"], None).await?;
            anyhow::Ok(())
        };
        checked
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    at_the_end(&place, &shell, &mut ledger)
        .await
        .with_context(|| format!("seed {}", dice.seed))
}

#[tokio::test]
async fn no_kill_of_the_shell_leaves_a_process_or_loses_what_was_acknowledged() -> anyhow::Result<()>
{
    let mut dice = Dice::thrown()?;
    let place = Place::make().await?;
    let _registry = place.start_registry(&[]).await?;
    place.prepare().await?;
    let client = connected(&place).await?;
    let mut ledger = Ledger::new();
    let mut with_processes = 0;
    let mut longest = Duration::ZERO;
    for round in 1..=KILLS {
        let (mut process, shell) = place.start_shell().await?;
        let seed = dice.seed;
        let checked = async {
            ledger.holds(&client, &place).await?;
            let agent = Agent::new(&place, &client, &shell, &mut ledger);
            let were_alive = agent.play(until_kill(&mut dice, &process)).await?;
            process.wait().await?;
            let killed = Instant::now();
            with_processes += u32::from(were_alive);
            until_none_of(&ledger.mark, JAILS_END_WITHIN).await?;
            // Launchers and the inits of jails are forks of the shell, and have its arguments.
            let state = place.path().join("shell-state");
            until_none_of(&state.display().to_string(), JAILS_END_WITHIN).await?;
            longest = longest.max(killed.elapsed());
            anyhow::Ok(())
        };
        checked
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    eprintln!(
        "processes of jails were alive at {with_processes} kills; all were gone within {longest:?}"
    );
    let (_process, shell) = place.start_shell().await?;
    at_the_end(&place, &shell, &mut ledger)
        .await
        .with_context(|| format!("seed {}", dice.seed))?;
    ensure!(
        with_processes > 0,
        "no jail was running at any kill, so that none was left proves nothing"
    );
    Ok(())
}

/// After the last restart: all holds, the audit verifies, and one more run goes through to its end.
async fn at_the_end(place: &Place, shell: &Client, ledger: &mut Ledger) -> anyhow::Result<()> {
    let client = connected(place).await?;
    ledger.holds(&client, place).await?;
    let validated = ledger.validated;
    let agent = Agent::new(place, &client, shell, ledger);
    agent.play_to_the_end().await?;
    ensure!(
        ledger.validated > validated,
        "no run reaches its end any more"
    );
    ledger.holds(&client, place).await?;
    ledger.is_closed(&client).await?;
    let verified = place.human(&["audit", "verify"], None).await?;
    eprintln!(
        "{} calls acknowledged, {} runs validated, {} sent back, {} actions unknown; {}",
        ledger.acknowledged,
        ledger.validated,
        ledger.returned,
        ledger.unknown,
        verified.trim()
    );
    ensure!(
        ledger.validated > 5,
        "hardly a run reached its end, so little was proven"
    );
    Ok(())
}

async fn connected(place: &Place) -> anyhow::Result<Client> {
    let client = place.agent(AGENT).await?;
    registered(&client).await?;
    let runs = call(&client, "run_list", json!({})).await?;
    ensure!(runs.is_object(), "no list of runs");
    Ok(client)
}

/// What decides when a process is killed: after how many more acknowledged calls, and how long after the last of them.
struct Kill {
    calls: u32,
    delay: Duration,
    process: Pid,
}

fn until_kill(dice: &mut Dice, process: &ServerProcess) -> anyhow::Result<Kill> {
    let id = i32::try_from(process.id().context("it has ended by itself")?)?;
    Ok(Kill {
        calls: dice.below(MOST_CALLS),
        delay: Duration::from_micros(dice.below(LONGEST_DELAY_US).into()),
        process: Pid::from_raw(id).context("process id 0")?,
    })
}

impl Kill {
    fn now(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.process, Signal::KILL)?)
    }
}

/// A small generator (xorshift): what failed once can be played again with its seed.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn thrown() -> anyhow::Result<Self> {
        let given = std::env::var("CRASH_SEED").ok();
        let seed = match given {
            Some(seed) => seed.parse().context("CRASH_SEED is no number")?,
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)?
                .as_micros()
                .try_into()?,
        };
        eprintln!("CRASH_SEED={seed}");
        Ok(Self {
            seed,
            state: seed | 1,
        })
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        u32::try_from((self.state >> 16) % u64::from(limit)).unwrap_or(0)
    }
}
