//! Subscriptions to channels: what comes is kept for the next poll as far as there is room, and what was lost is told.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::Msg;
use redis::aio::PubSub;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bus::{BusError, LONGEST_BLOCK, check_count, is_listed};
use super::connection::{Deadline, Lines, Meter};
use super::error::Error;
use super::value::{Blob, Room};
use super::{Call, Redis};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// How long a subscription stays that nobody polls.
pub const TIME_TO_LIVE: Duration = Duration::from_mins(2);
/// Subscriptions of a source.
pub const MOST: usize = 16;
/// Subscriptions of one principal.
pub const MOST_OF_ONE: usize = 4;
/// Messages that are kept for the next poll.
pub const KEPT_MESSAGES: usize = 1_000;
/// Bytes of them.
const KEPT_BYTES: usize = 1024 * 1024;
/// How long nothing may come before the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(15);
/// How long making a new connection may take, and the longest pause before the next attempt.
const RECONNECTING: Duration = Duration::from_secs(5);
/// The pause before the first attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What is listened to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Channels by their name.
    pub channels: Vec<String>,
    /// Channels by a pattern: `*` any rest, `?` any byte, `[ab]` one of them.
    pub patterns: Vec<String>,
}

/// What a poll brings.
#[derive(Debug)]
pub struct Polled {
    /// A row for each message, the oldest first: `channel`, `pattern` (null if by its name), `payload`.
    pub answer: Answer,
    /// Messages that were lost since the last poll, because nobody fetched the ones before.
    pub dropped: u64,
    /// Whether the connection was lost since the last poll: nobody knows what was sent meanwhile.
    pub gap: bool,
    /// Whether it is lost just now.
    pub connected: bool,
    /// Messages that wait for the next poll.
    pub waiting: usize,
}

/// The subscriptions of a source; dropped, they end.
#[derive(Default)]
pub(super) struct Subscriptions {
    open: Mutex<HashMap<String, Subscription>>,
}

struct Subscription {
    owner: String,
    inbox: Arc<Inbox>,
    pump: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Subscriptions {
    /// Those that are open, after those are closed that nobody polls any more.
    fn open(&self) -> MutexGuard<'_, HashMap<String, Subscription>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, subscription| !subscription.inbox.is_forgotten());
        open
    }
}

/// What came and was not fetched.
struct Inbox {
    kept: Mutex<Kept>,
    came: Notify,
}

struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
    dropped: u64,
    gap: bool,
    connected: bool,
    polled: Instant,
    polling: usize,
}

struct Message {
    channel: String,
    pattern: Option<String>,
    payload: Vec<u8>,
}

impl Message {
    fn bytes(&self) -> usize {
        self.channel.len() + self.payload.len() + 100
    }
}

impl Inbox {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_forgotten(&self) -> bool {
        let kept = self.kept();
        kept.polling == 0 && kept.polled.elapsed() >= TIME_TO_LIVE
    }

    fn push(&self, message: Message) {
        let mut kept = self.kept();
        kept.push(message);
        drop(kept);
        self.came.notify_one();
    }

    fn lost(&self, connected: bool) {
        let mut kept = self.kept();
        kept.gap = true;
        kept.connected = connected;
        drop(kept);
        self.came.notify_one();
    }
}

impl Kept {
    fn has_news(&self) -> bool {
        !self.messages.is_empty() || self.dropped > 0 || self.gap
    }

    /// Keeps a message, at the cost of the oldest ones.
    fn push(&mut self, message: Message) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
        while self.messages.len() > KEPT_MESSAGES || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
        }
    }

    fn take(&mut self, most: usize, budget: Budget) -> Polled {
        let mut rows = Rows::new(Budget {
            rows: budget.rows.min(most),
            bytes: budget.bytes,
        });
        while let Some(message) = self.messages.front() {
            let payload = redis::Value::BulkString(message.payload.clone());
            let row = vec![
                Cell::text(message.channel.clone()),
                message.pattern.clone().map_or_else(Cell::null, Cell::text),
                Room::for_messages(budget.bytes).cell(payload),
            ];
            if rows.push(row).is_err() {
                break;
            }
            if let Some(taken) = self.messages.pop_front() {
                self.bytes -= taken.bytes();
            }
        }
        let columns = [("channel", "text"), ("pattern", "text"), ("payload", "any")];
        let columns = columns.map(|(name, kind)| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
        });
        self.polled = Instant::now();
        Polled {
            answer: Answer {
                columns: columns.into(),
                rows,
            },
            dropped: std::mem::take(&mut self.dropped),
            gap: std::mem::take(&mut self.gap),
            connected: self.connected,
            waiting: self.messages.len(),
        }
    }
}

/// Keeps a subscription open while somebody waits for its messages.
struct Polling<'a>(&'a Inbox);

impl<'a> Polling<'a> {
    fn of(inbox: &'a Inbox) -> Self {
        inbox.kept().polling += 1;
        Self(inbox)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.polling -= 1;
        kept.polled = Instant::now();
    }
}

/// A subscription that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// What it is polled and closed by; only its owner can.
    pub handle: String,
}

impl Redis {
    /// Listens to channels, on behalf of a principal. Everything that comes from now on is kept for [`Redis::poll`], as far as there
    /// is room; without a poll for [`TIME_TO_LIVE`] it ends.
    ///
    /// # Errors
    /// Refused channels, too many subscriptions, and a server that cannot be reached.
    pub async fn subscribe(
        &self,
        owner: &str,
        wanted: &Wanted,
        call: Call,
    ) -> Result<Opened, Error> {
        check_count("channels", wanted.channels.len() + wanted.patterns.len())?;
        for channel in &wanted.channels {
            self.check_stream(channel)?;
        }
        for pattern in &wanted.patterns {
            self.check_pattern(pattern)?;
        }
        self.check_room(owner)?;
        let lines = Arc::clone(self.lines());
        let connected = connect(&lines, wanted, Deadline::after(call.timeout)).await?;
        let inbox = Arc::new(Inbox {
            kept: Mutex::new(Kept {
                messages: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                gap: false,
                connected: true,
                polled: Instant::now(),
                polling: 0,
            }),
            came: Notify::new(),
        });
        let pump = Pump {
            lines,
            wanted: wanted.clone(),
            allowed: self.inner.streams.clone(),
            inbox: Arc::clone(&inbox),
        };
        let handle = random_name();
        let subscription = Subscription {
            owner: owner.to_owned(),
            inbox,
            pump: tokio::spawn(pump.run(connected)),
        };
        // Others may have come while this one was connecting.
        let mut open = self.inner.subscriptions.open();
        check_room(&open, owner)?;
        open.insert(handle.clone(), subscription);
        Ok(Opened { handle })
    }

    /// What came; waits for the first message for up to `wait`.
    ///
    /// # Errors
    /// [`BusError::Handle`] if the subscription is not there, or not this principal's.
    pub async fn poll(
        &self,
        owner: &str,
        handle: &str,
        most: usize,
        wait: Duration,
        budget: Budget,
    ) -> Result<Polled, Error> {
        check_count("messages", most)?;
        if wait > LONGEST_BLOCK {
            return Err(BusError::Block(wait).into());
        }
        let inbox = {
            let open = self.inner.subscriptions.open();
            let found = open.get(handle).filter(|found| found.owner == owner);
            Arc::clone(&found.ok_or_else(|| unknown(handle))?.inbox)
        };
        let polling = Polling::of(&inbox);
        let came = async {
            loop {
                // Who is told once something came is told also if it came before.
                let told = inbox.came.notified();
                if inbox.kept().has_news() {
                    return;
                }
                told.await;
            }
        };
        // Over or not: what is there is given.
        drop(tokio::time::timeout(wait, came).await);
        let polled = inbox.kept().take(most, budget);
        drop(polling);
        Ok(polled)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`BusError::Handle`] if it is not there, or not this principal's.
    pub fn unsubscribe(&self, owner: &str, handle: &str) -> Result<(), Error> {
        let mut open = self.inner.subscriptions.open();
        if open.get(handle).is_none_or(|found| found.owner != owner) {
            return Err(unknown(handle).into());
        }
        open.remove(handle);
        Ok(())
    }

    fn check_room(&self, owner: &str) -> Result<(), BusError> {
        check_room(&self.inner.subscriptions.open(), owner)
    }

    /// Refuses a pattern that could have a channel which is not one of the operator's.
    fn check_pattern(&self, pattern: &str) -> Result<(), Error> {
        let literal = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
        let literal = &pattern[..literal];
        let allowed = &self.inner.streams;
        let is_within = allowed.iter().any(|allowed| {
            allowed
                .strip_suffix('*')
                .is_some_and(|beginning| literal.starts_with(beginning))
        });
        if is_within {
            return self.check_key(&Blob::from(literal));
        }
        if allowed.is_empty() {
            return Err(BusError::NoStreams(self.id().to_owned()).into());
        }
        Err(BusError::Unlisted {
            name: shared::budget::head(pattern, 500).text.to_owned(),
            allowed: allowed.clone(),
        }
        .into())
    }
}

fn check_room(open: &HashMap<String, Subscription>, owner: &str) -> Result<(), BusError> {
    let own = open.values().filter(|one| one.owner == owner).count();
    if own >= MOST_OF_ONE {
        return Err(BusError::TooManySubscriptions(own));
    }
    if open.len() >= MOST {
        return Err(BusError::TooManySubscriptions(open.len()));
    }
    Ok(())
}

fn unknown(handle: &str) -> BusError {
    BusError::Handle(shared::budget::head(handle, 100).text.to_owned())
}

/// A name that no other subscription has. It need not be a secret: only the owner is answered.
fn random_name() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

type Connected = (PubSub, Arc<Meter>);

async fn connect(lines: &Lines, wanted: &Wanted, deadline: Deadline) -> Result<Connected, Error> {
    let address = lines.address().name();
    let (mut connection, meter) = lines.subscriber(deadline).await?;
    let subscribing = async {
        if !wanted.channels.is_empty() {
            connection.subscribe(&wanted.channels).await?;
        }
        if !wanted.patterns.is_empty() {
            connection.psubscribe(&wanted.patterns).await?;
        }
        Ok(())
    };
    match tokio::time::timeout(deadline.rest(), subscribing).await {
        Ok(Ok(())) => Ok((connection, meter)),
        Ok(Err(error)) => Err(Error::of_client(&error, &address)),
        Err(_) => Err(deadline.passed(&address)),
    }
}

/// Takes messages off the connection, and makes a new one when it is lost.
struct Pump {
    lines: Arc<Lines>,
    wanted: Wanted,
    allowed: Vec<String>,
    inbox: Arc<Inbox>,
}

impl Pump {
    async fn run(self, connected: Connected) {
        let mut connected = Some(connected);
        let mut pause = FIRST_PAUSE;
        while !self.inbox.is_forgotten() {
            let Some(current) = connected.take() else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECTING);
                let deadline = Deadline::after(RECONNECTING);
                if let Ok(new) = connect(&self.lines, &self.wanted, deadline).await {
                    self.inbox.lost(true);
                    connected = Some(new);
                    pause = FIRST_PAUSE;
                }
                continue;
            };
            self.listen(current).await;
            self.inbox.lost(false);
        }
    }

    /// Until the connection is lost or nobody asks any more.
    async fn listen(&self, (connection, meter): Connected) {
        let (mut sink, mut stream) = connection.split();
        let watching = async {
            loop {
                tokio::time::sleep(SILENCE).await;
                let asked = tokio::time::timeout(RECONNECTING, sink.ping::<redis::Value>()).await;
                if !matches!(asked, Ok(Ok(_))) || self.inbox.is_forgotten() {
                    return;
                }
            }
        };
        let taking = async {
            while let Some(message) = stream.next().await {
                meter.start();
                self.keep(&message);
            }
        };
        tokio::select! {
            () = watching => {}
            () = taking => {}
        }
    }

    fn keep(&self, message: &Msg) {
        let channel = message.get_channel_name();
        // The server's patterns are its own; what the operator has not named is not passed on.
        if !is_listed(&self.allowed, channel) {
            return;
        }
        self.inbox.push(Message {
            channel: channel.to_owned(),
            pattern: message.get_pattern().ok().flatten(),
            payload: message.get_payload_bytes().to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept {
            messages: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            gap: false,
            connected: true,
            polled: Instant::now(),
            polling: 0,
        }
    }

    fn message(payload: &[u8]) -> Message {
        Message {
            channel: "c".to_owned(),
            pattern: None,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn the_oldest_messages_are_dropped_and_counted() {
        let mut kept = kept();
        for number in 0..KEPT_MESSAGES + 5 {
            kept.push(message(number.to_string().as_bytes()));
        }
        let polled = kept.take(1, Budget::default());
        assert_eq!((polled.dropped, polled.waiting), (5, KEPT_MESSAGES - 1));
        assert_eq!(polled.answer.rows.into_rows()[0][2], "5");
        assert_eq!(kept.take(1, Budget::default()).dropped, 0);
    }

    #[test]
    fn who_is_not_polled_is_forgotten_unless_somebody_waits() {
        let mut kept = kept();
        kept.polled -= TIME_TO_LIVE;
        let inbox = Inbox {
            kept: Mutex::new(kept),
            came: Notify::new(),
        };
        assert!(inbox.is_forgotten());
        let polling = Polling::of(&inbox);
        assert!(!inbox.is_forgotten());
        drop(polling);
        assert!(!inbox.is_forgotten());
    }

    #[test]
    fn bytes_that_are_kept_are_bounded_too() {
        let mut kept = kept();
        for _ in 0..5 {
            kept.push(message(&vec![b'x'; KEPT_BYTES / 2]));
        }
        assert!(kept.bytes <= KEPT_BYTES);
        assert_eq!(kept.dropped, 4);
        kept.push(message(&vec![b'x'; 2 * KEPT_BYTES]));
        assert_eq!((kept.bytes, kept.messages.len(), kept.dropped), (0, 0, 6));
    }
}
