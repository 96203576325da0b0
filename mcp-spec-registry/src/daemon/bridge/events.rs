//! Takes the data out of a stream of server-sent events, piece by piece as it arrives.

/// A stream being read.
pub(super) struct Events {
    most_bytes: usize,
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            line: Vec::new(),
            data: Vec::new(),
        }
    }

    /// The events that this piece completes.
    pub(super) fn take(&mut self, piece: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut completed = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            anyhow::ensure!(
                self.line.len() + self.data.len() <= self.most_bytes,
                "an answer of the registry is over {} bytes",
                self.most_bytes
            );
            if part.ends_with(b"\n") {
                completed.extend(self.end_of_line());
            }
        }
        Ok(completed)
    }

    fn end_of_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some(data);
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data
                .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_pieces_are_cut() -> anyhow::Result<()> {
        let stream = b": hello\r\nid: 0\r\n\r\nevent: message\ndata: {\"a\":\ndata: 1}\n\ndata:two\n\ndata: open";
        for size in 1..stream.len() {
            let mut events = Events::new(100);
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                found.extend(events.take(piece)?);
            }
            assert_eq!(
                found,
                [b"{\"a\":\n1}".to_vec(), b"two".to_vec()],
                "pieces of {size}"
            );
        }
        Ok(())
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut events = Events::new(10);
        assert!(events.take(b"data: 1234").is_ok());
        assert!(events.take(b"5").is_err());
    }
}
