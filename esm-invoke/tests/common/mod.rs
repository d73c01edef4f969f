//! What programs that test functions in processes share.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use esm_invoke::process::ProcessSettings;

pub(crate) const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:pizza";
/// Longer than anything takes on a busy machine, so that only a failure waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A function with one process, of any command.
pub(crate) fn settings(command: Vec<OsString>) -> ProcessSettings {
    let path = env::var("PATH").unwrap();
    ProcessSettings {
        name: "pizza".into(),
        arn: ARN.into(),
        command,
        folder: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/process"),
        environment: [("PATH".into(), path)].into(),
        instances: 1.try_into().unwrap(),
        timeout: LONG,
        start_timeout: LONG,
        stop_timeout: LONG,
        idle_timeout: LONG * 10,
        memory_in_mebibytes: None,
        open_files: None,
        file_access: None,
        launcher: vec![example("launch")],
    }
}

/// Cargo builds examples before it runs tests, into a folder beside theirs.
pub(crate) fn example(name: &str) -> OsString {
    let program = env::current_exe().unwrap();
    let path = program.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} was not built", path.display());
    path.into()
}
