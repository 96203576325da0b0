//! Stops somebody else's query, or one's own whose connection is lost, through a connection of its
//! own.

use super::connection::Connection;
use super::error::Error;
use super::query::{Query, TransactionOptions};
use super::value::{Value, entry};

const FIND: &str = "SHOW TRANSACTIONS YIELD transactionId, metaData \
    WHERE metaData[$key] = $tag RETURN collect(transactionId)";
const TERMINATE: &str = "TERMINATE TRANSACTIONS $ids YIELD message \
    WHERE message = 'Transaction terminated.' RETURN count(*)";

/// Ends every running transaction whose metadata has `key` equal to `tag`; gives how many there
/// were.
///
/// `connection` must be another than the one that is busy. The victim's client sees the error
/// `Neo.ClientError.Transaction.Terminated`. Without administrator rights, only one's own
/// transactions are found.
pub async fn terminate_tagged(
    connection: &mut Connection,
    key: &str,
    tag: &str,
) -> Result<usize, Error> {
    let options = TransactionOptions::default();
    let find = Query {
        text: FIND.to_owned(),
        parameters: vec![entry("key", key), entry("tag", tag)],
    };
    let (_, mut found) = connection.run_and_pull(&find, &options, 2).await?;
    let ids = found.records.pop().and_then(|mut record| record.pop());
    let Some(Value::List(ids)) = ids.filter(|ids| *ids != Value::List(vec![])) else {
        return Ok(0);
    };
    let terminate = Query {
        text: TERMINATE.to_owned(),
        parameters: vec![entry("ids", Value::List(ids))],
    };
    // The server terminates only while its answer is being pulled; a discarded one does nothing.
    let (_, terminated) = connection.run_and_pull(&terminate, &options, 2).await?;
    let count = terminated.records.first().and_then(|record| record.first());
    let count = count.and_then(Value::as_integer).unwrap_or_default();
    Ok(usize::try_from(count).unwrap_or_default())
}
