//! Prompts for each phase of the cycle, in LangGPT sections, with completion of their arguments.

use rmcp::{
    ErrorData,
    model::{
        CompleteRequestParams, CompleteResult, CompletionInfo, GetPromptRequestParams,
        GetPromptResult, Prompt, PromptArgument, PromptMessage, Reference, Role,
    },
};

use crate::{
    registry::{Registry, RegistryError, blocking},
    store::RunFilter,
};

/// A prompt: a text with one place to fill in.
struct Template {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    argument: &'static str,
    argument_description: &'static str,
    text: &'static str,
}

const PROMPTS: &[Template] = &[
    Template {
        name: "ravgv_request",
        title: "RAVGV 1: Request",
        description: "Turn a wish into a run for an outcome specification.",
        argument: "goal",
        argument_description: "What must be true, in your words.",
        text: include_str!("prompts/ravgv_request.md"),
    },
    Template {
        name: "ravgv_analyze",
        title: "RAVGV 2: Analyze",
        description: "Research options and submit a plan for V1.",
        argument: "run_id",
        argument_description: "The run.",
        text: include_str!("prompts/ravgv_analyze.md"),
    },
    Template {
        name: "ravgv_verify",
        title: "RAVGV 3: Verify (V1)",
        description: "Explain a submitted plan to the human who decides.",
        argument: "run_id",
        argument_description: "The run.",
        text: include_str!("prompts/ravgv_verify.md"),
    },
    Template {
        name: "ravgv_generate",
        title: "RAVGV 4: Generate",
        description: "Carry out the approved plan, and nothing else.",
        argument: "run_id",
        argument_description: "The run.",
        text: include_str!("prompts/ravgv_generate.md"),
    },
    Template {
        name: "ravgv_validate",
        title: "RAVGV 5: Validate (V2)",
        description: "Present what was measured to the human who decides.",
        argument: "run_id",
        argument_description: "The run.",
        text: include_str!("prompts/ravgv_validate.md"),
    },
];

/// Most completions of one argument.
const MOST_COMPLETIONS: u32 = 50;

/// All prompts.
pub(crate) fn list() -> Vec<Prompt> {
    PROMPTS
        .iter()
        .map(|template| {
            let argument = PromptArgument::new(template.argument)
                .with_description(template.argument_description)
                .with_required(true);
            let mut prompt = Prompt::new(
                template.name,
                Some(template.description),
                Some(vec![argument]),
            );
            prompt.title = Some(template.title.to_owned());
            prompt
        })
        .collect()
}

/// A prompt with its argument filled in; a run must exist.
pub(crate) async fn get(
    registry: &Registry,
    request: &GetPromptRequestParams,
) -> Result<GetPromptResult, ErrorData> {
    let template = PROMPTS
        .iter()
        .find(|template| template.name == request.name)
        .ok_or_else(|| {
            let names: Vec<&str> = PROMPTS.iter().map(|template| template.name).collect();
            ErrorData::invalid_params(
                format!("there is no such prompt; there are {}", names.join(", ")),
                None,
            )
        })?;
    let value = request
        .arguments
        .as_ref()
        .and_then(|arguments| arguments.get(template.argument))
        .and_then(serde_json::Value::as_str)
        .filter(|value| !value.trim().is_empty())
        .ok_or_else(|| {
            ErrorData::invalid_params(
                format!("the argument `{}` is missing", template.argument),
                None,
            )
        })?;
    if template.argument == "run_id" {
        let (registry, run_id) = (registry.clone(), value.to_owned());
        blocking(move || registry.record(&run_id))
            .await
            .map_err(|error| invalid(&error))?;
    }
    let filled = template.text.replace(
        &format!("{{{}}}", template.argument),
        // What the user typed stays one visible piece of data in the prompt.
        &shared::visible::prose(value),
    );
    Ok(
        GetPromptResult::new(vec![PromptMessage::new_text(Role::User, filled)])
            .with_description(template.description),
    )
}

/// Ids of runs and specifications that begin with what was typed.
pub(crate) async fn complete(
    registry: &Registry,
    request: &CompleteRequestParams,
) -> Result<CompleteResult, ErrorData> {
    let typed = request.argument.value.clone();
    // A client may ask while the name is still being typed: nothing fits then, which is no error.
    let argument = match &request.r#ref {
        Reference::Prompt(prompt)
            if !PROMPTS.iter().any(|template| template.name == prompt.name) =>
        {
            String::new()
        }
        _ => request.argument.name.clone(),
    };
    let registry = registry.clone();
    let values = blocking(move || {
        let values: Vec<String> = match argument.as_str() {
            "run_id" => {
                let filter = RunFilter {
                    limit: 200,
                    ..RunFilter::default()
                };
                registry
                    .runs(&filter)?
                    .into_iter()
                    .map(|run| run.run_id)
                    .collect()
            }
            "spec_id" => registry
                .spec_search("", 200, 0)?
                .results
                .into_iter()
                .map(|found| found.row.spec_id)
                .collect(),
            _ => Vec::new(),
        };
        Ok(values)
    })
    .await
    .map_err(|error| invalid(&error))?;
    let typed = typed.to_lowercase();
    let values = values
        .into_iter()
        .filter(|value| value.to_lowercase().starts_with(&typed))
        .take(MOST_COMPLETIONS as usize)
        .collect();
    let completion = CompletionInfo::with_all_values(values)
        .map_err(|error| ErrorData::internal_error(error, None))?;
    Ok(CompleteResult::new(completion))
}

fn invalid(error: &RegistryError) -> ErrorData {
    ErrorData::invalid_params(error.message.clone(), None)
}
