//! The highest audit head that the registry has shown, kept so that an older audit is noticed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::super::protocol::{Refusal, SignedHead};

/// What the registry's audit was last known to be.
pub(super) struct Heads {
    key: VerifyingKey,
    path: PathBuf,
    kept: Option<Kept>,
    /// Which slot of the file `kept` is in.
    slot: u64,
    is_loaded: bool,
    /// Syncs whose end was not looked at yet; until then the slot of the newest write may be torn.
    syncing: Vec<JoinHandle<io::Result<()>>>,
}

/// The file has two slots of this many bytes. A write goes to the slot that is not the last synced one, so a write that a power cut
/// tears leaves the other slot whole.
///
/// The bytes are written before a head counts as accepted, which a crash of the process cannot undo; that the disk has them for
/// good is waited for before the outcome of an action is told ([`Heads::synced`]), and takes its time while the action does.
const SLOT: usize = 4096;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The highest head seen.
    head: SignedHead,
    /// What the registry showed that contradicts it; from then on only an operator can restore trust.
    contradiction: Option<String>,
}

impl Heads {
    pub(super) fn new(key: VerifyingKey, state_dir: &Path) -> Self {
        Self {
            key,
            path: state_dir.join("audit-head.json"),
            kept: None,
            slot: 0,
            is_loaded: false,
            syncing: Vec::new(),
        }
    }

    /// Waits until the disk has the newest head.
    ///
    /// # Errors
    /// It does not take it.
    pub(super) async fn synced(&mut self) -> Result<(), Refusal> {
        for syncing in std::mem::take(&mut self.syncing) {
            let synced = syncing.await.map_err(io::Error::other).flatten();
            synced.map_err(|error| self.not_kept(&error))?;
        }
        Ok(())
    }

    /// Takes note of the head in the answer to a hello, which a registry that ever signed one always gives.
    ///
    /// # Errors
    /// As [`Heads::accept`]; and no head where there was one.
    pub(super) fn accept_at_hello(&mut self, head: Option<&SignedHead>) -> Result<(), Refusal> {
        self.load()?;
        match (&self.kept, head) {
            (Some(kept), None) => Err(self.contradicted(kept.clone(), None)),
            (_, head) => self.accept(head),
        }
    }

    /// Judges a head and leaves the file alone, which belongs to a server that may be running.
    ///
    /// # Errors
    /// As [`Heads::accept_at_hello`].
    pub(super) fn look_at(&mut self, head: Option<&SignedHead>) -> Result<(), Refusal> {
        self.reload();
        self.load()?;
        if let Some(head) = head {
            self.check_signature(head)?;
        }
        match (&self.kept, head) {
            (Some(kept), head) if head.is_none_or(|head| is_older_or_other(head, &kept.head)) => {
                Err(self.rolled_back(&contradiction(kept, head)))
            }
            _ => Ok(()),
        }
    }

    /// Takes note of the head in an answer.
    ///
    /// # Errors
    /// A head that is not signed by the registry, older than one already seen, or a different one with the same number.
    pub(super) fn accept(&mut self, head: Option<&SignedHead>) -> Result<(), Refusal> {
        self.load()?;
        let Some(head) = head else {
            return Ok(());
        };
        if self.kept.as_ref().is_some_and(|kept| kept.head == *head) {
            return Ok(());
        }
        self.check_signature(head)?;
        let contradicts = |kept: &Kept| is_older_or_other(head, &kept.head);
        if let Some(kept) = self.kept.clone().filter(contradicts) {
            return Err(self.contradicted(kept, Some(head)));
        }
        let kept = Kept {
            head: head.clone(),
            contradiction: None,
        };
        self.keep(&kept)?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Forgets what was read, so that a file an operator removed counts as removed.
    pub(super) fn reload(&mut self) {
        self.is_loaded = false;
        self.kept = None;
    }

    fn load(&mut self) -> Result<(), Refusal> {
        if !self.is_loaded {
            self.kept = match fs::read(&self.path) {
                Ok(bytes) => match newest(&bytes) {
                    Some((slot, kept)) => {
                        self.slot = slot;
                        Some(kept)
                    }
                    None => {
                        return Err(self.rolled_back(
                            "cannot be checked: the file that has its head is damaged",
                        ));
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(self.not_kept(&error)),
            };
            self.is_loaded = true;
        }
        match self
            .kept
            .as_ref()
            .and_then(|kept| kept.contradiction.as_ref())
        {
            Some(contradiction) => Err(self.rolled_back(contradiction)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, kept: &Kept) -> Result<(), Refusal> {
        // Until the newest slot is synced the other one is the only one that is surely whole.
        let slot = if self.syncing.iter().all(JoinHandle::is_finished) {
            for syncing in std::mem::take(&mut self.syncing) {
                let synced = syncing.now_or_never().unwrap_or(Ok(Ok(())));
                let synced = synced.map_err(io::Error::other).flatten();
                synced.map_err(|error| self.not_kept(&error))?;
            }
            1 - self.slot
        } else {
            self.slot
        };
        let written =
            in_slot(kept).and_then(|bytes| match File::options().write(true).open(&self.path) {
                Ok(file) => {
                    file.write_all_at(&bytes, slot * SLOT as u64)?;
                    Ok((slot, Some(file)))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    write_durably(&self.path, &bytes.repeat(2))?;
                    Ok((0, None))
                }
                Err(error) => Err(error),
            });
        let (slot, file) = written.map_err(|error| self.not_kept(&error))?;
        self.slot = slot;
        let Some(file) = file else { return Ok(()) };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let syncing = runtime.spawn_blocking(move || file.sync_data());
                self.syncing.push(syncing);
                Ok(())
            }
            Err(_) => file.sync_data().map_err(|error| self.not_kept(&error)),
        }
    }

    fn contradicted(&mut self, kept: Kept, shown: Option<&SignedHead>) -> Refusal {
        let contradiction = contradiction(&kept, shown);
        let kept = Kept {
            contradiction: Some(contradiction.clone()),
            ..kept
        };
        if let Err(refusal) = self.keep(&kept) {
            tracing::error!(%refusal, "a contradiction in the registry's audit is only kept in memory");
        }
        self.kept = Some(kept);
        self.rolled_back(&contradiction)
    }

    fn check_signature(&self, head: &SignedHead) -> Result<(), Refusal> {
        if self.is_genuine(head) {
            return Ok(());
        }
        Err(Refusal {
            code: "AUDIT_SIGNATURE_INVALID".to_owned(),
            message: "the registry's audit head is not signed with the key in the service credential".to_owned(),
            hint: "someone else may answer on the registry's socket; if the registry was set up anew, make a new service token".to_owned(),
        })
    }

    fn is_genuine(&self, head: &SignedHead) -> bool {
        let Some(signature) = STANDARD
            .decode(&head.signature)
            .ok()
            .and_then(|bytes| Signature::from_slice(&bytes).ok())
        else {
            return false;
        };
        let signed = SignedHead::signed_bytes(head.seq, &head.hash);
        self.key.verify_strict(&signed, &signature).is_ok()
    }

    fn rolled_back(&self, what: &str) -> Refusal {
        Refusal {
            code: "AUDIT_ROLLED_BACK".to_owned(),
            message: format!("the registry's audit {what}"),
            hint: format!(
                "nothing is changed until an operator has looked into it (mcp-spec-registry audit verify --against FILE) and removed `{}`",
                self.path.display()
            ),
        }
    }

    fn not_kept(&self, error: &io::Error) -> Refusal {
        Refusal {
            code: "AUDIT_HEAD_NOT_KEPT".to_owned(),
            message: format!(
                "failed to keep the audit head in `{}`: {error}",
                self.path.display()
            ),
            hint: "make room in, or mend, the state directory".to_owned(),
        }
    }
}

fn is_older_or_other(head: &SignedHead, kept: &SignedHead) -> bool {
    head.seq <= kept.seq && head != kept
}

fn contradiction(kept: &Kept, shown: Option<&SignedHead>) -> String {
    let name = |head: &SignedHead| format!("{} {}", head.seq, head.hash.short());
    let shown = shown.map_or_else(|| "none".to_owned(), name);
    format!(
        "had the head {} and now shows {shown}: its record was cut, or an older one was put back",
        name(&kept.head)
    )
}

/// The newest whole entry of the file, and the slot it is in. A contradiction outlasts every head.
fn newest(bytes: &[u8]) -> Option<(u64, Kept)> {
    (0..)
        .zip(bytes.chunks(SLOT).take(2))
        .filter_map(|(slot, bytes)| Some((slot, serde_json::from_slice::<Kept>(bytes).ok()?)))
        .max_by_key(|(_, kept)| (kept.contradiction.is_some(), kept.head.seq))
}

/// An entry as JSON, filled up with spaces.
fn in_slot(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(kept)?;
    if bytes.len() > SLOT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    bytes.resize(SLOT, b' ');
    Ok(bytes)
}

/// Replaces a file so that after a crash it is the old one or the new one, whole. Makes its folder where it is missing.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let create = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
    };
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            if let Some(parent) = folder.parent() {
                File::open(parent)?.sync_all()?;
            }
            create()?
        }
        created => created?,
    };
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use anyhow::Context as _;
    use ed25519_dalek::{Signer, SigningKey};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn head(seq: u64, entry: &str) -> SignedHead {
        let hash = Digest::of(entry);
        let signature = key().sign(&SignedHead::signed_bytes(seq, &hash));
        SignedHead {
            seq,
            hash,
            signature: STANDARD.encode(signature.to_bytes()),
        }
    }

    fn code(result: Result<(), Refusal>) -> String {
        result
            .err()
            .map_or_else(|| "accepted".to_owned(), |refusal| refusal.code)
    }

    #[test]
    fn an_older_or_forked_audit_is_refused_until_an_operator_removes_the_file() -> anyhow::Result<()>
    {
        for contradiction in [Some(head(4, "d")), Some(head(7, "x")), None] {
            let folder = tempfile::tempdir()?;
            let mut heads = Heads::new(key().verifying_key(), folder.path());
            assert_eq!(code(heads.accept_at_hello(None)), "accepted");
            for newer in [head(4, "d"), head(4, "d"), head(7, "g")] {
                assert_eq!(code(heads.accept_at_hello(Some(&newer))), "accepted");
            }
            assert_eq!(code(heads.accept(None)), "accepted");
            let mut next = Heads::new(key().verifying_key(), folder.path());
            assert_eq!(
                code(next.look_at(contradiction.as_ref())),
                "AUDIT_ROLLED_BACK"
            );
            assert_eq!(code(next.look_at(Some(&head(8, "h")))), "accepted");
            assert_eq!(
                code(next.accept_at_hello(contradiction.as_ref())),
                "AUDIT_ROLLED_BACK"
            );
            assert_eq!(code(next.accept(Some(&head(9, "i")))), "AUDIT_ROLLED_BACK");
            let mut after = Heads::new(key().verifying_key(), folder.path());
            assert_eq!(code(after.accept(Some(&head(9, "i")))), "AUDIT_ROLLED_BACK");
            fs::remove_file(folder.path().join("audit-head.json"))?;
            after.reload();
            assert_eq!(code(after.accept(Some(&head(4, "d")))), "accepted");
        }
        Ok(())
    }

    #[test]
    fn a_head_that_the_registry_did_not_sign_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut heads = Heads::new(key().verifying_key(), folder.path());
        let genuine = head(4, "d");
        for forged in [
            SignedHead {
                seq: 5,
                ..genuine.clone()
            },
            SignedHead {
                hash: Digest::of("e"),
                ..genuine.clone()
            },
            SignedHead {
                signature: "AAAA".to_owned(),
                ..genuine.clone()
            },
        ] {
            assert_eq!(code(heads.accept(Some(&forged))), "AUDIT_SIGNATURE_INVALID");
        }
        assert_eq!(code(heads.accept(Some(&genuine))), "accepted");
        Ok(())
    }

    #[tokio::test]
    async fn heads_that_come_faster_than_the_disk_leave_the_synced_one_alone() -> anyhow::Result<()>
    {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("audit-head.json");
        let mut heads = Heads::new(key().verifying_key(), folder.path());
        heads.accept(Some(&head(1, "a")))?;
        heads.accept(Some(&head(2, "b")))?;
        heads.synced().await?;
        let synced = heads.slot;
        // None of these is waited for, so all but the first of them have one slot to share.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let never = tokio::task::spawn_blocking(move || stopped.recv().map_err(io::Error::other));
        heads.accept(Some(&head(3, "c")))?;
        heads.syncing.push(never);
        for seq in 4..8 {
            heads.accept(Some(&head(seq, "d")))?;
            assert_ne!(heads.slot, synced);
        }
        stop.send(())?;
        heads.synced().await?;
        let (_, newest) = newest(&fs::read(path)?).context("no head")?;
        assert_eq!(newest.head.seq, 7);
        Ok(())
    }

    #[test]
    fn a_torn_write_leaves_the_head_before_it() -> anyhow::Result<()> {
        for torn in [0, 1] {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("audit-head.json");
            let mut heads = Heads::new(key().verifying_key(), folder.path());
            let newest = 5 + torn;
            for seq in 4..=newest {
                assert_eq!(code(heads.accept(Some(&head(seq, "d")))), "accepted");
            }
            let mut bytes = fs::read(&path)?;
            let slot = usize::try_from(heads.slot)? * SLOT;
            bytes[slot + 10..slot + SLOT].fill(0);
            fs::write(&path, bytes)?;
            let mut next = Heads::new(key().verifying_key(), folder.path());
            assert_eq!(code(next.accept(Some(&head(newest, "d")))), "accepted");
            let mut next = Heads::new(key().verifying_key(), folder.path());
            assert_eq!(
                code(next.accept(Some(&head(newest - 1, "x")))),
                "AUDIT_ROLLED_BACK"
            );
        }
        Ok(())
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_trust_any_head() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("audit-head.json"), "")?;
        let mut heads = Heads::new(key().verifying_key(), folder.path());
        assert_eq!(code(heads.accept(Some(&head(4, "d")))), "AUDIT_ROLLED_BACK");
        Ok(())
    }
}
