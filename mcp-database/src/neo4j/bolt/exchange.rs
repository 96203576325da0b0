//! Requests and their answers in order, and whether the two sides still agree on what comes next.

use super::error::Error;
use super::framing::Framing;
use super::packstream::{self, PackstreamError};
use super::value::{Map, Structure, Value, get};

pub(super) const HELLO: u8 = 0x01;
pub(super) const GOODBYE: u8 = 0x02;
pub(super) const RESET: u8 = 0x0F;
pub(super) const RUN: u8 = 0x10;
pub(super) const BEGIN: u8 = 0x11;
pub(super) const COMMIT: u8 = 0x12;
pub(super) const ROLLBACK: u8 = 0x13;
pub(super) const DISCARD: u8 = 0x2F;
pub(super) const PULL: u8 = 0x3F;
pub(super) const LOGON: u8 = 0x6A;
const SUCCESS: u8 = 0x70;
const RECORD: u8 = 0x71;
const IGNORED: u8 = 0x7E;
const FAILURE: u8 = 0x7F;

/// What is said on a connection that has agreed on a version.
pub(super) struct Exchange {
    pub(super) framing: Framing,
    pub(super) phase: Phase,
    /// Whether instants are sent in UTC: always since Bolt 5, by agreement in 4.3 and 4.4.
    pub(super) utc: bool,
    /// Memory the answers to one request may take.
    pub(super) max_batch_bytes: usize,
    /// Requests that were sent and have no final answer yet.
    pub(super) unanswered: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request may be sent.
    Ready,
    /// A result is open.
    Streaming,
    /// A request failed, or its future was dropped: only RESET is understood.
    Unsettled,
    /// The socket is of no use any more.
    Closed,
}

pub(super) enum Answer {
    Success(Map),
    Record(Vec<Value>),
    Failure(Error),
    Ignored,
}

impl Exchange {
    pub(super) fn queue(&mut self, tag: u8, fields: &[Value]) -> Result<(), Error> {
        let mut message = Vec::new();
        packstream::encode_message(tag, fields, self.utc, &mut message)
            .map_err(Error::Parameters)?;
        self.framing.queue(&message);
        self.unanswered += 1;
        // From here on the connection is unsettled, until the answer says otherwise.
        self.phase = Phase::Unsettled;
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.framing
            .flush()
            .await
            .inspect_err(|_| self.phase = Phase::Closed)
    }

    /// Asks one thing that is answered without records.
    pub(super) async fn request(&mut self, tag: u8, fields: &[Value]) -> Result<Map, Error> {
        self.queue(tag, fields)?;
        self.flush().await?;
        self.success().await
    }

    pub(super) async fn success(&mut self) -> Result<Map, Error> {
        match self.answer(&mut self.max_batch_bytes.clone()).await? {
            Answer::Success(metadata) => Ok(metadata),
            Answer::Failure(error) => Err(error),
            Answer::Record(_) => Err(self.broken("a record came without being asked for")),
            Answer::Ignored => Err(self.broken("a request was ignored")),
        }
    }

    /// Passes over the answers to all requests but the last, which nobody waits for any more.
    pub(super) async fn skip_to_last(&mut self) -> Result<(), Error> {
        while self.unanswered > 1 {
            let bytes = self.read().await?;
            match bytes.get(1) {
                Some(&RECORD) => {}
                Some(&(SUCCESS | FAILURE | IGNORED)) => self.unanswered -= 1,
                _ => return Err(self.broken("an unknown message came")),
            }
        }
        Ok(())
    }

    /// Reads one message. Only an error that leaves the stream of messages out of step closes the
    /// connection.
    pub(super) async fn answer(&mut self, budget: &mut usize) -> Result<Answer, Error> {
        let bytes = self.read().await?;
        let message = match packstream::decode_message(&bytes, budget) {
            Ok(message) => message,
            Err(PackstreamError::TooLarge) => {
                return Err(Error::TooLarge {
                    limit: self.max_batch_bytes,
                });
            }
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        let Structure { tag, mut fields } = message;
        let answer = match (tag, fields.pop(), fields.is_empty()) {
            (RECORD, Some(Value::List(record)), true) => return Ok(Answer::Record(record)),
            (SUCCESS, Some(Value::Map(metadata)), true) => Answer::Success(metadata),
            (FAILURE, Some(Value::Map(metadata)), true) => Answer::Failure(failure(&metadata)),
            (IGNORED, _, true) => Answer::Ignored,
            _ => return Err(self.broken(&format!("message {tag:#04x} is unknown or malformed"))),
        };
        let Some(unanswered) = self.unanswered.checked_sub(1) else {
            return Err(self.broken("an answer came without a request"));
        };
        self.unanswered = unanswered;
        Ok(answer)
    }

    async fn read(&mut self) -> Result<Vec<u8>, Error> {
        self.framing
            .read()
            .await
            .inspect_err(|_| self.phase = Phase::Closed)
    }

    pub(super) fn broken(&mut self, what: &str) -> Error {
        self.phase = Phase::Closed;
        Error::Protocol(what.to_owned())
    }
}

/// Since Bolt 5.7 the code is called `neo4j_code`.
fn failure(metadata: &Map) -> Error {
    let text = |key| get(metadata, key).and_then(Value::as_str);
    Error::Server {
        code: text("neo4j_code")
            .or_else(|| text("code"))
            .unwrap_or("Neo.DatabaseError.General.UnknownError")
            .to_owned(),
        message: text("message").unwrap_or_default().to_owned(),
    }
}
