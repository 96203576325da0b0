//! Numbers, bytes and lists of them as the processes of a jail send them to each other.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::JailError;

/// A signed number in the place of an unsigned one; [`Reader::signed`] undoes it.
pub(super) fn signed(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

/// Bytes under construction.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.number(*number);
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub(super) fn text(&mut self, text: &OsStr, what: &str) -> Result<(), JailError> {
        if text.as_bytes().contains(&0) {
            return Err(JailError::Request(format!("{what} contains a NUL byte")));
        }
        self.bytes(text.as_bytes());
        Ok(())
    }

    pub(super) fn path(&mut self, path: &Path) -> Result<(), JailError> {
        self.text(path.as_os_str(), "a path")
    }

    pub(super) fn list<T>(
        &mut self,
        items: &[T],
        mut each: impl FnMut(&mut Self, &T) -> Result<(), JailError>,
    ) -> Result<(), JailError> {
        self.number(items.len() as u64);
        items.iter().try_for_each(|item| each(self, item))
    }
}

/// Reads what a [`Writer`] wrote; `None` wherever something else stands there.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    pub(super) fn signed(&mut self) -> Option<i32> {
        Some(self.small()?.cast_signed())
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<CString> {
        CString::new(self.bytes()?).ok()
    }

    pub(super) fn path(&mut self) -> Option<PathBuf> {
        Some(OsString::from_vec(self.bytes()?.to_vec()).into())
    }

    pub(super) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok()?;
        if length > self.0.len() {
            return None;
        }
        (0..length).map(|_| each(self)).collect()
    }
}
