//! Reads keys whatever their type: all of what is small, a window of what is not.

use redis::{Cmd, Pipeline, Value, cmd};
use serde_json::json;
use shared::budget::json_bytes;

use super::connection::{Deadline, Line};
use super::error::{Error, Refusal};
use super::value::{self, Blob, Room, bytes, elements, integer, shown, whole};
use super::{Call, Redis};
use crate::table::{Answer, Cell, Column, Rows};

/// Keys of one call.
pub const MOST_KEYS: usize = 500;
/// Elements of a window where the call does not say.
const ELEMENTS: usize = 100;
/// Bytes of a text's window where the call does not say.
const TEXT_BYTES: usize = 2_000;
/// Elements, or bytes of a text, that a window has at most.
const LARGEST_WINDOW: usize = 100_000;
/// What one step through a hash or a set asks for; the same always, since a step may be repeated to go on within it.
const STEP: usize = 100;
/// Steps of one window: a server that never comes to an end is left after so many.
const MOST_STEPS: usize = 2_000;

/// Which part of a value is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// Where it begins: an index (list, sorted set), a byte (string), an id (stream); else the `next` of the window before.
    pub start: Option<String>,
    /// Elements, or bytes of a string.
    pub count: Option<usize>,
}

/// Which keys are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The keys, at most [`MOST_KEYS`].
    pub keys: Vec<Blob>,
    /// The part of each.
    pub window: Window,
}

/// A window that was read.
struct Part {
    value: Cell,
    length: Option<i64>,
    next: Option<String>,
}

impl Redis {
    /// Reads keys: a row for each, in their order, with `key`, `type` (null for a key that is missing), `ttl_ms` (null for one that
    /// stays), `length` (bytes, elements), `value`, and `next`, the start of the next window, null at the end. Keys that do not fit
    /// the budget are left out at the end, and have to be asked for again.
    ///
    /// `value` is by type: a text or bytes; for a hash pairs of field and value; for a list and a set elements; for a sorted set
    /// pairs of member and score, by score; for a stream entries `{id, fields}`; for JSON itself.
    ///
    /// # Errors
    /// Refused keys, and what the server says.
    pub async fn read(&self, read: &Read, call: Call) -> Result<Answer, Error> {
        let deadline = Deadline::after(call.timeout);
        if read.keys.len() > MOST_KEYS {
            return Err(Error::TooMany { limit: MOST_KEYS });
        }
        for key in &read.keys {
            self.check_key(key)?;
        }
        let mut rows = Rows::new(call.budget);
        let mut line = self.lines().line(deadline).await?;
        let outcome = read_all(&mut line, read, call, deadline, &mut rows).await;
        if !outcome.as_ref().is_err_and(Error::is_final) {
            line.release();
        }
        outcome?;
        let columns = [
            ("key", "text"),
            ("type", "text"),
            ("ttl_ms", "integer"),
            ("length", "integer"),
            ("value", "any"),
            ("next", "text"),
        ];
        let columns = columns.map(|(name, kind)| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
        });
        Ok(Answer {
            columns: columns.into(),
            rows,
        })
    }
}

async fn read_all(
    line: &mut Line,
    read: &Read,
    call: Call,
    deadline: Deadline,
    rows: &mut Rows,
) -> Result<(), Error> {
    let mut asked = Pipeline::new();
    for key in &read.keys {
        asked.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
    }
    if read.keys.is_empty() {
        return Ok(());
    }
    let mut told = line.ask_all(&asked, deadline).await?.into_iter();
    let mut left = call.budget.bytes;
    for key in &read.keys {
        let (Some(kind), Some(ttl)) = (told.next(), told.next()) else {
            break;
        };
        let mut kind = value::text(no_refusal(kind)?).unwrap_or_default();
        let ttl = integer(&no_refusal(ttl)?).filter(|ttl| *ttl >= 0);
        let part = match part(line, key, &kind, &read.window, left, deadline).await {
            // Between the two questions somebody has put something else there.
            Err(error) if error.refusal() == Some(Refusal::WrongType) => {
                let again = line.ask(cmd("TYPE").arg(key), deadline).await?;
                kind = value::text(again).unwrap_or_default();
                part(line, key, &kind, &read.window, left, deadline).await?
            }
            outcome => outcome?,
        };
        let is_there = kind != "none";
        let row = vec![
            shown(key.0.clone()),
            if is_there {
                Cell::text(kind)
            } else {
                Cell::null()
            },
            ttl.map_or_else(Cell::null, Cell::integer),
            part.length.map_or_else(Cell::null, Cell::integer),
            part.value,
            part.next.map_or_else(Cell::null, Cell::text),
        ];
        left = left.saturating_sub(json_bytes(&row[4].value()));
        if rows.push(row).is_err() {
            break;
        }
    }
    Ok(())
}

fn no_refusal(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(error) => Err(Error::of_server(&error)),
        value => Ok(value),
    }
}

/// Reads a window of one key, for which there is room for so many bytes.
async fn part(
    line: &mut Line,
    key: &Blob,
    kind: &str,
    window: &Window,
    room: usize,
    deadline: Deadline,
) -> Result<Part, Error> {
    match kind {
        "string" => string(line, key, window, deadline).await,
        "list" => list(line, key, window, room, deadline).await,
        "zset" => sorted(line, key, window, room, deadline).await,
        "hash" => stepped(line, key, ["HLEN", "HSCAN"], 2, window, room, deadline).await,
        "set" => stepped(line, key, ["SCARD", "SSCAN"], 1, window, room, deadline).await,
        "stream" => stream(line, key, window, room, deadline).await,
        "ReJSON-RL" => document(line, key, deadline).await,
        "vectorset" => counted(line, key, "VCARD", deadline).await,
        _ => Ok(Part {
            value: Cell::null(),
            length: None,
            next: None,
        }),
    }
}

async fn counted(
    line: &mut Line,
    key: &Blob,
    count: &str,
    deadline: Deadline,
) -> Result<Part, Error> {
    let length = line.ask(cmd(count).arg(key), deadline).await?;
    Ok(Part {
        value: Cell::null(),
        length: integer(&length),
        next: None,
    })
}

async fn string(
    line: &mut Line,
    key: &Blob,
    window: &Window,
    deadline: Deadline,
) -> Result<Part, Error> {
    let start = index(window)?;
    let count = window.count.unwrap_or(TEXT_BYTES).clamp(4, LARGEST_WINDOW);
    let (length, read) = two(
        line,
        cmd("STRLEN").arg(key),
        cmd("GETRANGE")
            .arg(key)
            .arg(start)
            .arg(start.saturating_add(count - 1)),
        deadline,
    )
    .await?;
    let length = integer(&length).unwrap_or_default();
    let mut read = bytes(read).unwrap_or_default();
    let reached = start.saturating_add(read.len());
    let goes_on = usize::try_from(length).is_ok_and(|length| reached < length);
    if goes_on {
        // A character that the window cuts through belongs to the next one.
        if let Err(error) = std::str::from_utf8(&read)
            && error.error_len().is_none()
            && error.valid_up_to() > 0
        {
            read.truncate(error.valid_up_to());
        }
    }
    let next = goes_on.then(|| start.saturating_add(read.len()).to_string());
    Ok(Part {
        value: Cell::nested(whole(&read), goes_on),
        length: Some(length),
        next,
    })
}

async fn list(
    line: &mut Line,
    key: &Blob,
    window: &Window,
    room: usize,
    deadline: Deadline,
) -> Result<Part, Error> {
    let (start, count) = (index(window)?, count(window));
    let (length, read) = two(
        line,
        cmd("LLEN").arg(key),
        cmd("LRANGE")
            .arg(key)
            .arg(start)
            .arg(start.saturating_add(count - 1)),
        deadline,
    )
    .await?;
    let mut taken = Taken::new(room);
    for element in elements(read).unwrap_or_default() {
        if !taken.push(Room::new(room).cell(element)) {
            break;
        }
    }
    Ok(indexed(taken, start, &length))
}

async fn sorted(
    line: &mut Line,
    key: &Blob,
    window: &Window,
    room: usize,
    deadline: Deadline,
) -> Result<Part, Error> {
    let (start, count) = (index(window)?, count(window));
    let (length, read) = two(
        line,
        cmd("ZCARD").arg(key),
        cmd("ZRANGE")
            .arg(key)
            .arg(start)
            .arg(start.saturating_add(count - 1))
            .arg("WITHSCORES"),
        deadline,
    )
    .await?;
    let mut taken = Taken::new(room);
    let read = elements(read).unwrap_or_default();
    // The older shape of the protocol has members and scores in one list, the newer has pairs.
    let flat: Vec<Value> = if matches!(read.first(), Some(Value::Array(_))) {
        read.into_iter().filter_map(elements).flatten().collect()
    } else {
        read
    };
    for pair in flat.chunks_exact(2) {
        let member = Room::new(room).cell(pair[0].clone());
        let score = value::number(&pair[1]).map_or_else(Cell::null, Cell::float);
        let is_cut = member.is_cut();
        let pair = json!([member.into_value(), score.into_value()]);
        if !taken.push(Cell::nested(pair, is_cut)) {
            break;
        }
    }
    Ok(indexed(taken, start, &length))
}

fn indexed(taken: Taken, start: usize, length: &Value) -> Part {
    let length = integer(length).unwrap_or_default();
    let reached = start.saturating_add(taken.list.len());
    let goes_on = usize::try_from(length).is_ok_and(|length| reached < length);
    let moves_on = !taken.list.is_empty();
    Part {
        value: taken.cell(goes_on),
        length: Some(length),
        next: (goes_on && moves_on).then(|| reached.to_string()),
    }
}

/// A hash or a set, which has no order but that of its steps: `next` is the cursor of a step and how much of it was taken already.
async fn stepped(
    line: &mut Line,
    key: &Blob,
    [length, step]: [&str; 2],
    width: usize,
    window: &Window,
    room: usize,
    deadline: Deadline,
) -> Result<Part, Error> {
    let (mut cursor, mut skip) = match window.start.as_deref() {
        None => (0_u64, 0_usize),
        Some(start) => {
            let parts = start.split_once('.');
            let parsed =
                parts.and_then(|(cursor, skip)| Some((cursor.parse().ok()?, skip.parse().ok()?)));
            parsed.ok_or_else(|| window_error(start, "the `next` of the window before"))?
        }
    };
    let count = count(window);
    let length = line.ask(cmd(length).arg(key), deadline).await?;
    let mut taken = Taken::new(room);
    let mut next = None;
    for _ in 0..MOST_STEPS {
        let mut ask = cmd(step);
        ask.arg(key).arg(cursor).arg("COUNT").arg(STEP);
        let answer = line.ask(&ask, deadline).await?;
        let (after, found) = step_of(answer);
        let mut is_full = false;
        for (reached, element) in found.chunks_exact(width).enumerate().skip(skip) {
            let cells: Vec<Cell> = element
                .iter()
                .map(|value| Room::new(room).cell(value.clone()))
                .collect();
            let is_cut = cells.iter().any(Cell::is_cut);
            let mut values: Vec<_> = cells.into_iter().map(Cell::into_value).collect();
            let value = match width {
                1 => values.pop().unwrap_or_default(),
                _ => values.into(),
            };
            is_full = taken.list.len() >= count || !taken.push(Cell::nested(value, is_cut));
            if is_full {
                next = Some(format!("{cursor}.{reached}"));
                break;
            }
        }
        // Some servers give the cursor back for a key that is gone meanwhile, for ever.
        if is_full || after == 0 || after == cursor {
            break;
        }
        next = Some(format!("{after}.0"));
        if taken.list.len() >= count {
            break;
        }
        next = None;
        (cursor, skip) = (after, 0);
    }
    Ok(Part {
        value: taken.cell(next.is_some()),
        length: integer(&length),
        next,
    })
}

/// The cursor and the elements of a step.
pub(super) fn step_of(answer: Value) -> (u64, Vec<Value>) {
    let mut parts = elements(answer).unwrap_or_default().into_iter();
    let cursor = parts.next().and_then(value::text);
    let cursor = cursor.and_then(|cursor| cursor.parse().ok());
    let found = parts.next().and_then(elements).unwrap_or_default();
    (cursor.unwrap_or_default(), found)
}

async fn stream(
    line: &mut Line,
    key: &Blob,
    window: &Window,
    room: usize,
    deadline: Deadline,
) -> Result<Part, Error> {
    let start = window.start.as_deref().unwrap_or("-");
    if start.len() > 50 {
        return Err(window_error(start, "an id"));
    }
    let count = count(window);
    let (length, read) = two(
        line,
        cmd("XLEN").arg(key),
        cmd("XRANGE")
            .arg(key)
            .arg(start)
            .arg("+")
            .arg("COUNT")
            .arg(count + 1),
        deadline,
    )
    .await?;
    let mut taken = Taken::new(room);
    let mut next = None;
    for entry in elements(read).unwrap_or_default() {
        let mut parts = elements(entry).unwrap_or_default().into_iter();
        let id = parts.next().and_then(value::text).unwrap_or_default();
        let fields = Room::new(room).cell(parts.next().unwrap_or(Value::Nil));
        let is_cut = fields.is_cut();
        let value = json!({ "id": id, "fields": fields_of(fields.into_value()) });
        if taken.list.len() >= count || !taken.push(Cell::nested(value, is_cut)) {
            next = Some(id);
            break;
        }
    }
    Ok(Part {
        value: taken.cell(next.is_some()),
        length: integer(&length),
        next,
    })
}

/// The fields of a stream's entry: an object, or pairs where a name is there twice or is no text.
pub(super) fn fields_of(value: serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Array(values) = value else {
        return value;
    };
    // Names and values in one list; the newer shape of the protocol has it so, too.
    let named: Option<serde_json::Map<_, _>> = values
        .chunks(2)
        .map(|pair| match pair {
            [serde_json::Value::String(name), value] => Some((name.clone(), value.clone())),
            _ => None,
        })
        .collect();
    match named {
        Some(named) if named.len() * 2 == values.len() => named.into(),
        _ => values.chunks(2).map(<[_]>::to_vec).collect(),
    }
}

async fn document(line: &mut Line, key: &Blob, deadline: Deadline) -> Result<Part, Error> {
    let read = line.ask(cmd("JSON.GET").arg(key), deadline).await?;
    let text = value::text(read).unwrap_or_default();
    let length = i64::try_from(text.len()).ok();
    let value = serde_json::from_str(&text).map_or_else(|_| Cell::text(text), Cell::json);
    Ok(Part {
        value,
        length,
        next: None,
    })
}

async fn two(
    line: &mut Line,
    first: &Cmd,
    second: &Cmd,
    deadline: Deadline,
) -> Result<(Value, Value), Error> {
    let mut both = Pipeline::new();
    both.add_command(first.clone()).add_command(second.clone());
    let mut answers = line.ask_all(&both, deadline).await?.into_iter();
    let mut next = || no_refusal(answers.next().unwrap_or(Value::Nil));
    Ok((next()?, next()?))
}

fn index(window: &Window) -> Result<usize, Error> {
    window.start.as_deref().map_or(Ok(0), |start| {
        start
            .parse()
            .ok()
            .filter(|index| i64::try_from(*index).is_ok())
            .ok_or_else(|| window_error(start, "a whole number from 0"))
    })
}

fn count(window: &Window) -> usize {
    window.count.unwrap_or(ELEMENTS).clamp(1, LARGEST_WINDOW)
}

fn window_error(start: &str, wanted: &'static str) -> Error {
    value::ValueError::Start {
        start: shared::budget::head(start, 100).text.to_owned(),
        wanted,
    }
    .into()
}

/// The elements of a window, as many as there is room for; one at least.
struct Taken {
    list: Vec<serde_json::Value>,
    left: usize,
    is_cut: bool,
}

impl Taken {
    fn new(room: usize) -> Self {
        Self {
            list: Vec::new(),
            left: room,
            is_cut: false,
        }
    }

    fn push(&mut self, cell: Cell) -> bool {
        let bytes = json_bytes(&cell.value()) + 1;
        if bytes > self.left && !self.list.is_empty() {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.is_cut |= cell.is_cut();
        self.list.push(cell.into_value());
        true
    }

    fn cell(self, goes_on: bool) -> Cell {
        Cell::nested(self.list.into(), self.is_cut || goes_on)
    }
}
