//! Whether the `esm` before this one ended in good order: a file in the data folder says that one runs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// In the folder of the store, which one `esm` uses at a time.
const MARKER: &str = "esm.running";

/// Says that an `esm` runs, until it is removed.
pub(crate) struct Marker {
    file: PathBuf,
    /// The `esm` before this one left it behind.
    pub(crate) was_there: bool,
}

impl Marker {
    /// Leaves the marker in a folder. When it returns, it is on the disk.
    pub(crate) fn leave(folder: &Path) -> io::Result<Self> {
        let file = folder.join(MARKER);
        let was_there = file.try_exists()?;
        File::create(&file)?.sync_all()?;
        File::open(folder)?.sync_all()?; // its name is the folder's
        Ok(Self { file, was_there })
    }

    /// Everything has ended in good order.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_removed_is_found_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = Marker::leave(folder.path()).unwrap();
        assert!(!first.was_there);
        drop(first);
        let second = Marker::leave(folder.path()).unwrap();
        assert!(second.was_there);
        second.remove().unwrap();
        assert!(!Marker::leave(folder.path()).unwrap().was_there);
    }
}
