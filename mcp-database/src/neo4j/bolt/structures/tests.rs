//! Structures that are right, and those that only look so.

use super::*;

fn read(tag: u8, fields: Vec<Value>) -> Result<Value, PackstreamError> {
    from_structure(Structure { tag, fields })
}

fn node(id: i64) -> Value {
    let fields = vec![id.into(), Value::List(vec![]), Value::Map(vec![])];
    read(NODE, fields).unwrap_or(Value::Null)
}

fn unbound(id: i64) -> Value {
    let fields = vec![id.into(), "TO".into(), Value::Map(vec![])];
    read(UNBOUND_RELATIONSHIP, fields).unwrap_or(Value::Null)
}

#[test]
fn a_number_beyond_any_calendar_is_refused() {
    for (tag, fields) in [
        (DATE, vec![i64::MIN]),
        (DATE, vec![i64::MAX]),
        (LOCAL_TIME, vec![-1]),
        (LOCAL_TIME, vec![86_400_000_000_000]),
        (TIME, vec![0, 64_801]),
        (LOCAL_DATE_TIME, vec![i64::MAX, 0]),
        (LOCAL_DATE_TIME, vec![0, 1_000_000_000]),
        (DATE_TIME, vec![i64::MIN, 0, 0]),
        (DATE_TIME, vec![0, 0, i64::MAX]),
        (DURATION, vec![0, 0, 0, -1]),
    ] {
        let outcome = read(tag, fields.iter().map(|number| (*number).into()).collect());
        let expected = PackstreamError::Structure {
            tag,
            reason: "a number is out of range",
        };
        assert_eq!(outcome, Err(expected), "{fields:?}");
    }
}

#[test]
fn the_extremes_that_pass_can_be_printed() {
    for number in [i64::MIN, -1, 0, i64::MAX] {
        let fields = vec![
            number.into(),
            number.into(),
            number.into(),
            999_999_999.into(),
        ];
        let Ok(Value::Duration(duration)) = read(DURATION, fields) else {
            panic!("{number}")
        };
        assert!(duration.to_string().starts_with('P'));
    }
    for seconds in [*SECONDS.start(), *SECONDS.end()] {
        for offset in [*OFFSET_SECONDS.start(), *OFFSET_SECONDS.end()] {
            for tag in [DATE_TIME, LEGACY_DATE_TIME] {
                let fields = vec![seconds.into(), 1.into(), offset.into()];
                let Ok(Value::DateTime(date_time)) = read(tag, fields) else {
                    panic!("{seconds}")
                };
                assert!(date_time.to_string().contains('T'));
            }
        }
    }
}

#[test]
fn a_path_whose_indices_lead_nowhere_is_refused() {
    let path = |nodes: Vec<Value>, relationships: Vec<Value>, walk: &[i64]| {
        read(
            PATH,
            vec![
                Value::List(nodes),
                Value::List(relationships),
                walk.to_vec().into(),
            ],
        )
    };
    let two = || vec![node(1), node(-2)];
    assert!(path(two(), vec![unbound(7)], &[1, 1, -1, 0]).is_ok());
    for walk in [
        &[1][..],
        &[0, 1],
        &[2, 1],
        &[-2, 1],
        &[1, 2],
        &[1, -1],
        &[i64::MIN, 0],
    ] {
        assert!(path(two(), vec![unbound(7)], walk).is_err(), "{walk:?}");
    }
    assert!(path(vec![], vec![], &[]).is_err());
    assert!(path(vec![Value::Null], vec![], &[]).is_err());
    assert!(path(two(), vec![node(7)], &[1, 1]).is_err());
}

#[test]
fn a_relationship_walked_against_its_direction_keeps_it() {
    let walk = vec![-1, 1].into();
    let lists = [vec![node(1), node(-2)], vec![unbound(7)]].map(Value::List);
    let Ok(Value::Path(path)) = read(PATH, lists.into_iter().chain([walk]).collect()) else {
        panic!("no path")
    };
    assert_eq!(
        (&*path.relationships[0].start, &*path.relationships[0].end),
        ("-2", "1")
    );
}

#[test]
fn older_servers_send_local_times() {
    let fields = vec![7200.into(), 0.into(), 3600.into()];
    let expected = DateTime {
        seconds: 3600,
        nanoseconds: 0,
        zone: Zone::Offset(3600),
    };
    assert_eq!(
        read(LEGACY_DATE_TIME, fields.clone()),
        Ok(Value::DateTime(Box::new(expected)))
    );
    let Ok(value) = read(LEGACY_DATE_TIME, fields.clone()) else {
        panic!("no time")
    };
    assert_eq!(
        to_structure(&value, false),
        Ok(Structure {
            tag: LEGACY_DATE_TIME,
            fields
        })
    );
    let named = read(
        LEGACY_DATE_TIME_ZONE,
        vec![0.into(), 0.into(), "Europe/Berlin".into()],
    );
    let Ok(named) = named else { panic!("no time") };
    let Value::DateTime(date_time) = &named else {
        panic!("{named:?}")
    };
    assert_eq!(date_time.to_string(), "1970-01-01T00:00:00[Europe/Berlin]");
    assert!(to_structure(&named, true).is_err() && to_structure(&named, false).is_ok());
}

#[test]
fn an_unknown_structure_stays_as_it_is() {
    let structure = Structure {
        tag: b'V',
        fields: vec![Value::Bytes(vec![1])],
    };
    let kept = from_structure(structure.clone());
    assert_eq!(kept, Ok(Value::Structure(Box::new(structure))));
}
