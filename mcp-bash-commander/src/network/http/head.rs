//! The head of a request to the proxy, read strictly: what other programs could read differently is refused.

use hyper::Uri;

use super::super::HTTP_PORT;
use super::super::address::Destination;
use super::super::refusal::Reason;

/// Longest head, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Most headers; no more than the HTTP library takes.
const MAX_HEADERS: usize = 100;

/// These bytes are no request in HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotHttp;

/// A whole head in a form that has one meaning.
#[derive(Debug)]
pub(super) struct Head<'a> {
    method: &'a [u8],
    /// What the request is for.
    pub(super) target: &'a [u8],
    is_chunked: bool,
    /// Bytes of the head.
    pub(super) length: usize,
}

/// What a request asks the proxy for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A tunnel.
    Tunnel(Destination),
    /// To pass the request on.
    Request(Destination),
}

impl Wanted {
    pub(super) fn destination(&self) -> &Destination {
        match self {
            Self::Tunnel(destination) | Self::Request(destination) => destination,
        }
    }
}

impl<'a> Head<'a> {
    pub(super) fn parse(head: &'a [u8]) -> Result<Self, NotHttp> {
        let text = head.strip_suffix(b"\r\n\r\n").ok_or(NotHttp)?;
        let mut lines = text.split(|&byte| byte == b'\n').map(without_return);
        let mut words = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NotHttp);
        };
        let is_plain = is_token(method) && is_printable(target);
        if !is_plain || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
            return Err(NotHttp);
        }

        let (mut hosts, mut lengths, mut encodings) = (0, 0, 0);
        for (number, line) in lines.enumerate() {
            let (name, value) = read_header(line).ok_or(NotHttp)?;
            match name.to_ascii_lowercase().as_slice() {
                b"host" => hosts += 1,
                b"content-length" if value.iter().all(u8::is_ascii_digit) => lengths += 1,
                b"transfer-encoding" if value.eq_ignore_ascii_case(b"chunked") => encodings += 1,
                b"content-length" | b"transfer-encoding" => return Err(NotHttp),
                _ => {}
            }
            if number >= MAX_HEADERS {
                return Err(NotHttp);
            }
        }
        if hosts > 1 || lengths + encodings > 1 || (encodings > 0 && version == b"HTTP/1.0") {
            return Err(NotHttp);
        }
        Ok(Self {
            method,
            target,
            is_chunked: encodings > 0,
            length: head.len(),
        })
    }

    /// Where the request is to go.
    ///
    /// # Errors
    /// A target without a destination that could be decided about, or a protocol that is not spoken.
    pub(super) fn wanted(&self) -> Result<Wanted, Reason> {
        let read = |authority: &[u8], port| {
            Destination::parse(authority, port).map_err(|_| Reason::Malformed)
        };
        if self.method == b"CONNECT" {
            // A tunnel has no body that it could be told apart from.
            return if self.is_chunked {
                Err(Reason::Malformed)
            } else {
                read(self.target, None).map(Wanted::Tunnel)
            };
        }
        let uri = Uri::try_from(self.target).map_err(|_| Reason::Malformed)?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => {
                read(authority.as_str().as_bytes(), Some(HTTP_PORT)).map(Wanted::Request)
            }
            _ => Err(Reason::Unsupported),
        }
    }
}

/// Length of the head at the beginning of `received`, if it is all there.
///
/// # Errors
/// Line ends other than CR LF, or a NUL, before the head's end.
pub(super) fn length(received: &[u8]) -> Result<Option<usize>, NotHttp> {
    if received.first() == Some(&b'\n') {
        return Err(NotHttp);
    }
    for (at, pair) in received.windows(2).enumerate() {
        match pair {
            b"\r\n" if received[at + 2..].starts_with(b"\r\n") => return Ok(Some(at + 4)),
            b"\r\n" => {}
            [b'\r' | 0, _] | [_, b'\n'] => return Err(NotHttp),
            _ => {}
        }
    }
    Ok(None)
}

/// What stands where a request has its target, for the report on a head that is not understood; empty where no request begins.
pub(super) fn target(received: &[u8]) -> &[u8] {
    let line = received.split(|byte| b"\r\n".contains(byte)).next();
    let mut words = line.unwrap_or_default().split(|&byte| byte == b' ');
    match (words.next(), words.next()) {
        (Some(method), Some(target)) if is_token(method) => target,
        _ => b"",
    }
}

/// The part of a target that names host and port, for reports.
pub(super) fn authority(target: &[u8]) -> &[u8] {
    let from = target
        .windows(3)
        .position(|window| window == b"://")
        .map_or(0, |at| at + 3);
    target[from..]
        .split(|&byte| byte == b'/')
        .next()
        .unwrap_or_default()
}

fn read_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let is_sound = is_token(name)
        && value
            .iter()
            .all(|&byte| byte == b'\t' || !byte.is_ascii_control());
    is_sound.then_some((name, value))
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_token(word: &[u8]) -> bool {
    !word.is_empty()
        && word
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_printable(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(head: &[u8]) -> Result<String, Option<Reason>> {
        let head = Head::parse(head).map_err(|NotHttp| None)?;
        head.wanted()
            .map(|wanted| wanted.destination().to_string())
            .map_err(Some)
    }

    #[test]
    fn a_request_says_where_it_goes_in_its_target_only() {
        for (line, destination) in [
            ("CONNECT Static.example.org:443", "static.example.org:443"),
            (
                "GET http://static.example.org/a:1@b?c",
                "static.example.org:80",
            ),
            (
                "GET HTTP://static.example.org:8080",
                "static.example.org:8080",
            ),
            ("POST http://[2001:db8::1]:8080/", "[2001:db8::1]:8080"),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: evil.test\r\n\r\n");
            assert_eq!(
                wanted(head.as_bytes()),
                Ok(destination.to_owned()),
                "{line}"
            );
        }
        for (line, reason) in [
            ("CONNECT static.example.org", Reason::Malformed),
            ("CONNECT http://static.example.org:443", Reason::Malformed),
            ("CONNECT static.example.org:443/", Reason::Malformed),
            (
                "CONNECT evil.test@static.example.org:443",
                Reason::Malformed,
            ),
            (
                "GET http://evil.test@static.example.org/",
                Reason::Malformed,
            ),
            ("GET http://static.example.org:/", Reason::Malformed),
            (
                "GET http://static.example.org\\@evil.test/",
                Reason::Malformed,
            ),
            ("GET http://2130706433/", Reason::Malformed),
            ("GET http:///", Reason::Malformed),
            ("GET /", Reason::Unsupported),
            ("OPTIONS *", Reason::Unsupported),
            ("connect static.example.org:443", Reason::Unsupported),
            ("GET https://static.example.org/", Reason::Unsupported),
            ("GET ftp://static.example.org/", Reason::Unsupported),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: static.example.org\r\n\r\n");
            assert_eq!(wanted(head.as_bytes()), Err(Some(reason)), "{line}");
        }
    }

    #[test]
    fn a_head_that_two_programs_could_read_differently_is_refused() {
        const TARGET: &str = "GET http://static.example.org/ HTTP/1.1\r\n";
        for headers in [
            "Host: static.example.org\r\nHost: static.example.org",
            "Host: static.example.org\r\nhOsT: evil.test",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding : chunked",
            " Transfer-Encoding: chunked",
            "Accept: a\r\n b",
            "Accept",
            ": a",
            "Acc\u{e9}pt: a",
            "Accept: \u{1}",
        ] {
            let head = format!("{TARGET}{headers}\r\n\r\n");
            assert_eq!(wanted(head.as_bytes()), Err(None), "{headers}");
        }
        for line in [
            "GET  http://static.example.org/ HTTP/1.1",
            "GET http://static.example.org/ HTTP/1.1 ",
            "GET http://static.example.org/ HTTP/2.0",
            "GET http://static.example.org/ http/1.1",
            "GET http://static.example.org/",
            "GET\thttp://static.example.org/ HTTP/1.1",
            "GET http://b\u{fc}cher.example/ HTTP/1.1",
            "CONNECT static.example.org:443 evil.test:443 HTTP/1.1",
            "",
        ] {
            assert_eq!(
                wanted(format!("{line}\r\n\r\n").as_bytes()),
                Err(None),
                "{line}"
            );
        }
        let many = format!("{TARGET}{}\r\n", "A: b\r\n".repeat(101));
        assert_eq!(wanted(many.as_bytes()), Err(None));
        assert_eq!(
            wanted(b"CONNECT a.example:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(Some(Reason::Malformed))
        );
    }

    #[test]
    fn a_head_ends_at_the_first_empty_line_and_has_no_other_line_ends() {
        assert_eq!(
            length(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest\n\0"),
            Ok(Some(24))
        );
        for unfinished in [
            &b""[..],
            b"GET",
            b"GET / HTTP/1.1\r",
            b"GET / HTTP/1.1\r\n\r",
        ] {
            assert_eq!(length(unfinished), Ok(None));
        }
        for broken in [
            &b"\n"[..],
            b"GET / HTTP/1.1\n\n",
            b"GET / HTTP/1.1\rA: b\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\n\r\n",
            b"\x16\x03\x01\x00\xc4",
        ] {
            assert_eq!(length(broken), Err(NotHttp), "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn a_head_that_is_not_understood_still_names_its_host() {
        for (received, host) in [
            (
                &b"CONNECT evil.test\0.example.org:443 HTTP/1.1\r\n"[..],
                &b"evil.test\0.example.org:443"[..],
            ),
            (b"GET http://evil.test/a HTTP/1.1\n", b"evil.test"),
            (b"GET", b""),
            (b"\x16\x03\x01\0 secret", b""),
            (b"", b""),
        ] {
            assert_eq!(authority(target(received)), host);
        }
    }
}
