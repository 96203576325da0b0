//! The one ordered line of numbered records from this process to the registry.
//!
//! A number is taken only when a record is sent, and records follow one another. When an answer is lost, the registry says in
//! its next welcome how far it has counted, so the record is sent again under its number or counts as never sent.

use std::{sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Delivery, EndReport, NOT_STARTED,
    connection::{Answer, Connection, Peer, Unanswered, unreachable},
    heads::Heads,
    spool::Spool,
};
use crate::effect::protocol::{
    Begin, End, Ended, Hello, Permit, Refusal, RefusedCall, ToolDeclaration, Welcome,
};

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What this process is to the registry.
pub(super) struct Introduction {
    pub(super) instance: String,
    pub(super) version: String,
    pub(super) tools: Vec<ToolDeclaration>,
}

/// Connection, counter, and what is still owed to the registry.
pub(super) struct Line {
    introduction: Arc<Introduction>,
    peer: Arc<Peer>,
    /// Present only after a hello on it was answered.
    connection: Option<Connection>,
    /// Number of the last record that the registry has.
    last_seq: u64,
    /// A begin whose answer was lost; while there is a connection, the registry has it or cannot tell.
    doubtful: Option<Begin>,
    heads: Heads,
    spool: Spool,
}

impl Line {
    pub(super) fn new(
        introduction: Arc<Introduction>,
        peer: Arc<Peer>,
        heads: Heads,
        spool: Spool,
    ) -> Self {
        Self {
            introduction,
            peer,
            connection: None,
            last_seq: 0,
            doubtful: None,
            heads,
            spool,
        }
    }

    /// Makes a new connection and says hello on it.
    pub(super) async fn hello(&mut self, deadline: Instant) -> Result<Welcome, Refusal> {
        self.connection = None;
        self.heads.reload();
        let hello = Hello {
            instance: self.introduction.instance.clone(),
            version: self.introduction.version.clone(),
            tools: self.introduction.tools.clone(),
            undelivered_ends: self.spool.actions().map_err(|error| spool_failed(&error))?,
        };
        let mut connection = Connection::open(&self.peer)
            .await
            .map_err(|why| self.refusal(why))?;
        let answer = connection
            .request(
                Method::POST,
                "/v1/hello",
                json(&hello)?,
                next_answer(deadline),
            )
            .await
            .map_err(|why| self.refusal(why))?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal());
        }
        let welcome: Welcome = answer.read()?;
        self.heads.accept_at_hello(welcome.audit_head.as_ref())?;
        // A registry that lost its count cannot say that a record never came.
        let is_counted = welcome.last_seq > 0 && welcome.last_seq >= self.last_seq;
        self.last_seq = welcome.last_seq;
        self.doubtful = self
            .doubtful
            .take()
            .filter(|begin| !is_counted || begin.seq <= self.last_seq);
        self.connection = Some(connection);
        Ok(welcome)
    }

    /// Asks who this is to the registry, on a connection of its own: declares nothing, counts nothing, keeps nothing.
    pub(super) async fn look(&mut self, deadline: Instant) -> Result<(), Refusal> {
        let mut connection = Connection::open(&self.peer)
            .await
            .map_err(|why| self.refusal(why))?;
        let answer = connection
            .request(Method::GET, "/v1/hello", Vec::new(), next_answer(deadline))
            .await
            .map_err(|why| self.refusal(why))?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal());
        }
        let welcome: Welcome = answer.read()?;
        self.heads.look_at(welcome.audit_head.as_ref())
    }

    /// Delivers everything that is owed.
    pub(super) async fn settle(&mut self, deadline: Instant) -> Result<(), Refusal> {
        self.connect(deadline).await?;
        if let Some(begin) = self.doubtful.take()
            && let Ok(permit) = self.send_begin(begin, deadline).await?
        {
            self.keep_not_started(permit.action_id)?;
        }
        self.deliver_spool(deadline).await
    }

    /// Asks whether a call may be made. The number in `begin` is set here.
    pub(super) async fn begin(
        &mut self,
        mut begin: Begin,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        self.connect(deadline).await?;
        if let Some(doubtful) = self
            .doubtful
            .take_if(|doubtful| same_call(doubtful, &begin))
        {
            // The caller asks once more what got lost: the answer is his.
            return self.send_begin(doubtful, deadline).await?;
        }
        self.settle(deadline).await?;
        begin.seq = 0;
        self.send_begin(begin, deadline).await?
    }

    /// Reports what became of a call, or keeps the report on disk.
    pub(super) async fn end(
        &mut self,
        report: EndReport,
        deadline: Instant,
    ) -> Result<Delivery, Refusal> {
        let sent = match self.settle(deadline).await {
            Ok(()) => self.send_end(&report, deadline).await,
            Err(refusal) => Err(refusal),
        };
        match sent {
            Ok(Ok(())) => Ok(Delivery::Delivered),
            Ok(Err(refusal)) => Err(refusal),
            Err(refusal) => {
                tracing::warn!(%refusal, action_id = report.action_id, "the end of an action is delivered later");
                self.spool
                    .keep(report)
                    .map_err(|error| spool_failed(&error))?;
                Ok(Delivery::Spooled)
            }
        }
    }

    /// Tells of a call that was refused here. Lost if the registry does not listen.
    pub(super) async fn refused(
        &mut self,
        call: &RefusedCall,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        self.connect(deadline).await?;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let sent = connection
            .request(
                Method::POST,
                "/v1/actions/refused",
                json(call)?,
                next_answer(deadline),
            )
            .await;
        if sent.is_err() {
            self.connection = None;
        }
        Ok(())
    }

    async fn connect(&mut self, deadline: Instant) -> Result<(), Refusal> {
        match self.connection {
            Some(_) => Ok(()),
            None => self.hello(deadline).await.map(|_| ()),
        }
    }

    /// The outer error: no answer. The inner one: the registry says no.
    async fn send_begin(
        &mut self,
        mut begin: Begin,
        deadline: Instant,
    ) -> Result<Result<Permit, Refusal>, Refusal> {
        let mut last_reason = Unanswered::Broken("it did not answer in time".to_owned());
        for _ in 0..2 {
            self.connect(deadline)
                .await
                .inspect_err(|_| self.keep_doubtful(&begin))?;
            if begin.seq == 0 || begin.seq > self.last_seq {
                begin.seq = self.last_seq + 1;
            }
            match self
                .post("/v1/actions/begin", &begin, begin.seq, deadline)
                .await
            {
                Ok(answer) if answer.status == StatusCode::OK => {
                    let permit: Permit = answer.read()?;
                    return Ok(self
                        .accept_head(permit.audit_head.as_ref())
                        .map(|()| permit));
                }
                Ok(answer) => {
                    if answer.status.is_server_error() {
                        self.keep_doubtful(&begin);
                    }
                    return Ok(Err(answer.refusal()));
                }
                Err(reason) => last_reason = reason,
            }
        }
        self.keep_doubtful(&begin);
        Err(self.refusal(last_reason))
    }

    /// The outer error: not delivered. The inner one: the registry does not take it.
    async fn send_end(
        &mut self,
        report: &EndReport,
        deadline: Instant,
    ) -> Result<Result<(), Refusal>, Refusal> {
        let mut seq = 0;
        let mut last_reason = Unanswered::Broken("it did not answer in time".to_owned());
        for _ in 0..2 {
            self.connect(deadline).await?;
            if seq != 0 && seq <= self.last_seq {
                return Ok(Ok(())); // It arrived; only the answer was lost.
            }
            // What is told as done must not be undone for us by a registry that was put back meanwhile.
            self.heads.synced().await?;
            seq = self.last_seq + 1;
            let end = report.numbered(&self.introduction.instance, seq);
            match self.post("/v1/actions/end", &end, seq, deadline).await {
                Ok(answer) if answer.status == StatusCode::OK => {
                    let ended: Ended = answer.read()?;
                    if let Err(refusal) = self.accept_head(ended.audit_head.as_ref()) {
                        tracing::error!(%refusal, "the registry cannot be trusted");
                    }
                    return Ok(Ok(()));
                }
                Ok(answer) if is_final(answer.status) => return Ok(Err(answer.refusal())),
                Ok(answer) => return Err(answer.refusal()),
                Err(reason) => last_reason = reason,
            }
        }
        Err(self.refusal(last_reason))
    }

    async fn deliver_spool(&mut self, deadline: Instant) -> Result<(), Refusal> {
        while let Some(report) = self.spool.oldest().map_err(|error| spool_failed(&error))? {
            let answer = self.send_end(&report, deadline).await?;
            let removed = match answer {
                Ok(()) => self.spool.delivered(),
                Err(refusal) => {
                    tracing::error!(%refusal, action_id = report.action_id, "the registry does not take the end of an action");
                    self.spool.not_taken()
                }
            };
            removed.map_err(|error| spool_failed(&error))?;
        }
        Ok(())
    }

    /// Posts a record on the present connection and counts it if the registry did.
    async fn post(
        &mut self,
        path: &str,
        record: &impl Serialize,
        seq: u64,
        deadline: Instant,
    ) -> Result<Answer, Unanswered> {
        let body = json(record).map_err(Unanswered::Refused)?;
        let Some(connection) = &mut self.connection else {
            return Err(Unanswered::Broken("the connection ended".to_owned()));
        };
        let answer = connection
            .request(Method::POST, path, body, next_answer(deadline))
            .await;
        match &answer {
            Ok(answer) if uses_number(answer.status) => self.last_seq = self.last_seq.max(seq),
            // Only a new welcome tells how far the registry has counted.
            Ok(_) | Err(_) => self.connection = None,
        }
        answer
    }

    fn accept_head(
        &mut self,
        head: Option<&crate::effect::protocol::SignedHead>,
    ) -> Result<(), Refusal> {
        let accepted = self.heads.accept(head);
        if accepted.is_err() {
            self.connection = None;
        }
        accepted
    }

    fn keep_doubtful(&mut self, begin: &Begin) {
        if begin.seq != 0 {
            self.doubtful = Some(begin.clone());
        }
    }

    fn keep_not_started(&mut self, action_id: String) -> Result<(), Refusal> {
        self.spool
            .keep(EndReport::failed(action_id, NOT_STARTED))
            .map_err(|error| spool_failed(&error))
    }

    fn refusal(&self, why: Unanswered) -> Refusal {
        match why {
            Unanswered::Refused(refusal) => refusal,
            Unanswered::Broken(reason) => unreachable(&self.peer.socket, &reason),
        }
    }
}

impl EndReport {
    fn numbered(&self, instance: &str, seq: u64) -> End {
        let report = self.clone();
        End {
            instance: instance.to_owned(),
            seq,
            action_id: report.action_id,
            outcome: report.outcome,
            error_code: report.error_code,
            result_sha256: report.result_sha256,
            session: report.session,
            published: report.published,
            artefacts: report.artefacts,
        }
    }
}

fn same_call(one: &Begin, other: &Begin) -> bool {
    let content = |begin: &Begin| Begin {
        seq: 0,
        idempotency_key: String::new(),
        ..begin.clone()
    };
    content(one) == content(other)
}

/// Answers after which the registry has counted the record.
fn uses_number(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::CONFLICT
    )
}

/// Answers that would be the same for the same report at any time.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

fn next_answer(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + ANSWER_TIMEOUT)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal {
        code: "INTERNAL".to_owned(),
        message: format!("a message to the registry cannot be written: {error}"),
        hint: "report this as a fault of the server".to_owned(),
    })
}

fn spool_failed(error: &std::io::Error) -> Refusal {
    Refusal {
        code: "SPOOL_FAILED".to_owned(),
        message: format!("undelivered ends of actions cannot be kept: {error}"),
        hint: "make room in, or mend, the server's state directory".to_owned(),
    }
}
