//! Outcome specifications: found, read, proposed by agents, added by humans.

use serde_json::json;
use shared::digest::Digest;

use super::{AddedSpecification, Registry, RegistryError, effects::draft, texts};
use crate::{
    run::Run,
    specification::{
        Criterion, Difference, Specification, SpecificationError, Version, search_text,
    },
    store::{
        Change, Expectation, SpecificationHit, SpecificationRow, SpecificationStatus, StoreError,
        Write,
    },
};

/// A specification found by its words.
#[derive(Debug, Clone)]
pub struct FoundSpecification {
    /// The version.
    pub row: SpecificationRow,
    /// Relevance, larger is better.
    pub score: f64,
    /// Words of the query that the text has.
    pub matched: Vec<String>,
}

/// One page of a search.
#[derive(Debug, Clone)]
pub struct FoundSpecifications {
    /// Best first.
    pub results: Vec<FoundSpecification>,
    /// Whether there are more.
    pub more: bool,
}

/// A stored version with what was read from it.
#[derive(Debug, Clone)]
pub struct StoredSpecification {
    /// As stored.
    pub row: SpecificationRow,
    /// As read.
    pub specification: Specification,
    /// All its versions, oldest first, with where they stand.
    pub versions: Vec<(String, SpecificationStatus)>,
}

impl Registry {
    /// Specifications whose text has any of the words of the query, best first; all of them for an empty query.
    ///
    /// # Errors
    /// A failing store.
    pub fn spec_search(
        &self,
        query: &str,
        limit: u32,
        offset: u32,
    ) -> Result<FoundSpecifications, RegistryError> {
        let words = query_words(query);
        if words.is_empty() && !query.trim().is_empty() {
            return Ok(FoundSpecifications {
                results: Vec::new(),
                more: false,
            });
        }
        let mut hits = self
            .0
            .store
            .search_specifications(&words, limit + 1, offset)?;
        let more = hits.len() > limit as usize;
        hits.truncate(limit as usize);
        let found = |hit: SpecificationHit| {
            let text = hit.specification.search_text.to_lowercase();
            let matched = words
                .iter()
                .filter(|word| text.contains(word.as_str()))
                .cloned()
                .collect();
            FoundSpecification {
                row: hit.specification,
                score: hit.score,
                matched,
            }
        };
        Ok(FoundSpecifications {
            results: hits.into_iter().map(found).collect(),
            more,
        })
    }

    /// A specification by id and version (the active one, or else the newest, when none is given), or by digest.
    ///
    /// # Errors
    /// `SPEC_NOT_FOUND`.
    pub fn spec_get(
        &self,
        spec_id: &str,
        version: Option<&str>,
    ) -> Result<StoredSpecification, RegistryError> {
        let versions = self.0.store.specification_versions(spec_id)?;
        let row = match version {
            Some(version) => versions.iter().find(|row| row.version == version),
            None => versions
                .iter()
                .find(|row| row.status == SpecificationStatus::Active)
                .or_else(|| versions.last()),
        };
        let row = row
            .cloned()
            .ok_or_else(|| spec_not_found(spec_id, version))?;
        let specification = read(&row)?;
        let versions = versions
            .into_iter()
            .map(|row| (row.version, row.status))
            .collect();
        Ok(StoredSpecification {
            row,
            specification,
            versions,
        })
    }

    /// The version a run can be about: the active one, or a proposed one that is named or the only one.
    pub(super) fn specification_row(
        &self,
        spec_id: &str,
        version: Option<&str>,
    ) -> Result<SpecificationRow, RegistryError> {
        let row = self.spec_get(spec_id, version)?.row;
        if row.status == SpecificationStatus::Superseded {
            return Err(RegistryError::new(
                "SPEC_NOT_ACTIVE",
                format!("{spec_id} {} is superseded", row.version),
                "leave the version out to take the active one",
            ));
        }
        Ok(row)
    }

    /// The specification with this digest, read from its verbatim text.
    pub(super) fn specification(&self, digest: &Digest) -> Result<Specification, RegistryError> {
        read(&self.stored_specification(digest)?)
    }

    pub(super) fn stored_specification(
        &self,
        digest: &Digest,
    ) -> Result<SpecificationRow, RegistryError> {
        let row = self.0.store.specification(digest)?;
        row.ok_or_else(|| super::unproven("specification", digest.as_str()))
    }

    /// The run's specification is still the one in force: active, and no other version took its place.
    pub(super) fn check_specification_in_force(&self, run: &Run) -> Result<(), RegistryError> {
        let row = self.stored_specification(&run.spec_digest)?;
        if row.status == SpecificationStatus::Active {
            return Ok(());
        }
        Err(RegistryError::new(
            "SPEC_CHANGED",
            format!("{} {} is no longer in force", run.spec_id, run.spec_version),
            "have a human cancel this run and request a new one for the active version",
        ))
    }

    /// An agent's proposal. It is stored, and becomes active only when a human approves a plan for it.
    ///
    /// # Errors
    /// `SPEC_INVALID`, `VERSION_EXISTS`, `VERSION_NOT_LATER`, `BASE_MISMATCH`.
    pub fn spec_propose(
        &self,
        agent: &str,
        text: &str,
        spec_id: Option<&str>,
        base_digest: Option<&Digest>,
        reason: &str,
    ) -> Result<StoredSpecification, RegistryError> {
        texts::check("reason", reason, texts::SHORT)?;
        let specification = parse(text.as_bytes(), spec_id)?;
        let id = specification.spec_id.as_str();
        let versions = self.0.store.specification_versions(id)?;
        let newest = versions.last();
        if let Some(newest) = newest.filter(|newest| base_digest != Some(&newest.digest)) {
            let base = versions.iter().find(|row| Some(&row.digest) == base_digest);
            let meanwhile = match base {
                Some(base) => since(&read(base)?, &read(newest)?, &specification),
                None => String::new(),
            };
            return Err(RegistryError::new(
                "BASE_MISMATCH",
                format!(
                    "the newest version of {id} is {} with digest {}{meanwhile}",
                    newest.version, newest.digest
                ),
                "read it with spec_get, make your change to it, and give its digest as base_digest",
            ));
        }
        let actor = format!("agent:{agent}");
        self.insert_specification(
            &specification,
            &versions,
            SpecificationStatus::Proposed,
            &actor,
            Some(reason),
        )?;
        self.spec_get(id, Some(specification.version.as_str()))
    }

    /// A human adds a specification; it is active at once.
    ///
    /// # Errors
    /// `SPEC_INVALID`, `VERSION_EXISTS`, `VERSION_NOT_LATER`.
    pub fn add_specification(
        &self,
        text: &[u8],
        spec_id: Option<&str>,
        by: &str,
    ) -> Result<AddedSpecification, RegistryError> {
        let specification = parse(text, spec_id)?;
        let versions = self
            .0
            .store
            .specification_versions(specification.spec_id.as_str())?;
        let added = AddedSpecification {
            spec_id: specification.spec_id.as_str().to_owned(),
            version: specification.version.as_str().to_owned(),
            digest: specification.digest.clone(),
            criteria: count(specification.criteria.len()),
            measurable: count(
                specification
                    .criteria
                    .iter()
                    .filter(|criterion| criterion.measure.is_some())
                    .count(),
            ),
            constraints: count(specification.constraints.len()),
        };
        if versions
            .iter()
            .any(|row| row.digest == added.digest && row.status == SpecificationStatus::Active)
        {
            return Ok(added);
        }
        // What an agent proposed word for word, a human may take over.
        if versions
            .iter()
            .any(|row| row.digest == added.digest && row.status == SpecificationStatus::Proposed)
        {
            self.commit(&Change {
                writes: vec![Write::ActivateSpecification(added.digest.clone())],
                audit: vec![draft(
                    by,
                    "specification.activated",
                    &added.spec_id,
                    json!({ "version": added.version, "digest": added.digest }),
                )],
                ..Change::default()
            })?;
            return Ok(added);
        }
        self.insert_specification(
            &specification,
            &versions,
            SpecificationStatus::Active,
            by,
            None,
        )?;
        Ok(added)
    }

    /// Whether a version that was added after this one is in force: then this one would bring back what a human replaced.
    pub(super) fn is_overtaken(&self, row: &SpecificationRow) -> Result<bool, RegistryError> {
        let versions = self.0.store.specification_versions(&row.spec_id)?;
        let later = versions
            .iter()
            .skip_while(|version| version.digest != row.digest)
            .skip(1);
        Ok(later
            .into_iter()
            .any(|version| version.status == SpecificationStatus::Active))
    }

    fn insert_specification(
        &self,
        specification: &Specification,
        versions: &[SpecificationRow],
        status: SpecificationStatus,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<(), RegistryError> {
        let spec_id = specification.spec_id.as_str();
        let version = specification.version.as_str();
        if let Some(same) = versions.iter().find(|row| row.version == version) {
            let what = if same.digest == specification.digest {
                "already"
            } else {
                "with another text"
            };
            return Err(RegistryError::new(
                "VERSION_EXISTS",
                format!("{spec_id} {version} is stored {what}; versions never change"),
                "give the changed text a new version",
            ));
        }
        check_later(specification, versions)?;
        let row = SpecificationRow {
            spec_id: spec_id.to_owned(),
            version: version.to_owned(),
            digest: specification.digest.clone(),
            verbatim: specification.text().to_owned(),
            search_text: search_text(specification),
            title: specification.title().to_owned(),
            // Inserted as proposed; activating is a write of its own that supersedes the one before.
            status: SpecificationStatus::Proposed,
            added_by: actor.to_owned(),
            reason: reason.map(str::to_owned),
            added_at: self.now(),
        };
        let payload =
            json!({ "version": version, "digest": row.digest, "status": status, "reason": reason });
        let digest = row.digest.clone();
        let mut change = Change {
            expect: vec![Expectation::VersionCount {
                spec_id: spec_id.to_owned(),
                count: count(versions.len()),
            }],
            writes: vec![Write::InsertSpecification(row)],
            audit: vec![draft(actor, "specification.added", spec_id, payload)],
            sign_head: false,
        };
        if status == SpecificationStatus::Active {
            change.writes.push(Write::ActivateSpecification(digest));
        }
        match self.commit(&change) {
            Err(StoreError::Conflict(_)) => Err(RegistryError::new(
                "BASE_MISMATCH",
                format!("another version of {spec_id} was added at the same moment"),
                "read the newest version and decide anew",
            )),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// What comes into force last must have the highest number, or the numbers would say the wrong thing.
fn check_later(
    specification: &Specification,
    versions: &[SpecificationRow],
) -> Result<(), RegistryError> {
    let was_in_force = versions
        .iter()
        .filter(|row| row.status != SpecificationStatus::Proposed);
    for row in was_in_force {
        let Ok(earlier) = row.version.parse::<Version>() else {
            continue;
        };
        if specification.version.compare(&earlier).is_le() {
            return Err(RegistryError::new(
                "VERSION_NOT_LATER",
                format!(
                    "{} {} is or was in force, and {} does not come after it",
                    row.spec_id,
                    row.version,
                    specification.version.as_str()
                ),
                format!("give the text a version after {}", row.version),
            ));
        }
    }
    Ok(())
}

/// What happened to the base of a proposal meanwhile, what the proposal does to it, and where the two meet.
fn since(base: &Specification, newest: &Specification, proposed: &Specification) -> String {
    let theirs = Difference::between(base, newest);
    let yours = Difference::between(base, proposed);
    let both = theirs.conflicts_with(&yours);
    let both = if both.is_empty() {
        "no criterion is changed by both".to_owned()
    } else {
        format!("both change {}", both.join(", "))
    };
    format!(
        "; since your base {}: it {theirs}; yours {yours}; {both}",
        base.version.as_str()
    )
}

/// Everything a plan has to map: criteria, then constraints.
pub(crate) fn criteria_of(specification: &Specification) -> Vec<&Criterion> {
    specification
        .criteria
        .iter()
        .chain(&specification.constraints)
        .collect()
}

fn read(row: &SpecificationRow) -> Result<Specification, RegistryError> {
    let specification = parse(row.verbatim.as_bytes(), Some(&row.spec_id))?;
    if specification.digest == row.digest {
        Ok(specification)
    } else {
        Err(super::unproven("specification", row.digest.as_str()))
    }
}

fn parse(text: &[u8], spec_id: Option<&str>) -> Result<Specification, RegistryError> {
    Specification::parse(text, spec_id).map_err(|error| invalid(&error))
}

fn invalid(error: &SpecificationError) -> RegistryError {
    RegistryError::new("SPEC_INVALID", error.to_string(), error.hint())
}

fn spec_not_found(spec_id: &str, version: Option<&str>) -> RegistryError {
    let spec_id = shared::visible::machine(spec_id, false);
    let version = version.map_or_else(String::new, |version| {
        format!(" {}", shared::visible::machine(version, false))
    });
    RegistryError::new(
        "SPEC_NOT_FOUND",
        format!("there is no specification `{spec_id}`{version}"),
        "find one with spec_search, or ask a human to add it with `mcp-spec-registry spec add FILE`",
    )
}

/// Words of letters and digits, lower-case, each once, at most 32.
fn query_words(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(|character: char| !character.is_alphanumeric()) {
        let word = word.to_lowercase();
        if !word.is_empty() && word.len() <= 64 && !words.contains(&word) && words.len() < 32 {
            words.push(word);
        }
    }
    words
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
