//! Asking at the client whether a command may run that a rule wants asked about.
//!
//! What a client answers is what a client answers: a model or a hook can do that too. So it is recorded as `client_elicitation`, never as
//! a human's decision; that one is made in the registry, on a plan.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ElicitRequestParams, InputRequests,
    InputRequiredResult, InputResponses, ProtocolVersion, RequestStateCodec, SealOptions,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::visible;

use crate::policy::rules::Verdict;

/// How long a question stands.
const STANDS: Duration = Duration::from_mins(5);
/// Clients give a call up after 60 seconds.
const LONGEST_QUESTION: Duration = Duration::from_secs(50);
/// Most answered questions remembered; a question stands no longer than they are.
const MOST_ANSWERED: usize = 10_000;
const QUESTION: &str = "approval";

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Approval {
    /// The client says yes; its name.
    Given(String),
    /// It says no, or cannot be asked.
    Refused(&'static str),
}

/// What to do with a call.
pub(crate) enum AtClient {
    /// Make it, or refuse it, with this.
    Answered(Approval),
    /// Answer with the question.
    Question(Box<CallToolResponse>),
}

/// The questions of one server.
pub(crate) struct Approvals {
    codec: RequestStateCodec,
    answered: Mutex<BTreeMap<String, Instant>>,
}

impl Approvals {
    /// # Errors
    /// A system without random numbers.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            codec: RequestStateCodec::try_new(key)?,
            answered: Mutex::default(),
        })
    }

    /// Asks at the client about exactly this call. `subject` is a digest of all that the answer is for.
    ///
    /// # Errors
    /// What is no answer in the protocol's terms.
    pub(crate) async fn ask(
        &self,
        verdict: &Verdict,
        subject: &Digest,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<AtClient, ErrorData> {
        let capability = context
            .client_capabilities()
            .and_then(|capabilities| capabilities.elicitation);
        let is_possible = capability
            .is_some_and(|elicitation| elicitation.form.is_some() || elicitation.url.is_none());
        if !is_possible {
            let reason = "the client cannot ask anyone";
            return Ok(AtClient::Answered(Approval::Refused(reason)));
        }
        let client = context.client_info().map_or_else(
            || "unnamed".to_owned(),
            |client| client.name.chars().take(80).collect(),
        );
        let is_modern = context
            .protocol_version()
            .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let approval = if is_modern {
            match (&request.request_state, &request.input_responses) {
                (Some(state), Some(responses)) => self.in_retry(state, responses, subject, client),
                _ => {
                    return self
                        .question(verdict, subject)
                        .map(|question| AtClient::Question(Box::new(question)));
                }
            }
        } else {
            over_connection(verdict, client, context).await?
        };
        Ok(AtClient::Answered(approval))
    }

    fn question(&self, verdict: &Verdict, subject: &Digest) -> Result<CallToolResponse, ErrorData> {
        let nonce = getrandom::u64().map_err(|error| internal(&error))?;
        let state = self.codec.seal_with(
            &nonce.to_be_bytes(),
            &SealOptions::new()
                .associated_data(subject.as_str().as_bytes())
                .ttl(STANDS),
        );
        let parameters = json!({ "message": words(verdict), "requestedSchema": form() });
        let requests: InputRequests = serde_json::from_value(
            json!({ QUESTION: { "method": "elicitation/create", "params": parameters } }),
        )
        .map_err(|error| internal(&error))?;
        Ok(InputRequiredResult::new(Some(requests), Some(state)).into())
    }

    fn in_retry(
        &self,
        state: &str,
        responses: &InputResponses,
        subject: &Digest,
        client: String,
    ) -> Approval {
        if self
            .codec
            .open_with(state, subject.as_str().as_bytes())
            .is_err()
        {
            return Approval::Refused("the answer is to another question, or too late");
        }
        if !self.is_first(state) {
            return Approval::Refused("the answer was used already");
        }
        match responses.get(QUESTION) {
            Some(response) if is_yes(response) => Approval::Given(client),
            _ => Approval::Refused("the client says no"),
        }
    }

    /// Whether this question was not answered before; now it is.
    fn is_first(&self, state: &str) -> bool {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.retain(|_, at| at.elapsed() < STANDS);
        answered.len() < MOST_ANSWERED
            && answered.insert(state.to_owned(), Instant::now()).is_none()
    }
}

async fn over_connection(
    verdict: &Verdict,
    client: String,
    context: &RequestContext<RoleServer>,
) -> Result<Approval, ErrorData> {
    let parameters = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: words(verdict),
        requested_schema: serde_json::from_value(form()).map_err(|error| internal(&error))?,
    };
    let asked = context.peer.create_elicitation(parameters);
    let answer = tokio::select! {
        answer = tokio::time::timeout(LONGEST_QUESTION, asked) => answer,
        () = context.ct.cancelled() => return Ok(Approval::Refused("the call was cancelled")),
    };
    Ok(match answer {
        Ok(Ok(answer)) => {
            let answer = serde_json::to_value(answer).map_err(|error| internal(&error))?;
            if is_yes(&answer) {
                Approval::Given(client)
            } else {
                Approval::Refused("the client says no")
            }
        }
        Ok(Err(_)) => Approval::Refused("the client cannot ask anyone"),
        Err(_) => Approval::Refused("nobody answered in time"),
    })
}

/// An `accept` without the word is none: some clients accept every form.
fn is_yes(answer: &Value) -> bool {
    answer["action"] == "accept" && answer["content"]["decision"] == "approve"
}

fn form() -> Value {
    json!({
        "type": "object",
        "properties": { "decision": { "type": "string", "enum": ["reject", "approve"], "description": "May it run?" } },
        "required": ["decision"],
    })
}

fn words(verdict: &Verdict) -> String {
    format!(
        "May this command run?\n{}\n{}",
        visible::machine(&verdict.command, false),
        visible::prose(&verdict.reason)
    )
}

fn internal(error: &dyn std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}
