//! What is wrong with a plan before a human is asked to read it.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    effect::{class::EffectClass, protocol::ToolDeclaration},
    plan::{ArgumentPattern, check_patterns},
};

use super::{
    Check, CommandCheck, HttpExpectation, Plan, Reversibility, SessionMeasureKind, Step, Target,
};
use crate::specification::Criterion;

/// What each enrolled service said it can do, by the service's name.
pub type Declarations = BTreeMap<String, Vec<ToolDeclaration>>;

const MOST_USES: u32 = 100;
const MOST_SAMPLES: u32 = 500;
const COMMAND_LIMITS_MS: std::ops::RangeInclusive<u32> = 100..=20_000;
const RESTART_LIMITS_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// Every fault of the plan, each a sentence that says what would be right; none if a human can be asked.
pub fn lint(plan: &Plan, criteria: &[&Criterion], declarations: &Declarations) -> Vec<String> {
    let mut faults = Vec::new();
    if plan.steps.is_empty() {
        faults.push("the plan has no steps; name what will be done".to_owned());
    }
    if plan.rollback.trim().is_empty() {
        faults.push("`rollback` is empty; say how everything is undone".to_owned());
    }
    let mut earlier = BTreeSet::new();
    for step in &plan.steps {
        lint_step(step, &earlier, declarations, &mut |fault| {
            faults.push(format!("step `{}`: {fault}", step.id));
        });
        if !earlier.insert(step.id.as_str()) {
            faults.push(format!("step `{}`: two steps have this id", step.id));
        }
    }
    lint_tests(plan, criteria, declarations, &mut faults);
    faults
}

fn lint_step(
    step: &Step,
    earlier: &BTreeSet<&str>,
    declarations: &Declarations,
    fault: &mut impl FnMut(String),
) {
    let is_name =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if step.id.is_empty() || step.id.len() > 32 || !step.id.chars().all(is_name) {
        fault("an id has 1 to 32 letters, digits, - or _".to_owned());
    }
    if !(1..=MOST_USES).contains(&step.uses) {
        fault(format!("`uses` is 1 to {MOST_USES}"));
    }
    if step.rollback.trim().is_empty() {
        fault("`rollback` is empty; say how this step is undone, or that it cannot be".to_owned());
    }
    for before in &step.after {
        if !earlier.contains(before.as_str()) {
            fault(format!("`after: {before}` is no earlier step"));
        }
    }
    for input in &step.inputs {
        if input.path.is_empty()
            || input.path.starts_with('/')
            || input.path.split('/').any(|part| part == "..")
        {
            fault(format!(
                "input `{}` must be a path inside the workspace without `..`",
                input.path
            ));
        }
    }
    let Some(tools) = declarations.get(&step.server) else {
        let known = list(declarations.keys().map(String::as_str));
        fault(format!(
            "no service named `{}` has said hello; there are: {known}",
            step.server
        ));
        return;
    };
    let Some(declaration) = tools
        .iter()
        .find(|declaration| declaration.tool == step.tool)
    else {
        let known = list(tools.iter().map(|declaration| declaration.tool.as_str()));
        fault(format!(
            "{} has no tool `{}`; it has: {known}",
            step.server, step.tool
        ));
        return;
    };
    let floor = match declaration.class {
        EffectClass::Read => Reversibility::ReadOnly,
        EffectClass::Write => Reversibility::Reversible,
        EffectClass::Irreversible => Reversibility::Irreversible,
    };
    if step.reversibility < floor {
        fault(format!(
            "`reversibility` is at least {floor:?} for {}; a plan may only raise it",
            step.tool
        ));
    }
    if let Err(mismatch) = check_patterns(&declaration.schema, &step.arguments) {
        fault(mismatch.to_string());
    }
}

fn lint_tests(
    plan: &Plan,
    criteria: &[&Criterion],
    declarations: &Declarations,
    faults: &mut Vec<String>,
) {
    let by_id: BTreeMap<&str, &Criterion> = criteria
        .iter()
        .map(|criterion| (criterion.criterion_id.as_str(), *criterion))
        .collect();
    let mut mapped = BTreeSet::new();
    for (index, test) in plan.tests.iter().enumerate() {
        let mut fault = |text: String| faults.push(format!("test {}: {text}", index + 1));
        mapped.insert(test.criterion.as_str());
        let Some(criterion) = by_id.get(test.criterion.as_str()) else {
            fault(format!(
                "the specification has no `{}`; it has: {}",
                test.criterion,
                list(by_id.keys().copied())
            ));
            continue;
        };
        lint_check(plan, &test.check, criterion, declarations, &mut fault);
    }
    for judged in &plan.human_judges {
        mapped.insert(judged.criterion.as_str());
        if !by_id.contains_key(judged.criterion.as_str()) {
            faults.push(format!(
                "human_judges: the specification has no `{}`",
                judged.criterion
            ));
        }
        if judged.why.trim().is_empty() {
            faults.push(format!(
                "human_judges: say why a human must judge `{}`",
                judged.criterion
            ));
        }
    }
    for criterion_id in by_id.keys().filter(|id| !mapped.contains(*id)) {
        faults.push(format!(
            "`{criterion_id}` has neither a test nor an entry in human_judges"
        ));
    }
}

fn lint_check(
    plan: &Plan,
    check: &Check,
    criterion: &Criterion,
    declarations: &Declarations,
    fault: &mut impl FnMut(String),
) {
    let has_number = criterion.measure.is_some();
    match check {
        Check::Http(http) => {
            lint_target(plan, &http.target, fault);
            lint_path(&http.path, fault);
            if !(1..=MOST_SAMPLES).contains(&http.samples) {
                fault(format!("`samples` is 1 to {MOST_SAMPLES}"));
            }
            if !has_number && http.expect == HttpExpectation::default() {
                fault(format!(
                    "`{}` has no number, so say in `expect` what the answer must have",
                    criterion.criterion_id
                ));
            }
            if http
                .expect
                .status
                .is_some_and(|status| !(100..=599).contains(&status))
            {
                fault("`status` is 100 to 599".to_owned());
            }
        }
        Check::Tcp(tcp) => lint_target(plan, &tcp.target, fault),
        Check::Restart(restart) => {
            lint_target(plan, &restart.target, fault);
            lint_path(&restart.path, fault);
            if !RESTART_LIMITS_MS.contains(&restart.within_ms) {
                fault("`within_ms` is 100 to 60000".to_owned());
            }
        }
        Check::Session(session) => {
            if plan.step(&session.step).is_none() {
                fault(format!("there is no step `{}`", session.step));
            }
            if session.measure == SessionMeasureKind::Memory && !has_number {
                fault(format!(
                    "`{}` has no number to compare the memory with",
                    criterion.criterion_id
                ));
            }
        }
        Check::File(file) => {
            if !declarations.contains_key(&file.server) {
                fault(format!("no service named `{}` has said hello", file.server));
            }
            if file.path.is_empty() || file.path.split('/').any(|part| part == "..") {
                fault("`path` is inside the service's workspace, without `..`".to_owned());
            }
        }
        Check::Command(command) => lint_command(command, declarations, fault),
    }
}

fn lint_command(
    command: &CommandCheck,
    declarations: &Declarations,
    fault: &mut impl FnMut(String),
) {
    let runs_commands = declarations
        .get(&command.server)
        .is_some_and(|tools| tools.iter().any(|tool| tool.tool == "exec"));
    if !runs_commands {
        fault(format!(
            "no service named `{}` that runs commands has said hello",
            command.server
        ));
    }
    let bytes: usize = command.argv.iter().map(String::len).sum();
    let is_program = command
        .argv
        .first()
        .is_some_and(|program| !program.is_empty());
    if !is_program || command.argv.len() > 256 || bytes > 16_384 {
        fault("`argv` names a program first and has at most 256 elements and 16 KiB".to_owned());
    }
    if command.argv.iter().any(|argument| argument.contains('\0')) {
        fault("`argv` holds a NUL".to_owned());
    }
    if !COMMAND_LIMITS_MS.contains(&command.timeout_ms) {
        fault("`timeout_ms` is 100 to 20000".to_owned());
    }
    if command
        .text
        .as_ref()
        .is_some_and(|text| text.is_empty() || text.len() > 1000)
    {
        fault("`text` is 1 to 1000 bytes".to_owned());
    }
}

fn lint_target(plan: &Plan, target: &Target, fault: &mut impl FnMut(String)) {
    let Some(step) = plan.step(&target.step) else {
        fault(format!("there is no step `{}`", target.step));
        return;
    };
    if !published_ports(step).contains(&u64::from(target.port)) {
        fault(format!(
            "step `{}` does not publish port {}; give it `publish: {{exact: [{}]}}`",
            step.id, target.port, target.port
        ));
    }
}

fn lint_path(path: &str, fault: &mut impl FnMut(String)) {
    let is_plain = |byte: u8| (b'!'..=b'~').contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(is_plain) || path.len() > 2000 {
        fault("`path` begins with / and has printable ASCII only".to_owned());
    }
}

/// Ports that a step publishes, if it names them exactly.
pub(super) fn published_ports(step: &Step) -> Vec<u64> {
    match step.arguments.get("publish") {
        Some(ArgumentPattern::Exact(ports)) => ports
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_u64)
            .collect(),
        _ => Vec::new(),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
