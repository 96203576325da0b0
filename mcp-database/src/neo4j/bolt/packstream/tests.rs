//! What goes over the wire, and what must not get through.

use super::super::temporal::{Date, DateTime, Duration, LocalDateTime, LocalTime, Time, Zone};
use super::super::value::{Point, entry};
use super::*;

const TAG: u8 = 0x71;

fn encode(value: Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert_eq!(encode_message(TAG, &[value], true, &mut bytes), Ok(()));
    bytes
}

fn decode(bytes: &[u8]) -> Result<Structure, PackstreamError> {
    decode_message(bytes, &mut 10_000_000)
}

/// One of everything that can be sent.
fn sample() -> Value {
    let zone = Zone::Name("Europe/Berlin".to_owned());
    Value::List(vec![
        Value::Null,
        true.into(),
        Value::from(vec![
            0,
            127,
            128,
            -16,
            -17,
            -129,
            40_000,
            -3_000_000_000,
            i64::MIN,
        ]),
        (-0.5).into(),
        Value::Bytes(vec![1, 2, 3]),
        "grüße".into(),
        "x".repeat(300).into(),
        Value::Map(vec![entry("z", 1), entry("a", Value::Map(vec![]))]),
        Value::Date(Date { days: -1 }),
        Value::Time(Time {
            nanoseconds: 1,
            offset_seconds: -3600,
        }),
        Value::LocalTime(LocalTime {
            nanoseconds: 86_399_999_999_999,
        }),
        Value::LocalDateTime(LocalDateTime {
            seconds: -1,
            nanoseconds: 5,
        }),
        Value::DateTime(Box::new(DateTime {
            seconds: 9,
            nanoseconds: 8,
            zone,
        })),
        Value::Duration(Box::new(Duration {
            months: 1,
            days: -2,
            seconds: 3,
            nanoseconds: 4,
        })),
        Value::Point(Box::new(Point {
            srid: 4979,
            x: 1.0,
            y: 2.0,
            z: Some(3.0),
        })),
        Value::Point(Box::new(Point {
            srid: 7203,
            x: 1.0,
            y: 2.0,
            z: None,
        })),
    ])
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let expected = Structure {
        tag: TAG,
        fields: vec![sample()],
    };
    assert_eq!(decode(&encode(sample())), Ok(expected));
}

#[test]
fn every_truncation_and_every_addition_is_an_error() {
    let mut bytes = encode(sample());
    for length in 0..bytes.len() {
        assert_eq!(
            decode(&bytes[..length]),
            Err(PackstreamError::Truncated),
            "{length}"
        );
    }
    bytes.push(0xC0);
    assert_eq!(decode(&bytes), Err(PackstreamError::Trailing(1)));
}

#[test]
fn damaged_and_random_bytes_never_panic() {
    let original = encode(sample());
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    let mut decoded = 0;
    for _ in 0..200_000 {
        let mut bytes = original.clone();
        let [high, low, byte, count, ..] = random();
        for offset in 0..=usize::from(count % 3) {
            let position = usize::from(u16::from_be_bytes([high, low])) + offset * 31;
            let length = bytes.len();
            bytes[position % length] = byte.wrapping_add(u8::try_from(offset).unwrap_or(0));
        }
        decoded += usize::from(decode(&bytes).is_ok_and(|value| !format!("{value:?}").is_empty()));
        let noise: Vec<u8> = [0xB1, TAG]
            .into_iter()
            .chain((0..8).flat_map(|_| random()))
            .collect();
        drop(decode(&noise));
    }
    assert!(
        decoded > 0,
        "no damage was harmless: the test tests nothing"
    );
}

#[test]
fn depth_is_limited_both_ways() {
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let deepest = encode(nested(MAX_DEPTH - 1));
    assert!(decode(&deepest).is_ok());
    let refused = encode_message(TAG, &[nested(MAX_DEPTH)], true, &mut Vec::new());
    assert_eq!(refused, Err(PackstreamError::TooDeep));
    for marker in [&[0x91][..], &[0xA1, 0x80], &[0xB1, 0x58]] {
        let bytes = [&[0xB1, TAG], marker.repeat(1_000_000).as_slice()].concat();
        assert_eq!(decode(&bytes), Err(PackstreamError::TooDeep));
    }
}

#[test]
fn a_declared_length_is_not_believed() {
    for lie in [&[0xD6][..], &[0xDA], &[0xD2], &[0xCE]] {
        let bytes = [&[0xB1, TAG], lie, &[0xFF; 4], &[0xC0; 8]].concat();
        assert!(
            matches!(
                decode(&bytes),
                Err(PackstreamError::Truncated | PackstreamError::TooLarge)
            ),
            "{lie:?}"
        );
    }
}

#[test]
fn memory_is_bounded_by_more_than_the_bytes() {
    const { assert!(VALUE_BYTES <= 32) };
    let bytes = encode(Value::List(vec![Value::Integer(1); 10_000]));
    assert_eq!(
        decode_message(&bytes, &mut 100_000),
        Err(PackstreamError::TooLarge)
    );
    let mut budget = 1_000_000;
    assert!(decode_message(&bytes, &mut budget).is_ok());
    assert_eq!(budget, 1_000_000 - 10_001 * VALUE_BYTES);
}

#[test]
fn wrong_kinds_have_their_own_errors() {
    assert_eq!(decode(&[0xC0]), Err(PackstreamError::Marker(0xC0)));
    assert_eq!(
        decode(&[0xB1, TAG, 0xC4]),
        Err(PackstreamError::Marker(0xC4))
    );
    assert_eq!(
        decode(&[0xB1, TAG, 0xA1, 0x01, 0x01]),
        Err(PackstreamError::Marker(0x01))
    );
    assert_eq!(decode(&[0xB1, TAG, 0x81, 0xFF]), Err(PackstreamError::Utf8));
}
