//! The archive: sorted names, one owner, one time, so that equal contents are equal bytes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::digest::sha256;

/// Small beats fast here: an archive is made once.
const LEVEL: i32 = 19;

pub(super) struct Entry {
    name: &'static str,
    mode: u32,
    contents: Vec<u8>,
}

impl Entry {
    pub(super) fn program(name: &'static str, contents: Vec<u8>) -> Self {
        Self { name, mode: 0o755, contents }
    }

    pub(super) fn text(name: &'static str, contents: Vec<u8>) -> Self {
        Self { name, mode: 0o644, contents }
    }
}

pub(super) struct Archive {
    name: String,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Archive {
    /// Packs everything into a folder called `name`, dated `time` (seconds since 1970).
    pub(super) fn pack(name: &str, mut entries: Vec<Entry>, time: u64) -> Result<Self> {
        entries.sort_by_key(|entry| entry.name);
        let mut tar = tar::Builder::new(Vec::new());
        for entry in &entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_mtime(time);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(entry.contents.len().try_into()?);
            tar.append_data(&mut header, format!("{name}/{}", entry.name), entry.contents.as_slice())?;
        }
        let bytes = zstd::encode_all(tar.into_inner()?.as_slice(), LEVEL)?;
        Ok(Self { name: name.to_owned(), entries, bytes })
    }

    pub(super) fn file_name(&self) -> String {
        format!("{}.tar.zst", self.name)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fails with the names of what differs.
    pub(super) fn compare(&self, other: &Self) -> Result<()> {
        let pairs = self.entries.iter().zip(&other.entries);
        let differ: Vec<&str> = pairs.filter(|(a, b)| a.contents != b.contents).map(|(a, _)| a.name).collect();
        ensure!(differ.is_empty(), "two builds of the same source differ in: {}", differ.join(", "));
        ensure!(self.bytes == other.bytes, "two archives of the same files differ");
        Ok(())
    }
}

/// Writes `SHA256SUMS` for every archive in the folder, as `sha256sum --check` reads it.
pub(super) fn write_sums(folder: &Path) -> Result<()> {
    let mut sums = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".tar.zst") {
            sums.push((name, sha256(&fs::read(&path)?)));
        }
    }
    sums.sort();
    let text = sums.iter().fold(String::new(), |text, (name, sum)| text + sum + "  " + name + "\n");
    fs::write(folder.join("SHA256SUMS"), text).context("cannot write SHA256SUMS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_files_were_found_does_not_matter() {
        let file = |name: &'static str| Entry::text(name, name.into());
        let one = Archive::pack("esm", vec![file("a"), file("b")], 1).unwrap();
        let other = Archive::pack("esm", vec![file("b"), file("a")], 1).unwrap();
        let changed = Archive::pack("esm", vec![file("a"), Entry::text("b", b"c".to_vec())], 1).unwrap();

        assert_eq!(one.bytes, other.bytes);
        assert_eq!(one.compare(&changed).unwrap_err().to_string(), "two builds of the same source differ in: b");
    }
}
