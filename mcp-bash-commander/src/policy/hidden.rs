//! Files of the workspace that nobody may read: patterns such as `**/.env`, for tools and for commands.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most patterns.
const MOST: usize = 100;

/// Patterns of paths below the workspace, in the syntax of `.gitignore`: one without a slash fits at any depth.
#[derive(Debug, Clone)]
pub struct Hidden {
    patterns: Vec<String>,
    matcher: Gitignore,
}

impl Hidden {
    /// The patterns, checked.
    ///
    /// # Errors
    /// A pattern that is none; it is named.
    pub fn new(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.len() > MOST {
            return Err(format!(
                "{} patterns; at most {MOST} are taken",
                patterns.len()
            ));
        }
        let mut builder = GitignoreBuilder::new("");
        for pattern in &patterns {
            let count = |wanted| pattern.matches(wanted).count();
            let is_plain = count('[') == count(']')
                && count('{') == count('}')
                && !pattern.is_empty()
                && !pattern.starts_with(['!', '#'])
                && pattern.trim() == pattern;
            let added = builder.add_line(None, pattern);
            if !is_plain || added.is_err() {
                return Err(format!(
                    "`{pattern}` is no pattern; write for instance `**/.env`, `*.pem` or `secrets/`"
                ));
            }
        }
        let matcher = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { patterns, matcher })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path, relative to the workspace, or a folder above it fits one of the patterns.
    pub fn covers(&self, path: &Path) -> bool {
        if self.is_empty() || path.as_os_str().is_empty() || path.is_absolute() {
            return false;
        }
        // Whether it is a folder is unknown or could change: what fits either is hidden.
        [false, true].into_iter().any(|is_folder| {
            self.matcher
                .matched_path_or_any_parents(path, is_folder)
                .is_ignore()
        })
    }
}

impl Default for Hidden {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            matcher: Gitignore::empty(),
        }
    }
}

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Hidden {}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_hides_at_its_depth_and_everything_below_a_folder() -> Result<(), String> {
        let hidden = Hidden::new(vec![
            "**/.env".to_owned(),
            "*.pem".to_owned(),
            "secrets/".to_owned(),
            "/top.txt".to_owned(),
        ])?;
        for path in [
            ".env",
            "a/b/.env",
            "key.pem",
            "deep/er/key.pem",
            "secrets",
            "a/secrets/x/y",
            "top.txt",
        ] {
            assert!(hidden.covers(Path::new(path)), "{path}");
        }
        for path in ["env", ".environment", "a/top.txt", "pem", "a/b.pem.txt", ""] {
            assert!(!hidden.covers(Path::new(path)), "{path}");
        }
        Ok(())
    }

    #[test]
    fn a_pattern_that_hides_nothing_or_the_opposite_is_refused() {
        for wrong in ["", "!x", "# comment", " x", "a[", "a{"] {
            let hidden = Hidden::new(vec![wrong.to_owned()]);
            assert!(hidden.is_err(), "{wrong}");
        }
    }
}
