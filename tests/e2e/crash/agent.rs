//! An agent that goes on from wherever its run stands, and a ledger of everything it was told is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tests::client::Client;
use tests::processes::all_of;
use tests::run::{Begun, Claimed, Place, call, exec_step, plan, text};
use tokio::sync::Notify;

use super::Kill;

/// How often the counted step may be carried out in one run.
const USES: usize = 3;
/// Calls that were under way at a kill may still change a run; more failures in a row than this are none of theirs.
const MOST_FAILURES: u32 = 100;
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);
/// A run that nobody disturbs takes about a second.
const LONGEST_RUN: Duration = Duration::from_mins(1);
/// The states of a run that meets no objection, in their order.
const WAY: [&str; 8] = [
    "requested",
    "analyzing",
    "awaiting_v1",
    "approved",
    "generating",
    "verifying",
    "awaiting_v2",
    "validated",
];

const GENERATING: usize = 4;

/// What was acknowledged of one run.
#[derive(Debug, Default)]
struct Known {
    number: u32,
    /// How far it is on its [`WAY`].
    progress: usize,
    /// Uses of the counted step that were answered.
    counted: usize,
    /// How often it may have been sent back to Generate, where a plan may be carried out anew.
    returns: usize,
}

impl Known {
    /// How often the counted step may have been carried out by now.
    fn uses(&self) -> usize {
        USES * (1 + self.returns)
    }
}

/// Everything that was acknowledged, over all restarts.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Stands in the arguments of every process in the jails of this ledger, and nowhere else on the machine.
    pub(super) mark: String,
    /// Acknowledged calls.
    pub(super) acknowledged: u32,
    /// Runs that reached their end.
    pub(super) validated: u32,
    /// Outcomes that were sent back since they were not there any more.
    pub(super) returned: u32,
    /// Jails that were started and left running.
    pub(super) started: u32,
    /// Actions of which nobody knows how they ended, at the last look.
    pub(super) unknown: usize,
    runs: BTreeMap<String, Known>,
    current: Option<String>,
    next: u32,
}

impl Ledger {
    pub(super) fn new() -> Self {
        static LEDGERS: AtomicU32 = AtomicU32::new(0);
        let number = LEDGERS.fetch_add(1, Ordering::Relaxed);
        Self {
            mark: format!("8{:07}{number}", std::process::id()),
            acknowledged: 0,
            validated: 0,
            returned: 0,
            started: 0,
            unknown: 0,
            runs: BTreeMap::new(),
            current: None,
            next: 1,
        }
    }

    /// Makes sure that the registry knows at least what was acknowledged, and nothing twice.
    pub(super) async fn holds(&mut self, registry: &Client, place: &Place) -> anyhow::Result<()> {
        self.unknown = 0;
        for (run_id, known) in &self.runs {
            let view = call(registry, "run_get", json!({ "run_id": run_id })).await?;
            let progress = progress(&view)?;
            ensure!(
                progress >= known.progress,
                "run {run_id} was {:?} and is {:?}",
                WAY.get(known.progress),
                WAY.get(progress)
            );
            let actions = actions(&view)?;
            let ids: BTreeSet<&str> = actions
                .iter()
                .filter_map(|action| action["action"].as_str())
                .collect();
            assert_eq!(ids.len(), actions.len(), "an action is there twice: {view}");
            let counted: Vec<&Value> = of_step(actions, "count").collect();
            let done = counted.iter().filter(|action| action["outcome"] == "ok");
            let done = done.count();
            let lines = lines(place, known.number)?;
            ensure!(
                known.counted <= lines
                    && done <= lines
                    && lines <= counted.len()
                    && counted.len() <= known.uses(),
                "run {run_id}: {} uses acknowledged, {done} on record as done, {} on record, {} allowed, \
                 and the command ran {lines} times: {view}",
                known.counted,
                counted.len(),
                known.uses()
            );
            let unknown = actions
                .iter()
                .filter(|action| action["outcome"] == "unknown");
            self.unknown += unknown.count();
        }
        Ok(())
    }

    /// Makes sure that no intent of a finished run is open, and that a request that was repeated made one run.
    pub(super) async fn is_closed(&self, registry: &Client) -> anyhow::Result<()> {
        for run_id in self.runs.keys() {
            let view = call(registry, "run_get", json!({ "run_id": run_id })).await?;
            for action in actions(&view)? {
                ensure!(action["outcome"].is_string(), "an intent is open: {action}");
            }
        }
        let listed = call(registry, "run_list", json!({ "limit": 200 })).await?;
        let listed = listed["runs"].as_array().context("no runs")?;
        assert_eq!(
            listed.len(),
            self.runs.len(),
            "a request made two runs, or none"
        );
        Ok(())
    }
}

/// The agent, between two kills.
pub(super) struct Agent<'world> {
    place: &'world Place,
    registry: &'world Client,
    shell: &'world Client,
    ledger: &'world mut Ledger,
    begun: Option<Begun>,
    acknowledged: Arc<(AtomicU32, Notify)>,
}

impl<'world> Agent<'world> {
    pub(super) fn new(
        place: &'world Place,
        registry: &'world Client,
        shell: &'world Client,
        ledger: &'world mut Ledger,
    ) -> Self {
        Self {
            place,
            registry,
            shell,
            ledger,
            begun: None,
            acknowledged: Arc::default(),
        }
    }

    /// Goes on until the kill, whatever is under way then. Answers whether processes of jails were alive just before it.
    pub(super) async fn play(mut self, kill: anyhow::Result<Kill>) -> anyhow::Result<bool> {
        let kill = kill?;
        let mark = self.ledger.mark.clone();
        let acknowledged = Arc::clone(&self.acknowledged);
        let killed = async {
            loop {
                let changed = acknowledged.1.notified();
                if acknowledged.0.load(Ordering::Acquire) >= kill.calls {
                    break;
                }
                changed.await;
            }
            tokio::time::sleep(kill.delay).await;
            let were_alive = !all_of(&mark)?.is_empty();
            kill.now()?;
            Ok(were_alive)
        };
        tokio::select! {
            killed = killed => killed,
            failed = self.go_on(|_| false) => {
                failed.context("before the kill")?;
                bail!("it stopped before the kill")
            }
        }
    }

    /// Goes on until one more run has reached its end.
    pub(super) async fn play_to_the_end(mut self) -> anyhow::Result<()> {
        let before = self.ledger.validated;
        let run = self.go_on(|ledger| ledger.validated > before && ledger.current.is_none());
        tokio::time::timeout(LONGEST_RUN, run)
            .await
            .context("no run reaches its end any more")?
    }

    async fn go_on(&mut self, is_enough: impl Fn(&Ledger) -> bool) -> anyhow::Result<()> {
        let mut failures = 0;
        while !is_enough(self.ledger) {
            match self.step().await {
                Ok(()) => failures = 0,
                Err(error) if failures < MOST_FAILURES => {
                    eprintln!("  failed, looks again: {error:#}");
                    failures += 1;
                    self.begun = None;
                    tokio::time::sleep(AFTER_A_FAILURE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks where the run stands, and makes the next call.
    async fn step(&mut self) -> anyhow::Result<()> {
        let Some(run_id) = self.ledger.current.clone() else {
            return self.request().await;
        };
        let view = call(self.registry, "run_get", json!({ "run_id": run_id })).await?;
        self.saw(&run_id, progress(&view)?);
        let run = Claimed {
            run_id: run_id.clone(),
            epoch: view["run"]["epoch"].as_u64().context("no epoch")?,
            spec_digest: text(&view["run"], "spec_digest")?.to_owned(),
        };
        match text(&view["run"], "state")? {
            "requested" => {
                call(self.registry, "run_claim", json!({ "run_id": run_id })).await?;
                self.acknowledge(&run_id, "analyzing")
            }
            "analyzing" => {
                let steps = self.steps(&run_id)?;
                let plan = plan(&run.spec_digest, &steps, &json!([]));
                let arguments = json!({ "run_id": run_id, "epoch": run.epoch, "plan": plan });
                call(self.registry, "plan_submit", arguments).await?;
                self.acknowledge(&run_id, "awaiting_v1")
            }
            "awaiting_v1" => {
                let checkpoint = text(&view, "open_checkpoint")?;
                self.place.decide("approve", checkpoint, &[]).await?;
                self.acknowledge(&run_id, "approved")
            }
            "approved" | "generating" => self.generate(run, actions(&view)?).await,
            "verifying" => {
                let arguments = json!({ "run_id": run_id, "timeout_s": 5 });
                let answer = call(self.registry, "checkpoint_wait", arguments).await?;
                self.acknowledge(&run_id, text(&answer, "state")?)
            }
            "awaiting_v2" => {
                let checkpoint = text(&view, "open_checkpoint")?;
                self.validate(&run_id, checkpoint).await
            }
            "validated" => {
                self.ledger.validated += 1;
                self.ledger.current = None;
                self.ledger.next += 1;
                Ok(())
            }
            state => bail!("run {run_id} is {state}"),
        }
    }

    /// Accepts the outcome. Where what was measured is not there any more, it is sent back, as the refusal says.
    async fn validate(&mut self, run_id: &str, checkpoint: &str) -> anyhow::Result<()> {
        match self.place.decide("approve", checkpoint, &[]).await {
            Ok(_) => self.acknowledge(run_id, "validated"),
            Err(error) if format!("{error:#}").contains("EVIDENCE_STALE") => {
                let known = self.known(run_id)?;
                known.returns += 1;
                known.progress = GENERATING;
                let back = ["--return-to", "generate"];
                self.place.decide("reject", checkpoint, &back).await?;
                self.ledger.returned += 1;
                self.acknowledge(run_id, "generating")
            }
            Err(error) => Err(error),
        }
    }

    async fn request(&mut self) -> anyhow::Result<()> {
        let number = self.ledger.next;
        let wanted = json!({ "spec_id": "hello", "idempotency_key": format!("run-{number}") });
        let answer = call(self.registry, "run_request", wanted).await?;
        let run_id = text(&answer["run"], "run_id")?.to_owned();
        let known = Known {
            number,
            ..Known::default()
        };
        self.ledger.runs.insert(run_id.clone(), known);
        self.ledger.current = Some(run_id.clone());
        self.acknowledge(&run_id, "requested")
    }

    async fn generate(&mut self, run: Claimed, actions: &[Value]) -> anyhow::Result<()> {
        let run_id = run.run_id.clone();
        let arguments = json!({ "run_id": run_id, "epoch": run.epoch });
        let Some(begun) = self.begun.clone() else {
            let answer = call(self.registry, "execution_begin", arguments).await?;
            self.begun = Some(Begun { run, answer });
            return self.acknowledge(&run_id, "generating");
        };
        let returns = self.known(&run_id)?.returns;
        let stays = of_step(actions, "stay").count() <= returns;
        if let (true, Some(grant)) = (stays, begun.grant("stay")) {
            let stay =
                json!({ "command": self.stay(), "wait": { "until": "none" }, "grant": grant });
            call(self.shell, "exec", stay).await?;
            self.ledger.started += 1;
            return self.acknowledge(&run_id, "generating");
        }
        let is_left = of_step(actions, "count").count() < self.known(&run_id)?.uses();
        if let (true, Some(grant)) = (is_left, begun.grant("count")) {
            let count = json!({ "command": self.count(&run_id)?, "grant": grant });
            let answer = call(self.shell, "exec", count).await?;
            ensure!(answer["exit_code"] == 0, "the command failed: {answer}");
            self.known(&run_id)?.counted += 1;
            return self.acknowledge(&run_id, "generating");
        }
        let done = json!({ "run_id": run_id, "epoch": run.epoch, "report": "done" });
        call(self.registry, "generation_complete", done).await?;
        self.begun = None;
        self.acknowledge(&run_id, "verifying")
    }

    /// One step whose processes stay until Generate is complete, and one whose uses can be counted.
    fn steps(&mut self, run_id: &str) -> anyhow::Result<Value> {
        let mut count = exec_step("count", &self.count(run_id)?);
        count["uses"] = json!(USES);
        Ok(json!([exec_step("stay", &self.stay()), count]))
    }

    fn stay(&self) -> String {
        let mark = &self.ledger.mark;
        format!("sleep {mark} & (sleep {mark} & setsid sleep {mark}); wait")
    }

    fn count(&mut self, run_id: &str) -> anyhow::Result<String> {
        Ok(format!("echo x >> {}", file_of(self.known(run_id)?.number)))
    }

    fn known(&mut self, run_id: &str) -> anyhow::Result<&mut Known> {
        self.ledger.runs.get_mut(run_id).context("no such run")
    }

    fn saw(&mut self, run_id: &str, progress: usize) {
        if let Some(known) = self.ledger.runs.get_mut(run_id) {
            known.progress = known.progress.max(progress);
        }
    }

    fn acknowledge(&mut self, run_id: &str, state: &str) -> anyhow::Result<()> {
        let progress = WAY.iter().position(|known| *known == state);
        self.saw(
            run_id,
            progress.with_context(|| format!("the run is {state}"))?,
        );
        self.ledger.acknowledged += 1;
        self.acknowledged.0.fetch_add(1, Ordering::AcqRel);
        self.acknowledged.1.notify_one();
        Ok(())
    }
}

fn progress(view: &Value) -> anyhow::Result<usize> {
    let state = text(&view["run"], "state")?;
    let position = WAY.iter().position(|known| *known == state);
    position.with_context(|| format!("the run left its way: {view}"))
}

fn actions(view: &Value) -> anyhow::Result<&[Value]> {
    let actions = view["actions"].as_array().context("no actions")?;
    Ok(actions)
}

fn of_step<'a>(actions: &'a [Value], step: &'a str) -> impl Iterator<Item = &'a Value> {
    actions.iter().filter(move |action| action["step"] == step)
}

fn file_of(number: u32) -> String {
    format!("count-{number}")
}

/// How often the counted command of a run was carried out.
fn lines(place: &Place, number: u32) -> anyhow::Result<usize> {
    match std::fs::read_to_string(place.workspace().join(file_of(number))) {
        Ok(text) => Ok(text.lines().count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}
