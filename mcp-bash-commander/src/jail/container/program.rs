//! This program as the init of a container, whatever the image holds: with its own loader and libraries beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::jail::JailError;
use crate::jail::contained::ARGUMENT;

/// Where they stand in the container.
const FOLDER: &str = "/.jail";

/// The files of the program, and how it is started with them.
pub(super) struct Program {
    /// Path on the host and place in the container.
    pub(super) files: Vec<(PathBuf, String)>,
    /// The command line of init.
    pub(super) command: Vec<String>,
}

impl Program {
    /// `program`, which loads what this process has loaded.
    pub(super) fn of(program: &Path) -> Result<Self, JailError> {
        let failed = || JailError::io("find this program's files");
        let program = fs::canonicalize(program).map_err(failed())?;
        let maps = fs::read_to_string("/proc/self/maps").map_err(failed())?;
        let place = format!("{FOLDER}/program");
        let mut files = vec![(program, place.clone())];
        let mut loader = None;
        for library in libraries(&maps) {
            let Some(name) = library.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let place = format!("{FOLDER}/lib/{name}");
            if name.starts_with("ld-") {
                loader = Some(place.clone());
            }
            files.push((library, place));
        }
        let mut command = match loader {
            Some(loader) => vec![loader, "--library-path".to_owned(), format!("{FOLDER}/lib")],
            // It was linked with all it needs.
            None => Vec::new(),
        };
        command.extend([place, ARGUMENT.to_owned()]);
        Ok(Self { files, command })
    }
}

/// The shared libraries among what a process has mapped, the loader included.
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| PathBuf::from(format!("/{path}")))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.split('.').skip(1).any(|part| part == "so"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found_and_other_mapped_files_are_not() {
        let maps = "\
55d0-55d1 r--p 00000000 fe:00 17 /usr/bin/program
7f00-7f01 r--p 00000000 fe:00 18 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00026000 fe:00 18 /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 r-xp 00026000 fe:00 19 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7f04-7f05 r--p 00000000 fe:00 20 /usr/lib/locale/C.utf8/LC_CTYPE
7ffc-7ffd rw-p 00000000 00:00 0 [stack]";
        let found: Vec<PathBuf> = libraries(maps).into_iter().collect();
        let folder = Path::new("/usr/lib/x86_64-linux-gnu");
        assert_eq!(
            found,
            [
                folder.join("ld-linux-x86-64.so.2"),
                folder.join("libc.so.6")
            ]
        );
    }
}
