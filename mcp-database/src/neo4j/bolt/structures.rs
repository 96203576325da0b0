//! Which tagged structure of the wire format is which node, path, point or time; wrong fields are
//! errors.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::packstream::PackstreamError;
use super::temporal::{Date, DateTime, Duration, LocalDateTime, LocalTime, Time, Zone};
use super::value::{Map, Node, Path, Point, Relationship, Structure, UnboundRelationship, Value};

const NODE: u8 = b'N';
const RELATIONSHIP: u8 = b'R';
const UNBOUND_RELATIONSHIP: u8 = b'r';
const PATH: u8 = b'P';
const DATE: u8 = b'D';
const TIME: u8 = b'T';
const LOCAL_TIME: u8 = b't';
const DATE_TIME: u8 = b'I';
const DATE_TIME_ZONE: u8 = b'i';
const LEGACY_DATE_TIME: u8 = b'F';
const LEGACY_DATE_TIME_ZONE: u8 = b'f';
const LOCAL_DATE_TIME: u8 = b'd';
const DURATION: u8 = b'E';
const POINT_2D: u8 = b'X';
const POINT_3D: u8 = b'Y';

/// The first day of the year -999,999,999 and the last of 999,999,999, beyond which no server can
/// count.
const DAYS: RangeInclusive<i64> = -365_243_219_162..=365_241_780_471;
/// The same in seconds, with room for an offset.
const SECONDS: RangeInclusive<i64> = -365_243_219_163 * 86_400..=365_241_780_473 * 86_400;
const NANOSECONDS: RangeInclusive<i64> = 0..=999_999_999;
const NANOSECONDS_OF_DAY: RangeInclusive<i64> = 0..=86_400_000_000_000 - 1;
const OFFSET_SECONDS: RangeInclusive<i64> = -18 * 3600..=18 * 3600;

/// Reads a structure; one with an unknown tag stays as it is.
pub(super) fn from_structure(structure: Structure) -> Result<Value, PackstreamError> {
    let Structure { tag, fields } = structure;
    let mut fields = Fields {
        tag,
        rest: fields.into_iter(),
    };
    let value = match tag {
        NODE => Value::Node(Box::new(node(&mut fields)?)),
        RELATIONSHIP => Value::Relationship(Box::new(relationship(&mut fields)?)),
        UNBOUND_RELATIONSHIP => {
            Value::UnboundRelationship(Box::new(unbound_relationship(&mut fields)?))
        }
        PATH => Value::Path(Box::new(path(&mut fields)?)),
        DATE => Value::Date(Date {
            days: fields.within(DAYS)?,
        }),
        TIME => Value::Time(Time {
            nanoseconds: fields.within(NANOSECONDS_OF_DAY)?,
            offset_seconds: fields.offset_seconds()?,
        }),
        LOCAL_TIME => Value::LocalTime(LocalTime {
            nanoseconds: fields.within(NANOSECONDS_OF_DAY)?,
        }),
        DATE_TIME | DATE_TIME_ZONE | LEGACY_DATE_TIME | LEGACY_DATE_TIME_ZONE => {
            Value::DateTime(Box::new(date_time(&mut fields)?))
        }
        LOCAL_DATE_TIME => Value::LocalDateTime(LocalDateTime {
            seconds: fields.epoch_seconds()?,
            nanoseconds: fields.nanoseconds()?,
        }),
        DURATION => Value::Duration(Box::new(Duration {
            months: fields.integer()?,
            days: fields.integer()?,
            seconds: fields.integer()?,
            nanoseconds: fields.nanoseconds()?,
        })),
        POINT_2D | POINT_3D => Value::Point(Box::new(Point {
            srid: fields.integer()?,
            x: fields.float()?,
            y: fields.float()?,
            z: if tag == POINT_3D {
                Some(fields.float()?)
            } else {
                None
            },
        })),
        _ => {
            return Ok(Value::Structure(Box::new(Structure {
                tag,
                fields: fields.rest.collect(),
            })));
        }
    };
    if fields.rest.next().is_some() {
        Err(fields.wrong("too many fields"))
    } else {
        Ok(value)
    }
}

/// Writes a parameter that is no plain value; the graph itself cannot be a parameter.
pub(super) fn to_structure(value: &Value, utc: bool) -> Result<Structure, PackstreamError> {
    let (tag, fields) = match value {
        Value::Date(date) => (DATE, vec![date.days.into()]),
        Value::Time(time) => (
            TIME,
            vec![
                time.nanoseconds.into(),
                i64::from(time.offset_seconds).into(),
            ],
        ),
        Value::LocalTime(time) => (LOCAL_TIME, vec![time.nanoseconds.into()]),
        Value::LocalDateTime(local) => (
            LOCAL_DATE_TIME,
            vec![local.seconds.into(), i64::from(local.nanoseconds).into()],
        ),
        Value::DateTime(date_time) => date_time_structure(date_time, utc)?,
        Value::Duration(duration) => {
            let Duration {
                months,
                days,
                seconds,
                nanoseconds,
            } = **duration;
            (
                DURATION,
                vec![
                    months.into(),
                    days.into(),
                    seconds.into(),
                    i64::from(nanoseconds).into(),
                ],
            )
        }
        Value::Point(point) => {
            let mut fields = vec![point.srid.into(), point.x.into(), point.y.into()];
            fields.extend(point.z.map(Value::Float));
            (
                if point.z.is_some() {
                    POINT_3D
                } else {
                    POINT_2D
                },
                fields,
            )
        }
        Value::Node(_) => return Err(PackstreamError::Unsupported("a node")),
        Value::Path(_) => return Err(PackstreamError::Unsupported("a path")),
        Value::Relationship(_) | Value::UnboundRelationship(_) => {
            return Err(PackstreamError::Unsupported("a relationship"));
        }
        _ => return Err(PackstreamError::Unsupported("an unknown structure")),
    };
    Ok(Structure { tag, fields })
}

fn node(fields: &mut Fields) -> Result<Node, PackstreamError> {
    let id = fields.take()?;
    let (labels, properties) = (fields.texts()?, fields.map()?);
    Ok(Node {
        id: fields.element_id(&id)?,
        labels,
        properties,
    })
}

fn relationship(fields: &mut Fields) -> Result<Relationship, PackstreamError> {
    let (id, start, end) = (fields.take()?, fields.take()?, fields.take()?);
    let (kind, properties) = (fields.text()?, fields.map()?);
    Ok(Relationship {
        id: fields.element_id(&id)?,
        kind,
        start: fields.element_id(&start)?,
        end: fields.element_id(&end)?,
        properties,
    })
}

fn unbound_relationship(fields: &mut Fields) -> Result<UnboundRelationship, PackstreamError> {
    let id = fields.take()?;
    let (kind, properties) = (fields.text()?, fields.map()?);
    Ok(UnboundRelationship {
        id: fields.element_id(&id)?,
        kind,
        properties,
    })
}

/// A path lists what occurs in it once, then the walk as pairs: relationship (from 1, negative if
/// against its direction) and node (from 0).
fn path(fields: &mut Fields) -> Result<Path, PackstreamError> {
    let nodes = fields.list()?.into_iter().map(|element| match element {
        Value::Node(node) => Some(Arc::new(*node)),
        _ => None,
    });
    let nodes: Vec<_> = nodes
        .collect::<Option<_>>()
        .ok_or_else(|| fields.wrong("a node is something else"))?;
    let unbound = fields.list()?;
    let mut bound: Vec<Option<Arc<Relationship>>> = vec![None; unbound.len()];
    let walk = fields.list()?;

    let wrong = || fields.wrong("its indices do not match");
    let mut here = nodes.first().ok_or_else(wrong)?;
    let mut path = Path {
        nodes: vec![Arc::clone(here)],
        relationships: Vec::new(),
    };
    let (steps, []) = walk.as_chunks::<2>() else {
        return Err(wrong());
    };
    for step in steps {
        let [Value::Integer(step), Value::Integer(node)] = step else {
            return Err(wrong());
        };
        let there = usize::try_from(*node)
            .ok()
            .and_then(|index| nodes.get(index))
            .ok_or_else(wrong)?;
        let index = usize::try_from(step.unsigned_abs())
            .map_err(|_| wrong())?
            .wrapping_sub(1);
        let (Some(Value::UnboundRelationship(relationship)), Some(bound)) =
            (unbound.get(index), bound.get_mut(index))
        else {
            return Err(wrong());
        };
        let (start, end) = if *step > 0 {
            (here, there)
        } else {
            (there, here)
        };
        let relationship = bound.get_or_insert_with(|| {
            let UnboundRelationship {
                id,
                kind,
                properties,
            } = (**relationship).clone();
            Arc::new(Relationship {
                id,
                kind,
                start: Arc::clone(&start.id),
                end: Arc::clone(&end.id),
                properties,
            })
        });
        path.relationships.push(Arc::clone(relationship));
        path.nodes.push(Arc::clone(there));
        here = there;
    }
    Ok(path)
}

fn date_time(fields: &mut Fields) -> Result<DateTime, PackstreamError> {
    let seconds = fields.epoch_seconds()?;
    let nanoseconds = fields.nanoseconds()?;
    let (seconds, zone) = match fields.tag {
        DATE_TIME => (seconds, Zone::Offset(fields.offset_seconds()?)),
        LEGACY_DATE_TIME => {
            let offset = fields.offset_seconds()?;
            (seconds - i64::from(offset), Zone::Offset(offset))
        }
        DATE_TIME_ZONE => (seconds, Zone::Name(fields.text()?)),
        _ => (seconds, Zone::LocalName(fields.text()?)),
    };
    Ok(DateTime {
        seconds,
        nanoseconds,
        zone,
    })
}

fn date_time_structure(
    date_time: &DateTime,
    utc: bool,
) -> Result<(u8, Vec<Value>), PackstreamError> {
    let DateTime {
        seconds,
        nanoseconds,
        zone,
    } = date_time;
    let (tag, seconds, zone) = match (zone, utc) {
        (Zone::Offset(offset), true) => (DATE_TIME, *seconds, i64::from(*offset).into()),
        (Zone::Offset(offset), false) => (
            LEGACY_DATE_TIME,
            seconds.saturating_add(i64::from(*offset)),
            i64::from(*offset).into(),
        ),
        (Zone::Name(name), true) => (DATE_TIME_ZONE, *seconds, name.as_str().into()),
        (Zone::LocalName(name), false) => (LEGACY_DATE_TIME_ZONE, *seconds, name.as_str().into()),
        _ => {
            return Err(PackstreamError::Unsupported(
                "a date and time in a named zone",
            ));
        }
    };
    Ok((
        tag,
        vec![seconds.into(), i64::from(*nanoseconds).into(), zone],
    ))
}

/// The fields of a structure, taken in order.
struct Fields {
    tag: u8,
    rest: std::vec::IntoIter<Value>,
}

impl Fields {
    fn wrong(&self, reason: &'static str) -> PackstreamError {
        PackstreamError::Structure {
            tag: self.tag,
            reason,
        }
    }

    fn take(&mut self) -> Result<Value, PackstreamError> {
        self.rest.next().ok_or_else(|| self.wrong("too few fields"))
    }

    fn integer(&mut self) -> Result<i64, PackstreamError> {
        self.take()?
            .as_integer()
            .ok_or_else(|| self.wrong("a field is no integer"))
    }

    fn within(&mut self, range: RangeInclusive<i64>) -> Result<i64, PackstreamError> {
        let number = self.integer()?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong("a number is out of range"))
        }
    }

    fn epoch_seconds(&mut self) -> Result<i64, PackstreamError> {
        self.within(SECONDS)
    }

    fn nanoseconds(&mut self) -> Result<u32, PackstreamError> {
        let number = self.within(NANOSECONDS)?;
        u32::try_from(number).map_err(|_| self.wrong("a number is out of range"))
    }

    fn offset_seconds(&mut self) -> Result<i32, PackstreamError> {
        let number = self.within(OFFSET_SECONDS)?;
        i32::try_from(number).map_err(|_| self.wrong("a number is out of range"))
    }

    fn float(&mut self) -> Result<f64, PackstreamError> {
        match self.take()? {
            Value::Float(number) => Ok(number),
            _ => Err(self.wrong("a field is no float")),
        }
    }

    fn text(&mut self) -> Result<String, PackstreamError> {
        match self.take()? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong("a field is no text")),
        }
    }

    fn list(&mut self) -> Result<Vec<Value>, PackstreamError> {
        match self.take()? {
            Value::List(elements) => Ok(elements),
            _ => Err(self.wrong("a field is no list")),
        }
    }

    fn map(&mut self) -> Result<Map, PackstreamError> {
        match self.take()? {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.wrong("a field is no map")),
        }
    }

    fn texts(&mut self) -> Result<Vec<String>, PackstreamError> {
        let texts = self.list()?.into_iter().map(|element| match element {
            Value::String(text) => Some(text),
            _ => None,
        });
        texts
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong("a label is no text"))
    }

    /// The element id that Bolt 5 appends to a structure, else the number older servers have
    /// instead.
    fn element_id(&mut self, number: &Value) -> Result<Arc<str>, PackstreamError> {
        match (self.rest.next(), number) {
            (Some(Value::String(id)), _) => Ok(id.into()),
            (None, Value::Integer(id)) => Ok(id.to_string().into()),
            _ => Err(self.wrong("an id is missing")),
        }
    }
}

#[cfg(test)]
mod tests;
