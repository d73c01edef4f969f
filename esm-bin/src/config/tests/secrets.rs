//! Where secrets come from, and that they never show.

use std::fs;

use secrecy::ExposeSecret as _;

use super::environment;
use crate::config::{
    entry::{Context, Entry},
    problem::Problem,
    secret, sources,
};

#[test]
fn secrets_come_from_the_environment_or_files_and_never_show() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("line"), "hunter2\n").unwrap();
    fs::write(folder.path().join("document"), r#"{"username":"u","password":"hunter2","engine":"x"}"#).unwrap();
    fs::write(folder.path().join("broken"), r#"{"username":"u","password":12345678}"#).unwrap();
    let login = |lines: &str| {
        let environment = environment(&[]);
        let context = Context::new(folder.path(), &environment);
        let merged = sources::merge(lines, &environment, &context.problems).unwrap();
        let login = Entry::new("s".into(), merged.into(), &context).table(secret::login);
        (login, context.problems.into_vec().iter().map(Problem::to_string).collect::<Vec<_>>())
    };
    for lines in [
        "username = \"u\"\npassword = { env = \"PASSWORD\" }",
        "username = \"u\"\npassword = { file = \"line\" }",
        "file = \"document\"",
    ] {
        let (login, _) = login(lines);
        let login = login.expect(lines);
        assert_eq!((login.username.as_str(), login.password.expose_secret()), ("u", "hunter2"));
        assert!(!format!("{login:?}").contains("hunter2"));
    }
    for (lines, expected) in [
        ("username = \"u\"\npassword = \"hunter2\"", "s.password: must not stand here"),
        ("username = \"u\"\npassword = { env = \"EMPTY\" }", "s.password.env: the environment variable EMPTY is empty"),
        ("username = \"u\"\npassword = { file = \"absent\" }", "s.password.file: cannot read"),
        ("username = \"u\"\npassword = {}", "s.password: needs env"),
        ("username = \"u\"\npassword = { env = \"PASSWORD\", file = \"line\" }", "s.password: has both"),
        ("file = \"broken\"", "s.file: the file must hold"),
        ("file = \"document\"\nusername = \"u\"", "s.username: has no effect beside file"),
    ] {
        let (_, problems) = login(lines);
        assert!(matches!(problems.as_slice(), [one] if one.starts_with(expected)), "{lines}: {problems:?}");
        assert!(!problems.concat().contains("hunter2") && !problems.concat().contains("12345678"));
    }
}
