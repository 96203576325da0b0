//! Whether what a specification builds on is there, without running in a circle.

use std::collections::HashSet;

use super::Specification;

/// How another specification stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody knows it.
    Missing,
    /// It was withdrawn.
    Withdrawn,
    /// It is active and depends on these.
    Active(Vec<String>),
}

/// Why a dependency does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnmetDependency {
    /// Nobody knows it.
    #[error("{0} is not there")]
    Missing(String),
    /// It was withdrawn.
    #[error("{0} is withdrawn")]
    Withdrawn(String),
    /// It leads back to the specification itself.
    #[error("{spec_id} depends on itself{}", by_way_of(.through))]
    Circle {
        /// The specification.
        spec_id: String,
        /// What stands between, in order; empty where it names itself.
        through: Vec<String>,
    },
}

fn by_way_of(through: &[String]) -> String {
    if through.is_empty() {
        String::new()
    } else {
        format!(" by way of {}", through.join(", "))
    }
}

/// The dependencies of a specification that do not hold, in the order written; each other specification is looked up once.
pub fn unmet_dependencies(
    specification: &Specification,
    standing: impl Fn(&str) -> Standing,
) -> Vec<UnmetDependency> {
    let own = specification.spec_id.as_str();
    let mut unmet = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    for dependency in &specification.dependencies {
        let mut open = vec![(dependency.spec_id.clone(), Vec::new())];
        while let Some((spec_id, through)) = open.pop() {
            if spec_id == own {
                unmet.push(UnmetDependency::Circle { spec_id, through });
                continue;
            }
            if !seen.insert(spec_id.clone()) {
                continue;
            }
            match standing(&spec_id) {
                Standing::Missing => unmet.push(UnmetDependency::Missing(spec_id)),
                Standing::Withdrawn => unmet.push(UnmetDependency::Withdrawn(spec_id)),
                Standing::Active(needed) => {
                    let way: Vec<String> = through.into_iter().chain([spec_id]).collect();
                    open.extend(needed.into_iter().rev().map(|next| (next, way.clone())));
                }
            }
        }
    }
    unmet
}
