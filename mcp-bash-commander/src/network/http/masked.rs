//! An answer in which a secret does not stand, whatever the host says it was sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::super::secrets::SecretValue;

/// What stands in the place of each byte of a secret, so that lengths stay true.
const MASK: u8 = b'*';

/// Finds one secret.
#[derive(Clone)]
pub(super) struct Mask {
    secret: String,
    pattern: Regex,
}

impl Mask {
    /// # Errors
    /// None in practice: the pattern is a plain text.
    pub(super) fn of(value: &SecretValue) -> Result<Self, regex::Error> {
        let secret = value.expose().to_owned();
        Ok(Self {
            pattern: Regex::new(&regex::escape(&secret))?,
            secret,
        })
    }

    /// Masks it in the values of headers; a header whose name holds it goes.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        let lower_case = self.secret.to_ascii_lowercase();
        let named: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().contains(&lower_case))
            .cloned()
            .collect();
        for name in named {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            if self.pattern.is_match(value.as_bytes()) {
                let mut masked = value.as_bytes().to_vec();
                self.cover(&mut masked);
                *value = HeaderValue::from_bytes(&masked)
                    .unwrap_or_else(|_| HeaderValue::from_static("*"));
            }
        }
    }

    fn cover(&self, bytes: &mut [u8]) {
        let found: Vec<_> = self
            .pattern
            .find_iter(bytes)
            .map(|found| found.range())
            .collect();
        for range in found {
            bytes[range].fill(MASK);
        }
    }

    /// Takes from `held` all but the last bytes, one fewer than the secret has: they may be its beginning. As many stay whatever they are,
    /// or the lengths of the pieces would tell a reader what the secret begins with.
    fn release(&self, held: &mut Vec<u8>) -> Bytes {
        self.cover(held);
        let kept = held.len().min(self.secret.len() - 1);
        let rest = held.split_off(held.len() - kept);
        std::mem::replace(held, rest).into()
    }
}

/// A body; with a mask, one in which the secret does not stand.
pub(super) struct Masked<B> {
    body: B,
    mask: Option<Mask>,
    /// What may be the beginning of the secret.
    held: Vec<u8>,
    /// What follows the last of `held`.
    trailers: Option<HeaderMap>,
}

impl<B> Masked<B> {
    pub(super) fn new(body: B, mask: Option<Mask>) -> Self {
        Self {
            body,
            mask,
            held: Vec::new(),
            trailers: None,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Masked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(mask) = &this.mask else {
            return Pin::new(&mut this.body).poll_frame(context);
        };
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)?) else {
                let last = std::mem::take(&mut this.held);
                return Poll::Ready((!last.is_empty()).then(|| Ok(Frame::data(last.into()))));
            };
            match frame.into_data() {
                Ok(data) => {
                    this.held.extend_from_slice(&data);
                    let released = mask.release(&mut this.held);
                    if !released.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(released))));
                    }
                }
                Err(other) => {
                    if let Ok(mut trailers) = other.into_trailers() {
                        mask.headers(&mut trailers);
                        this.trailers = Some(trailers);
                    }
                    let last = std::mem::take(&mut this.held);
                    if !last.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(last.into()))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.trailers.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(of_body.lower().saturating_add(held));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;

    use super::*;

    const SECRET: &str = "abab-abac";

    fn mask() -> anyhow::Result<Mask> {
        Ok(Mask {
            secret: SECRET.to_owned(),
            pattern: Regex::new(&regex::escape(SECRET))?,
        })
    }

    struct Pieces(VecDeque<Frame<Bytes>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    #[tokio::test]
    async fn a_secret_is_found_however_the_answer_is_cut() -> anyhow::Result<()> {
        let text = format!("abab{SECRET}-{SECRET}{SECRET} abab-aba {SECRET}abab-");
        let expected = text.replace(SECRET, "*********");
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let pieces = pieces.map(|piece| Frame::data(Bytes::from(piece.to_owned())));
                let body = Masked::new(Pieces(pieces.into()), Some(mask()?));
                let masked = body.collect().await?.to_bytes();
                assert_eq!(masked, expected.as_bytes(), "{first} {second}");
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_is_behind_the_body_is_masked_too_and_comes_last() -> anyhow::Result<()> {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-echo", HeaderValue::from_str(&format!("is {SECRET}!"))?);
        trailers.insert(
            HeaderName::from_static("x-abab-abac"),
            HeaderValue::from_static("1"),
        );
        let pieces = [
            Frame::data(Bytes::from("x abab-")),
            Frame::trailers(trailers),
        ];
        let body = Masked::new(Pieces(pieces.into()), Some(mask()?));
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        assert_eq!(
            trailers.get("x-echo").map(HeaderValue::as_bytes),
            Some(&b"is *********!"[..])
        );
        assert_eq!(trailers.len(), 1);
        assert_eq!(collected.to_bytes(), "x abab-");
        Ok(())
    }

    /// Else a reader could ask by the lengths of the pieces what the secret begins with, one character after the other.
    #[test]
    fn as_much_is_held_back_whatever_it_is() -> anyhow::Result<()> {
        let mask = mask()?;
        let most = mask.secret.len() - 1;
        for bytes in [
            "a",
            "x",
            "hello abab",
            "hello xxxx",
            "abab-abac",
            "abab-abax",
        ] {
            let mut held = bytes.as_bytes().to_vec();
            mask.release(&mut held);
            assert_eq!(held.len(), bytes.len().min(most), "{bytes}");
        }
        Ok(())
    }
}
