//! Values go there and come back as they are.

use anyhow::{Context, Result};
use mcp_database::neo4j::bolt::{
    Connection, Date, DateTime, Duration, Node, Point, Query, Value, Zone, entry,
};

use crate::support::{all, connect, one, proxy, query, reading, server, unique, write, writing};

const ONLY_4_4: [u8; 16] = [0, 2, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ONLY_5_0: [u8; 16] = [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const TEMPORAL: &[&str] = &[
    "date('2024-02-29')",
    "date('1970-01-01')",
    "date('1969-12-31')",
    "date('1900-03-01')",
    "date('0000-01-01')",
    "date('-0001-12-31')",
    "date('+10000-01-01')",
    "date('-999999999-01-01')",
    "date('+999999999-12-31')",
    "localtime('12:00')",
    "localtime('23:59:59.999999999')",
    "localtime('00:00:00.000000001')",
    "localtime('12:50:35.5')",
    "time('12:50:35.556+01:00')",
    "time('00:00Z')",
    "time('12:00-09:30')",
    "time('12:00+18:00')",
    "localdatetime('2024-01-01T00:00')",
    "localdatetime('1969-12-31T23:59:59.999')",
    "localdatetime('-999999999-01-01T00:00')",
    "localdatetime('+999999999-12-31T23:59:59.999999999')",
    "datetime('2024-03-31T01:30:00.123+02:00')",
    "datetime('1969-12-31T23:59:59.5-11:15')",
    "datetime('2024-01-01T00:00Z')",
    "datetime('-0044-03-15T12:00+00:50')",
    "duration('P1Y2M3DT4H5M6.7S')",
    "duration('PT0S')",
    "duration('P14M')",
    "duration('P-14M-3D')",
    "duration('PT-1.5S')",
    "duration('PT-0.25S')",
    "duration('PT0.25S')",
    "duration('PT-61.000000001S')",
    "duration('PT-3600S')",
    "duration('PT-3600.5S')",
    "duration('PT90061S')",
    "duration('P1Y-1M')",
    "duration({days: 1, seconds: -1, nanoseconds: 1})",
    "duration('P-999999999Y-11M')",
    "duration({seconds: -9223372036854775000})",
    "duration({seconds: 9223372036854775000, nanoseconds: 999999999})",
];

fn text(value: &Value) -> Result<String> {
    Ok(match value {
        Value::Date(value) => value.to_string(),
        Value::Time(value) => value.to_string(),
        Value::LocalTime(value) => value.to_string(),
        Value::DateTime(value) => value.to_string(),
        Value::LocalDateTime(value) => value.to_string(),
        Value::Duration(value) => value.to_string(),
        other => anyhow::bail!("not temporal: {other:?}"),
    })
}

/// Compares the text, and that the server takes the value back unchanged.
async fn check_temporals(connection: &mut Connection) -> Result<()> {
    for expression in TEMPORAL {
        let asked = format!("WITH {expression} AS value RETURN value, toString(value)");
        let batch = all(connection, &asked).await.context(*expression)?;
        let [value, Value::String(printed)] = &batch.records[0][..] else {
            anyhow::bail!("shape")
        };
        assert_eq!(
            &text(value)?,
            printed,
            "{expression} on {:?}",
            connection.bolt_version()
        );
        let back = Query {
            text: format!("RETURN $value = {expression}, $value"),
            parameters: vec![entry("value", value.clone())],
        };
        let (_, batch) = connection.run_and_pull(&back, &reading(), 1).await?;
        assert_eq!(
            batch.records,
            [[Value::Boolean(true), value.clone()]],
            "{expression}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn times_read_as_the_server_prints_them() -> Result<()> {
    let endpoint = server!();
    check_temporals(&mut connect(&endpoint).await?).await?;
    for (offers, version) in [(ONLY_4_4, (4, 4)), (ONLY_5_0, (5, 0))] {
        let (through, _proxy) = proxy(&endpoint, Some(offers), usize::MAX).await?;
        let mut older = connect(&through).await?;
        assert_eq!(older.bolt_version(), version);
        check_temporals(&mut older).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_zone_keeps_its_name_and_the_instant() -> Result<()> {
    let endpoint = server!();
    let (through, _proxy) = proxy(&endpoint, Some(ONLY_4_4), usize::MAX).await?;
    for mut connection in [connect(&endpoint).await?, connect(&through).await?] {
        let asked = "RETURN datetime('2024-07-01T12:00:00.5[Europe/Berlin]')";
        let value = one(&mut connection, asked).await?;
        let zone = Zone::Name("Europe/Berlin".to_owned());
        let expected = DateTime {
            seconds: 1_719_828_000,
            nanoseconds: 500_000_000,
            zone,
        };
        assert_eq!(value, Value::DateTime(Box::new(expected)));
        let printed = text(&value)?;
        assert_eq!(printed, "2024-07-01T10:00:00.5Z[Europe/Berlin]");
        // The server does not read such a text, but builds the value from its two halves.
        let back = Query {
            text: format!(
                "{asked} = $value, \
                 datetime({{datetime: datetime('2024-07-01T10:00:00.5Z'), timezone: 'Europe/Berlin'}}) = $value"
            ),
            parameters: vec![entry("value", value)],
        };
        let (_, batch) = connection.run_and_pull(&back, &reading(), 1).await?;
        assert_eq!(
            batch.records,
            [[Value::Boolean(true), Value::Boolean(true)]]
        );
    }
    Ok(())
}

#[tokio::test]
async fn plain_values_come_back_as_they_went() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let integers = [
        0, 1, -1, -16, -17, 127, 128, -128, -129, 32_767, 32_768, -32_768, -32_769,
    ];
    let mut values: Vec<Value> = integers.map(Value::Integer).to_vec();
    values.extend([i64::from(i32::MAX), 2_147_483_648, i64::MAX, i64::MIN].map(Value::Integer));
    values.extend([
        Value::Null,
        true.into(),
        false.into(),
        0.1.into(),
        f64::INFINITY.into(),
    ]);
    values.extend([15, 16, 255, 256, 65_535, 65_536, 200_000].map(|n| Value::from("ü".repeat(n))));
    values.extend([0, 255, 256, 70_000].map(|length| Value::Bytes(vec![7; length])));
    values.extend([15, 16, 300, 70_000].map(|length| Value::from(vec![1; length])));
    let map = |length| (0..length).map(|n| entry(&format!("k{n:04}"), n)).collect();
    values.extend([0, 15, 16, 300].map(|length| Value::Map(map(length))));
    values.push(Value::from(vec![
        Value::Map(vec![entry("a", Value::Null)]),
        vec![1.5].into(),
    ]));
    let point = |srid, z| {
        Value::Point(Box::new(Point {
            srid,
            x: 1.5,
            y: -2.25,
            z,
        }))
    };
    values.extend([point(4326, None), point(7203, None), point(4979, Some(9.0))]);
    values.push(point(9157, Some(0.0)));
    for value in values {
        let echo = Query {
            text: "RETURN $value".to_owned(),
            parameters: vec![entry("value", value.clone())],
        };
        let (_, batch) = connection.run_and_pull(&echo, &reading(), 1).await?;
        let mut echoed = batch.records[0][0].clone();
        if let Value::Map(entries) = &mut echoed {
            entries.sort_by(|left, right| left.0.cmp(&right.0)); // the server keeps no order
        }
        assert_eq!(echoed, value);
    }
    let not_a_number = one(&mut connection, "RETURN 0.0 / 0.0").await?;
    assert!(matches!(not_a_number, Value::Float(number) if number.is_nan()));
    let long = "RETURN [n IN range(1, 10000) | 0.5]";
    assert_eq!(
        one(&mut connection, long).await?,
        Value::from(vec![0.5; 10_000])
    );
    Ok(())
}

#[tokio::test]
async fn a_parameter_that_cannot_be_sent_leaves_the_connection_usable() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let deep = (0..200).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let node = Node {
        id: "4:x:1".into(),
        labels: vec![],
        properties: vec![],
    };
    for value in [deep, Value::Node(Box::new(node))] {
        let echo = Query {
            text: "RETURN $v".to_owned(),
            parameters: vec![entry("v", value)],
        };
        let outcome = connection.run_and_pull(&echo, &reading(), 1).await;
        assert!(
            matches!(
                outcome,
                Err(mcp_database::neo4j::bolt::Error::Parameters(_))
            ),
            "{outcome:?}"
        );
        assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    }
    let nested = format!("RETURN {}1{}", "[".repeat(90), "]".repeat(90));
    let expected = (0..90).fold(Value::Integer(1), |inner, _| Value::List(vec![inner]));
    assert_eq!(one(&mut connection, &nested).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_path_is_walked_in_order_and_keeps_directions() -> Result<()> {
    let endpoint = server!();
    let (through, _proxy) = proxy(&endpoint, Some(ONLY_4_4), usize::MAX).await?;
    let label = unique("Walk");
    let mut connection = connect(&endpoint).await?;
    // a -> b <- c, and back: a cycle that meets b twice.
    let create = format!(
        "CREATE (a:{label}:Start {{name: 'a'}})-[:TO {{since: 1}}]->(b:{label} {{name: 'b'}}), \
         (c:{label} {{name: 'c'}})-[:FROM]->(b), (b)-[:LOOP]->(b)"
    );
    write(&mut connection, &create).await?;
    let asked = format!(
        "MATCH p = (a:{label} {{name: 'a'}})-[t:TO]->(b)-[:LOOP]->(b)<-[f:FROM]-(c) RETURN p, a, t, c, f"
    );
    for mut connection in [connect(&endpoint).await?, connect(&through).await?] {
        let batch = all(&mut connection, &asked).await?;
        let [
            Value::Path(path),
            Value::Node(a),
            Value::Relationship(t),
            Value::Node(c),
            f,
        ] = &batch.records[0][..]
        else {
            anyhow::bail!("{batch:?}")
        };
        assert_eq!(path.nodes.len(), 4);
        assert_eq!((&*path.nodes[0], &*path.nodes[3]), (&**a, &**c));
        assert_eq!(path.nodes[1], path.nodes[2]);
        let kinds = path
            .relationships
            .iter()
            .map(|relationship| relationship.kind.as_str());
        assert_eq!(kinds.collect::<Vec<_>>(), ["TO", "LOOP", "FROM"]);
        assert_eq!(*path.relationships[0], **t);
        assert_eq!(
            Value::Relationship(Box::new((*path.relationships[2]).clone())),
            *f
        );
        assert_eq!(
            (&path.relationships[2].start, &path.relationships[2].end),
            (&c.id, &path.nodes[1].id)
        );
        assert_eq!((&t.start, &t.end), (&a.id, &path.nodes[1].id));
        assert_eq!(t.properties, [entry("since", 1)]);
        assert_eq!(a.properties, [entry("name", "a")]);
        let mut labels = a.labels.clone();
        labels.sort();
        assert_eq!(labels, ["Start".to_owned(), label.clone()]);
        if connection.bolt_version().0 == 5 {
            let same = format!("MATCH (a:{label} {{name: 'a'}}) RETURN elementId(a)");
            assert_eq!(one(&mut connection, &same).await?, Value::from(&*a.id));
        } else {
            assert!(a.id.parse::<u64>().is_ok(), "{}", a.id);
        }
    }
    let single = one(
        &mut connection,
        &format!("MATCH p = (:{label}:Start) RETURN p"),
    )
    .await?;
    assert!(
        matches!(single, Value::Path(path) if path.nodes.len() == 1 && path.relationships.is_empty())
    );

    let schema = all(&mut connection, "CALL db.schema.visualization()").await?;
    let [Value::List(nodes), Value::List(relationships)] = &schema.records[0][..] else {
        anyhow::bail!("{schema:?}")
    };
    assert!(
        nodes
            .iter()
            .all(|node| matches!(node, Value::Node(node) if node.id.starts_with('-'))),
        "{nodes:?}"
    );
    assert!(!nodes.is_empty() && matches!(relationships[0], Value::Relationship(_)));
    write(
        &mut connection,
        &format!("MATCH (n:{label}) DETACH DELETE n"),
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn temporal_and_spatial_properties_survive_a_write() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Kept");
    let duration = Duration {
        months: 1,
        days: 2,
        seconds: -3,
        nanoseconds: 4,
    };
    let properties = vec![
        entry("date", Value::Date(Date { days: 19_782 })),
        entry("duration", Value::Duration(Box::new(duration))),
        entry(
            "point",
            Value::Point(Box::new(Point {
                srid: 4326,
                x: 13.4,
                y: 52.5,
                z: None,
            })),
        ),
    ];
    let create = Query {
        text: format!("CREATE (n:{label}) SET n = $properties RETURN n"),
        parameters: vec![entry("properties", Value::Map(properties.clone()))],
    };
    let (_, batch) = connection.run_and_pull(&create, &writing(), 1).await?;
    let Value::Node(node) = &batch.records[0][0] else {
        anyhow::bail!("{batch:?}")
    };
    let mut kept = node.properties.clone();
    kept.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(kept, properties);
    connection
        .run_and_pull(
            &query(&format!("MATCH (n:{label}) DELETE n")),
            &writing(),
            1,
        )
        .await?;
    Ok(())
}
