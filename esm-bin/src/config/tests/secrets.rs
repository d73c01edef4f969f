//! Where secrets come from, and that they never show.

use std::{fs, time::Duration};

use secrecy::ExposeSecret as _;

use super::{environment, valid, whole};
use crate::config::{
    entry::{Context, Entry},
    problem::{Problem, Problems},
    secret, sources,
    table::Table,
};

#[test]
fn secrets_come_from_the_environment_or_files_and_never_show() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("line"), "hunter2\n").unwrap();
    fs::write(folder.path().join("document"), r#"{"username":"u","password":"hunter2","engine":"x"}"#).unwrap();
    fs::write(folder.path().join("broken"), r#"{"username":"u","password":12345678}"#).unwrap();
    let secret = |lines: &str| {
        let environment = environment(&[]);
        let context = Context::new(folder.path(), &environment);
        let merged = sources::merge(lines, &environment, &context.problems).unwrap();
        let read = |table: &mut Table<'_>| secret::read("s", table, Duration::from_secs(300));
        let secret = Entry::new("s".into(), merged.into(), &context).table(read);
        let told = |problems: Problems| problems.into_vec().iter().map(Problem::to_string).collect::<Vec<_>>();
        (secret, told(context.problems), told(context.unreadable))
    };
    for lines in [
        "username = \"u\"\npassword = { env = \"PASSWORD\" }",
        "username = \"u\"\npassword = { file = \"line\" }",
        "file = \"document\"",
    ] {
        let (secret, _, unreadable) = secret(lines);
        let login = secret.expect(lines).read_now().unwrap();
        assert_eq!(unreadable, Vec::<String>::new());
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
        let (_, problems, unreadable) = secret(lines);
        let problems = [problems, unreadable].concat();
        assert!(matches!(problems.as_slice(), [one] if one.starts_with(expected)), "{lines}: {problems:?}");
        assert!(!problems.concat().contains("hunter2") && !problems.concat().contains("12345678"));
    }
}

#[test]
fn a_login_that_cannot_be_read_yet_keeps_nobody_from_starting() {
    let text = whole().replace("{ env = \"PASSWORD\" }", "{ file = \"absent\" }");
    let config = valid(&text, &[]);
    let [problem] = config.unreadable_secrets.as_slice() else { panic!("{:?}", config.unreadable_secrets) };
    assert!(problem.to_string().starts_with("secrets.login.password.file: cannot read `/nonexistent/absent`"));
}
