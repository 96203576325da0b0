//! One HTTP/1.1 GET, bounded in time, header bytes and body bytes; it follows no redirect and keeps no connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Largest head of an answer.
const MOST_HEADER_BYTES: usize = 32 * 1024;
/// Largest body of an answer.
pub(super) const MOST_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Longest path and query of a request.
const LONGEST_PATH: usize = 2048;
/// Informational answers (`103 Early Hints`) before the real one.
const MOST_INFORMATIONAL: usize = 4;

/// Why there is no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// Nobody accepts connections there.
    Refused,
    /// No whole answer in time.
    TimedOut,
    /// The connection ended before the answer was whole.
    Closed,
    /// The answer is not HTTP/1.
    NotHttp,
    /// More header bytes than are read.
    HeadersTooLarge,
    /// More body bytes than are read.
    BodyTooLarge,
    /// Another failure of the network.
    Network,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Lower-case names with their values.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// From before the connection to the last byte.
    pub(super) took: Duration,
}

/// Whether a path can be asked for without becoming anything else than a path.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Asks for a path, on a new connection, until the deadline.
pub(super) fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
    deadline: Instant,
) -> Result<Response, Failure> {
    let began = Instant::now();
    let mut connection = Connection {
        stream: connect(address, deadline)?,
        deadline,
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mcp-spec-registry\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    connection.send(request.as_bytes())?;
    let mut received = Vec::new();
    let mut head = connection.head(&mut received)?;
    for _ in 0..MOST_INFORMATIONAL {
        if head.status >= 200 {
            break;
        }
        head = connection.head(&mut received)?;
    }
    let body = connection.body(&head, received)?;
    Ok(Response {
        status: head.status,
        headers: head.headers,
        body,
        took: began.elapsed(),
    })
}

/// Connects within the deadline.
pub(super) fn connect(address: SocketAddr, deadline: Instant) -> Result<TcpStream, Failure> {
    let left = time_left(deadline)?;
    TcpStream::connect_timeout(&address, left).map_err(|error| failure(&error))
}

struct Connection {
    stream: TcpStream,
    deadline: Instant,
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClosed,
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let left = time_left(self.deadline)?;
        self.stream
            .set_write_timeout(Some(left))
            .map_err(|error| failure(&error))?;
        self.stream
            .write_all(bytes)
            .map_err(|error| failure(&error))
    }

    /// Reads what there is; 0 at the end. A server that drips bytes does not outlast the deadline.
    fn receive(&mut self, into: &mut Vec<u8>) -> Result<usize, Failure> {
        let mut piece = [0; 16 * 1024];
        let left = time_left(self.deadline)?;
        self.stream
            .set_read_timeout(Some(left))
            .map_err(|error| failure(&error))?;
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| failure(&error))?,
            }
        };
        into.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// Reads a head and leaves in `received` what came after it.
    fn head(&mut self, received: &mut Vec<u8>) -> Result<Head, Failure> {
        const END: &[u8] = b"\r\n\r\n";
        let mut searched = 0_usize;
        loop {
            let from = searched.saturating_sub(END.len());
            let end = received[from..]
                .windows(END.len())
                .position(|bytes| bytes == END);
            if let Some(end) = end.map(|end| from + end) {
                if end > MOST_HEADER_BYTES {
                    return Err(Failure::HeadersTooLarge);
                }
                let head = read_head(&received[..end])?;
                received.drain(..end + END.len());
                return Ok(head);
            }
            searched = received.len();
            if searched > MOST_HEADER_BYTES {
                return Err(Failure::HeadersTooLarge);
            }
            if self.receive(received)? == 0 {
                return Err(if received.is_empty() {
                    Failure::Closed
                } else {
                    Failure::NotHttp
                });
            }
        }
    }

    fn body(&mut self, head: &Head, received: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match framing(head)? {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) if length > MOST_BODY_BYTES => Err(Failure::BodyTooLarge),
            Framing::Length(length) => {
                let mut body = received;
                while body.len() < length {
                    if self.receive(&mut body)? == 0 {
                        return Err(Failure::Closed);
                    }
                }
                body.truncate(length);
                Ok(body)
            }
            Framing::UntilClosed => {
                let mut body = received;
                loop {
                    if body.len() > MOST_BODY_BYTES {
                        return Err(Failure::BodyTooLarge);
                    }
                    if self.receive(&mut body)? == 0 {
                        return Ok(body);
                    }
                }
            }
            Framing::Chunked => self.chunks(received),
        }
    }

    fn chunks(&mut self, mut received: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let mut at = 0;
        loop {
            let line = self.line(&mut received, at)?;
            let size = std::str::from_utf8(&received[at..line]).map_err(|_| Failure::NotHttp)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| Failure::NotHttp)?;
            if size > MOST_BODY_BYTES || body.len() + size > MOST_BODY_BYTES {
                return Err(Failure::BodyTooLarge);
            }
            let begin = line + 2;
            if size == 0 {
                return Ok(body);
            }
            while received.len() < begin + size + 2 {
                if self.receive(&mut received)? == 0 {
                    return Err(Failure::Closed);
                }
            }
            body.extend_from_slice(&received[begin..begin + size]);
            if received[begin + size..begin + size + 2] != *b"\r\n" {
                return Err(Failure::NotHttp);
            }
            received.drain(..begin + size + 2);
            at = 0;
        }
    }

    /// Where the line that begins at `from` ends.
    fn line(&mut self, received: &mut Vec<u8>, from: usize) -> Result<usize, Failure> {
        const LONGEST_LINE: usize = 256;
        loop {
            if let Some(end) = received[from..]
                .windows(2)
                .position(|bytes| bytes == b"\r\n")
            {
                return Ok(from + end);
            }
            if received.len() - from > LONGEST_LINE {
                return Err(Failure::NotHttp);
            }
            if self.receive(received)? == 0 {
                return Err(Failure::Closed);
            }
        }
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, Failure> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.get(2..5))
        .and_then(|status| status.parse().ok())
        .filter(|status| (100..=599).contains(status))
        .ok_or(Failure::NotHttp)?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Head { status, headers })
}

fn framing(head: &Head) -> Result<Framing, Failure> {
    let value = |name: &str| {
        let mut values = head.headers.iter().filter(|(known, _)| known == name);
        values.next().map(|(_, value)| value.as_str())
    };
    if matches!(head.status, 204 | 304) {
        return Ok(Framing::None);
    }
    match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (Some(_), _) => Err(Failure::NotHttp),
        (None, Some(length)) => {
            // A length that no number of ours can hold is too large, whatever it is.
            let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            match length.parse() {
                Ok(length) => Ok(Framing::Length(length)),
                Err(_) if is_number => Err(Failure::BodyTooLarge),
                Err(_) => Err(Failure::NotHttp),
            }
        }
        (None, None) => Ok(Framing::UntilClosed),
    }
}

fn time_left(deadline: Instant) -> Result<Duration, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(Failure::TimedOut)
    } else {
        Ok(left)
    }
}

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::TimedOut,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Failure::Closed,
        _ => Failure::Network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Serves one connection with these bytes, each piece after the other.
    fn serving(pieces: Vec<Vec<u8>>, pause: Duration) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            for piece in pieces {
                if stream.write_all(&piece).is_err() {
                    return;
                }
                thread::sleep(pause);
            }
        });
        Ok(address)
    }

    fn answer(bytes: &[u8]) -> anyhow::Result<Result<Response, Failure>> {
        let address = serving(vec![bytes.to_vec()], Duration::ZERO)?;
        Ok(get(
            address,
            "localhost",
            "/",
            Instant::now() + Duration::from_secs(5),
        ))
    }

    #[test]
    fn bodies_of_every_framing_are_read_whole() -> anyhow::Result<()> {
        for (bytes, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
            ),
            (
                "HTTP/1.0 404 Not Found\r\n\r\nuntil closed",
                404,
                "until closed",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
                200,
                "hello!",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                200,
                "ok",
            ),
        ] {
            let response =
                answer(bytes.as_bytes())?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
            assert_eq!(
                (response.status, response.body.as_slice()),
                (status, body.as_bytes())
            );
        }
        Ok(())
    }

    #[test]
    fn what_is_no_whole_answer_is_a_failure_of_its_kind() -> anyhow::Result<()> {
        let endless_headers = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(10_000));
        let huge_chunk =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        for (bytes, failure) in [
            ("", Failure::Closed),
            ("SSH-2.0-OpenSSH\r\n", Failure::NotHttp),
            ("HTTP/1.1 999 Odd\r\n\r\n", Failure::NotHttp),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
                Failure::Closed,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                Failure::NotHttp,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                Failure::BodyTooLarge,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                Failure::BodyTooLarge,
            ),
            (huge_chunk, Failure::BodyTooLarge),
            (&endless_headers, Failure::HeadersTooLarge),
        ] {
            let failed = answer(bytes.as_bytes())?.err();
            assert_eq!(failed, Some(failure), "{}", &bytes[..bytes.len().min(60)]);
        }
        Ok(())
    }

    #[test]
    fn a_body_without_end_is_cut_off() -> anyhow::Result<()> {
        let mut pieces = vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()];
        pieces.extend(std::iter::repeat_n(vec![b'x'; 64 * 1024], 200));
        let address = serving(pieces, Duration::ZERO)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(
            get(address, "localhost", "/", deadline),
            Err(Failure::BodyTooLarge)
        );
        Ok(())
    }

    #[test]
    fn a_server_that_drips_does_not_outlast_the_deadline() -> anyhow::Result<()> {
        let pieces = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
            .bytes()
            .map(|byte| vec![byte]);
        let address = serving(pieces.collect(), Duration::from_millis(50))?;
        let began = Instant::now();
        let deadline = began + Duration::from_millis(300);
        assert_eq!(
            get(address, "localhost", "/", deadline),
            Err(Failure::TimedOut)
        );
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        Ok(())
    }

    #[test]
    fn a_path_cannot_become_a_second_request() {
        for path in [
            "",
            "x",
            "/a b",
            "/\r\nHost: x",
            "/\u{e9}",
            &format!("/{}", "x".repeat(3000)),
        ] {
            assert!(!is_path(path), "{path:?}");
        }
        assert!(is_path("/a/b?c=d&e=%20"));
    }

    #[test]
    fn nobody_there_is_a_refusal() -> anyhow::Result<()> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        assert_eq!(
            get(address, "localhost", "/", deadline),
            Err(Failure::Refused)
        );
        Ok(())
    }
}
