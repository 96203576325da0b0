//! Values of every kind arrive as they are.

use anyhow::ensure;
use serde_json::json;

use crate::database::Database;
use crate::reads::database;

#[tokio::test]
async fn case_23_values_of_every_type_are_whole() -> anyhow::Result<()> {
    let mut database = database!();
    database
        .client
        .batch_execute(
            "CREATE EXTENSION vector; CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('sad', 'ok'); \
             CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text)",
        )
        .await?;
    for (sql, expected) in [
        ("NULL", json!(null)),
        ("true", json!(true)),
        ("1::int2", json!(1)),
        ("9007199254740991", json!(9_007_199_254_740_991_i64)),
        ("9007199254740993", json!("9007199254740993")),
        (
            "'-9223372036854775808'::int8",
            json!("-9223372036854775808"),
        ),
        ("4294967295::oid", json!(4_294_967_295_u32)),
        ("0.1::float4", json!(0.1)),
        ("'NaN'::float8", json!("NaN")),
        ("'-Infinity'::float4", json!("-Infinity")),
        ("1.50", json!("1.50")),
        ("12::numeric", json!(12)),
        ("'NaN'::numeric", json!("NaN")),
        ("12345678901234567890.5", json!("12345678901234567890.5")),
        ("'é\u{1f600}'", json!("é\u{1f600}")),
        ("'a'::char(3)", json!("a  ")),
        ("'x'::name", json!("x")),
        ("'\\x00ff'::bytea", json!({"$bytes": 2, "base64": "AP8="})),
        ("'{\"a\": 1.5}'::jsonb", json!({"a": 1.5})),
        (
            "'{\"a\": 12345678901234567890}'::jsonb",
            json!("{\"a\": 12345678901234567890}"),
        ),
        ("'infinity'::timestamptz", json!("infinity")),
        (
            "'294276-12-31 23:59:59+00'::timestamptz",
            json!("294276-12-31 23:59:59+00"),
        ),
        ("'0044-03-15 BC'::date", json!("0044-03-15 BC")),
        (
            "'1 year 2 days 03:04:05.6'::interval",
            json!("1 year 2 days 03:04:05.6"),
        ),
        (
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("'[1,5)'::int4range", json!("[1,5)")),
        ("'{[1,5),[7,9)}'::int4multirange", json!("{[1,5),[7,9)}")),
        ("'{{1,NULL},{3,4}}'::int[]", json!([[1, null], [3, 4]])),
        ("'{{{1,2}},{{3,4}}}'::int[]", json!([[[1, 2]], [[3, 4]]])),
        ("'{}'::int[]", json!([])),
        ("'{9007199254740993}'::int8[]", json!(["9007199254740993"])),
        ("'{1.50,2}'::numeric[]", json!(["1.50", 2])),
        ("'{t,f}'::bool[]", json!([true, false])),
        (
            "'{\"a,b\",NULL,\"NULL\"}'::text[]",
            json!(["a,b", null, "NULL"]),
        ),
        ("ROW(1, 'x')::pair", json!("(1,x)")),
        ("ROW(1, 'x')", json!("(1,x)")),
        ("ARRAY[ROW(1, 'x')]", json!("{\"(1,x)\"}")),
        ("'ok'::mood", json!("ok")),
        ("'{ok,sad}'::mood[]", json!(["ok", "sad"])),
        ("7::positive", json!(7)),
        ("B'101'", json!("101")),
        ("'10.0.0.1/8'::inet", json!("10.0.0.1/8")),
        ("'fat cats'::tsvector", json!("'cats' 'fat'")),
        ("'(1,2)'::point", json!("(1,2)")),
        ("'a=>1'::hstore", json!("\"a\"=>\"1\"")),
        ("'[1,2,3]'::vector", json!([1.0, 2.0, 3.0])),
        (
            "'[1,2,3,4,5,6]'::vector",
            json!({"$vector": 6, "head": [1.0, 2.0, 3.0, 4.0, 5.0]}),
        ),
        ("'[1,0.5]'::halfvec", json!([1.0, 0.5])),
        ("'{1:2}/3'::sparsevec", json!("{1:2}/3")),
        ("'1 2'::int2vector", json!("1 2")),
    ] {
        assert_eq!(
            database.value(&format!("SELECT {sql}"), &[]).await?,
            expected,
            "{sql}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn case_29_parameters_are_read_by_their_type() -> anyhow::Result<()> {
    let mut database = database!();
    for (sql, given, expected) in [
        ("$1::int + 1", json!(1), json!(2)),
        (
            "$1::int8",
            json!(9_007_199_254_740_993_i64),
            json!("9007199254740993"),
        ),
        (
            "$1::text",
            json!("'; DROP TABLE t; --"),
            json!("'; DROP TABLE t; --"),
        ),
        ("$1::text IS NULL", json!(null), json!(true)),
        (
            "$1::jsonb -> 'a'",
            json!({"a": [1, null]}),
            json!([1, null]),
        ),
        ("$1::int[]", json!([1, null, 3]), json!([1, null, 3])),
        ("$1::date + 1", json!("2026-02-28"), json!("2026-03-01")),
        ("$1", json!("text by default"), json!("text by default")),
    ] {
        assert_eq!(
            database.value(&format!("SELECT {sql}"), &[given]).await?,
            expected,
            "{sql}"
        );
    }
    ensure!(database.ask("SELECT $1::int", &[json!("x")]).await.is_err());
    ensure!(
        database
            .ask("SELECT $1::int", &[json!({"a": 1})])
            .await
            .is_err()
    );
    assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_22_columns_keep_their_names_their_number_and_their_types() -> anyhow::Result<()> {
    let mut database = database!();
    let answer = database
        .ask(
            "SELECT 1 AS a, now() AS a, 'x', '{1}'::int[] AS \"A \"\"b\"",
            &[],
        )
        .await?;
    let columns: Vec<_> = answer
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.kind.as_str()))
        .collect();
    assert_eq!(
        columns,
        [
            ("a", "int4"),
            ("a", "timestamptz"),
            ("?column?", "text"),
            ("A \"b", "int4[]")
        ]
    );
    assert_eq!(answer.rows.into_rows()[0].len(), 4);
    let none = database
        .ask("SELECT FROM generate_series(1, 3)", &[])
        .await?;
    ensure!(none.columns.is_empty());
    assert_eq!(
        none.rows.into_rows(),
        vec![Vec::<serde_json::Value>::new(); 3]
    );
    let many = (0..1_600)
        .map(|index| format!("{index} AS c{index}"))
        .collect::<Vec<_>>();
    let many = database
        .ask(&format!("SELECT {}", many.join(", ")), &[])
        .await?;
    assert_eq!(many.columns.len(), 1_600);
    Ok(())
}
