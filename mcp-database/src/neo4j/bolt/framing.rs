//! Messages in chunks over a byte stream; a read or write given up halfway is taken up where it
//! stopped.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::Error;
use super::transport::Stream;

const MAX_CHUNK_BYTES: usize = u16::MAX as usize;

/// A stream of messages in both directions.
pub(super) struct Framing {
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    /// The message whose end has not been seen.
    message: Vec<u8>,
    outgoing: BytesMut,
    max_message_bytes: usize,
    /// How long the server may be silent; it sends empty chunks while it works.
    pub(super) silence_limit: Option<Duration>,
}

impl Framing {
    pub(super) fn new(stream: Box<dyn Stream>, max_message_bytes: usize) -> Self {
        Self {
            stream,
            incoming: BytesMut::with_capacity(16 * 1024),
            message: Vec::new(),
            outgoing: BytesMut::new(),
            max_message_bytes,
            silence_limit: None,
        }
    }

    /// Queues a message; [`Framing::flush`] sends all that are queued in one go.
    pub(super) fn queue(&mut self, message: &[u8]) {
        for chunk in message.chunks(MAX_CHUNK_BYTES) {
            // A chunk is at most as long as the length field can say.
            let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            self.outgoing.extend_from_slice(&length.to_be_bytes());
            self.outgoing.extend_from_slice(chunk);
        }
        self.outgoing.extend_from_slice(&[0, 0]);
    }

    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all_buf(&mut self.outgoing).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message, without its chunk headers.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            while let Some(chunk) = next_chunk(&mut self.incoming) {
                if !chunk.is_empty() {
                    if self.message.len() + chunk.len() > self.max_message_bytes {
                        return Err(Error::TooLarge {
                            limit: self.max_message_bytes,
                        });
                    }
                    self.message.extend_from_slice(&chunk);
                } else if !self.message.is_empty() {
                    return Ok(std::mem::take(&mut self.message));
                } // else it is an empty message, which only keeps the connection alive
            }
            self.fill().await?;
        }
    }

    pub(super) async fn shutdown(&mut self) -> Result<(), Error> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn fill(&mut self) -> Result<(), Error> {
        self.incoming.reserve(16 * 1024);
        let read = self.stream.read_buf(&mut self.incoming);
        let count = match self.silence_limit {
            None => read.await?,
            Some(limit) => {
                tokio::time::timeout(limit, read)
                    .await
                    .map_err(|_| Error::Timeout {
                        activity: "waiting for the server",
                        limit,
                    })??
            }
        };
        if count == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }
}

/// Takes a whole chunk off the front, if it has arrived.
fn next_chunk(incoming: &mut BytesMut) -> Option<BytesMut> {
    let (header, rest) = incoming.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*header));
    if rest.len() < length {
        return None;
    }
    incoming.advance(2);
    Some(incoming.split_to(length))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_message_of_any_length_arrives_whole() -> Result<(), Error> {
        let (left, right) = duplex(1000);
        let mut sender = Framing::new(Box::new(left), usize::MAX);
        let mut receiver = Framing::new(Box::new(right), usize::MAX);
        let lengths = [1, 2, 65_534, 65_535, 65_536, 200_000];
        for length in lengths {
            sender.queue(&vec![7; length]);
            sender.queue(&[]); // keeps the connection alive, and is no message
        }
        let sending = tokio::spawn(async move { sender.flush().await });
        for length in lengths {
            assert_eq!(receiver.read().await?, vec![7; length]);
        }
        assert!(matches!(sending.await, Ok(Ok(()))));
        assert!(matches!(receiver.read().await, Err(Error::Io(_))));
        Ok(())
    }

    #[tokio::test]
    async fn a_read_given_up_halfway_loses_nothing() -> Result<(), Error> {
        let (mut left, right) = duplex(1000);
        let mut receiver = Framing::new(Box::new(right), usize::MAX);
        for byte in [0, 2, 1, 2, 0, 1] {
            left.write_all(&[byte]).await?;
            let reading = tokio::time::timeout(Duration::from_millis(1), receiver.read());
            assert!(reading.await.is_err());
        }
        left.write_all(&[3, 0, 0]).await?;
        assert_eq!(receiver.read().await?, [1, 2, 3]);
        Ok(())
    }

    #[tokio::test]
    async fn length_and_silence_are_limited() {
        let (left, right) = duplex(1000);
        let mut sender = Framing::new(Box::new(left), usize::MAX);
        let mut receiver = Framing::new(Box::new(right), 10);
        sender.queue(&[7; 10]);
        assert!(sender.flush().await.is_ok());
        assert!(
            receiver
                .read()
                .await
                .is_ok_and(|message| message == [7; 10])
        );
        receiver.silence_limit = Some(Duration::from_millis(5));
        assert!(matches!(receiver.read().await, Err(Error::Timeout { .. })));
        sender.queue(&[7; 11]);
        assert!(sender.flush().await.is_ok());
        assert!(matches!(
            receiver.read().await,
            Err(Error::TooLarge { limit: 10 })
        ));
    }
}
