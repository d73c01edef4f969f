//! Which files a process may use: Landlock, which the kernel enforces for the process and for all that it starts.

use std::{fs, io, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

use super::FileAccess;

/// What a kernel must know, so that reading, writing and executing are restricted at all (Linux 5.13).
const LEAST: ABI = ABI::V1;
/// What is restricted beside that where the kernel knows it: moving between folders, truncating, and devices.
const WANTED: ABI = ABI::V5;

/// From here on this thread, and what it becomes, may use these files and no others. What is open stays open.
pub(super) fn confine(access: &FileAccess) -> io::Result<()> {
    let ruleset = ruleset().map_err(|error| no_landlock(&error))?;
    let read = AccessFs::from_read(WANTED);
    let rules = access.read.iter().map(|path| (path, read));
    let rules = rules.chain(access.write.iter().map(|path| (path, AccessFs::from_all(WANTED))));
    let ruleset = rules.into_iter().try_fold(ruleset, |ruleset, (path, access)| {
        allow(ruleset, path, access)
            .map_err(|error| io::Error::other(format!("file_access: `{}`: {error}", path.display())))
    })?;
    match ruleset.restrict_self() {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        Ok(_) => Err(no_landlock(&"it is switched off")),
        Err(error) => Err(no_landlock(&error)),
    }
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .create()
}

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, Box<dyn std::error::Error + Send + Sync>> {
    // What can only be done in folders is no right to a file.
    let access = if fs::metadata(path)?.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
    Ok(ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, access))?)
}

fn no_landlock(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("file_access needs Landlock, which this kernel does not offer: {error}"))
}
