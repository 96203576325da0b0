//! Ends of actions that the registry has not yet heard of, kept on disk in order until it has.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{EndReport, heads::write_durably};

/// More than any report has.
const LARGEST_REPORT_BYTES: u64 = 4 * 1024 * 1024;

/// The folder of undelivered ends.
pub(super) struct Spool {
    folder: PathBuf,
    /// Undelivered reports, oldest first; absent until the folder was read.
    waiting: Option<VecDeque<Waiting>>,
}

#[derive(Debug, Clone)]
struct Waiting {
    number: u64,
    path: PathBuf,
    report: EndReport,
}

impl Spool {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("undelivered-ends"),
            waiting: None,
        }
    }

    /// The oldest report that has to be delivered.
    pub(super) fn oldest(&mut self) -> io::Result<Option<EndReport>> {
        Ok(self
            .waiting()?
            .front()
            .map(|waiting| waiting.report.clone()))
    }

    /// The actions whose end has to be delivered.
    pub(super) fn actions(&mut self) -> io::Result<Vec<String>> {
        Ok(self
            .waiting()?
            .iter()
            .map(|waiting| waiting.report.action_id.clone())
            .collect())
    }

    /// Keeps a report; when this returns it is on the disk.
    pub(super) fn keep(&mut self, report: EndReport) -> io::Result<()> {
        let number = self.waiting()?.back().map_or(1, |last| last.number + 1);
        let path = self
            .folder
            .join(format!("{number:012}-{}.json", fresh_suffix()?));
        write_durably(&path, &serde_json::to_vec(&report)?)?;
        self.waiting()?.push_back(Waiting {
            number,
            path,
            report,
        });
        Ok(())
    }

    /// Removes the oldest report: it was delivered.
    pub(super) fn delivered(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting()?.pop_front() else {
            return Ok(());
        };
        // Should the removal be lost in a crash, the registry is told once more what it knows.
        ignore_missing(fs::remove_file(&oldest.path))
    }

    /// Sets the oldest report aside, which the registry does not take.
    pub(super) fn not_taken(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting()?.pop_front() else {
            return Ok(());
        };
        ignore_missing(fs::rename(
            &oldest.path,
            oldest.path.with_extension("not-taken"),
        ))
    }

    fn waiting(&mut self) -> io::Result<&mut VecDeque<Waiting>> {
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => read_folder(&self.folder)?,
        };
        Ok(self.waiting.insert(waiting))
    }
}

fn read_folder(folder: &Path) -> io::Result<VecDeque<Waiting>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(error),
    };
    let mut waiting = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_report(&path) {
            Ok((number, report)) => waiting.push(Waiting {
                number,
                path,
                report,
            }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an undelivered end cannot be read");
            }
        }
    }
    waiting.sort_by(|one, other| (one.number, &one.path).cmp(&(other.number, &other.path)));
    Ok(waiting.into())
}

fn read_report(path: &Path) -> io::Result<(u64, EndReport)> {
    let number = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('-')?.0.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST_REPORT_BYTES)
        .read_to_end(&mut bytes)?;
    Ok((number, serde_json::from_slice(&bytes)?))
}

/// Two processes that share a state directory must not write one file.
fn fresh_suffix() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(crate::digest::hex(&random))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
