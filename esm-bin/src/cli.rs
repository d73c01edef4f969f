//! The command line.

use std::{
    env,
    ffi::OsString,
    fmt::Display,
    hint::black_box,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
    thread::available_parallelism,
};

use clap::{Parser, Subcommand};
use esm_core::invoker::{Outcome, Reply};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::runtime::Builder;
use tracing::error;
use uuid::Uuid;

use crate::{
    adapters::{self, FEATURES},
    by_hand::{self, Engine},
    check,
    config::{self, Config, Environment, Problem},
    filter,
    logging::{self, LogFormat},
    mappings::Endpoint,
    serve::{self, End},
};

const FAILED: u8 = 1;
const NOT_CONFIGURED: u8 = 2;
/// What is added to a signal's number.
const KILLED: u8 = 128;
/// More threads make an idle service no better and no smaller.
const MOST_THREADS: usize = 4;

/// What stands on the command line itself, or in a file.
const TEXT_OR_FILE: &str = "TEXT|file://PATH";

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = if FEATURES.is_empty() { "none".into() } else { FEATURES.join(", ") };
    format!("{} (features: {features})", env!("CARGO_PKG_VERSION"))
});

const EXIT_CODES: &str = "\
Exit codes:
  0        ended as asked; for check: the configuration has no problem; for invoke: the function succeeded; for
           mappings: the service answered; for filter test: the message passes
  1        failed while running, or could not drain in time (what was unfinished goes back to its broker);
           for invoke: the function did not succeed; for mappings: the service cannot be asked, or
           refused; for filter test: the message does not pass
  2        the configuration has a problem, or a pattern, or the command line
  130, 143 ended at once by a second signal (SIGINT, SIGTERM)

Environment:
  ESM__SERVER__LISTEN and the like override a key of the configuration
  ESM_LOG (or RUST_LOG) says what is logged, such as `info` or `esm_core=debug`";

/// Reads messages from queues and invokes functions with batches of them, as AWS Lambda's event
/// source mappings do.
#[derive(Parser)]
#[command(name = "esm", version = VERSION.as_str(), after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the mappings of the configuration until SIGTERM or SIGINT
    Serve {
        /// The configuration file
        #[arg(long, default_value = "esm.toml")]
        config: PathBuf,
        /// How log lines look; by default human on a terminal, JSON otherwise
        #[arg(long)]
        log_format: Option<LogFormat>,
    },
    /// Prints every problem of the configuration, or what it comes to
    Check {
        /// The configuration file
        #[arg(long, default_value = "esm.toml")]
        config: PathBuf,
    },
    /// Invokes a function of the configuration once and prints what it answers
    Invoke {
        /// The function's name
        function: String,
        /// A file with the event's JSON; - is standard input
        #[arg(long)]
        event: PathBuf,
        /// The configuration file
        #[arg(long, default_value = "esm.toml")]
        config: PathBuf,
    },
    /// Prints a sample of the events that functions get
    Event {
        /// Which broker's
        engine: Engine,
    },
    /// Shows the mappings of a running service
    Mappings {
        #[command(subcommand)]
        command: Option<MappingsCommand>,
        /// Where the service listens
        #[arg(long, global = true, default_value = "http://127.0.0.1:9321")]
        endpoint: String,
        /// Prints what the API answers
        #[arg(long, global = true)]
        json: bool,
    },
    /// Works with the patterns of filters
    #[command(subcommand)]
    Filter(FilterCommand),
}

#[derive(Subcommand)]
enum MappingsCommand {
    /// Shows one mapping, member by member
    Get {
        /// The mapping's UUID
        uuid: Uuid,
    },
}

#[derive(Subcommand)]
enum FilterCommand {
    /// Says which part of which pattern accepts or refuses a message
    Test {
        /// A pattern; several are several filters
        #[arg(long, required = true, value_name = TEXT_OR_FILE)]
        pattern: Vec<String>,
        /// The body of the message
        #[arg(long, value_name = TEXT_OR_FILE)]
        message: String,
        /// The record around the body as JSON, for patterns that speak about its other members
        #[arg(long, value_name = TEXT_OR_FILE, default_value = "{}")]
        record: String,
    },
}

/// Becomes a function's process if the command line asks for that, as our own does when it starts
/// one. Returns only if it does not, or if that is not possible.
pub fn launch() -> Option<ExitCode> {
    adapters::launch(env::args_os().skip(1))
}

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check { config } => check(&config),
        Command::Serve { config, log_format } => serve(&config, log_format),
        Command::Invoke { function, event, config } => invoke(&function, &event, &config),
        Command::Event { engine } => {
            print_bytes(engine.sample_event().as_bytes());
            0
        }
        Command::Mappings { command, endpoint, json } => mappings(command.as_ref(), &endpoint, json),
        Command::Filter(FilterCommand::Test { pattern, message, record }) => filter_test(&pattern, &message, &record),
    };
    ExitCode::from(result)
}

fn check(file: &Path) -> u8 {
    let (lines, code) = match config::load(file, &environment()) {
        Ok(config) if config.unreadable_secrets.is_empty() => (check::plan(&config), 0),
        Ok(config) => (config.unreadable_secrets.iter().map(Problem::to_string).collect(), NOT_CONFIGURED),
        Err(problems) => (problems.iter().map(Problem::to_string).collect(), NOT_CONFIGURED),
    };
    print(&lines);
    code
}

fn filter_test(patterns: &[String], message: &str, record: &str) -> u8 {
    match filter::test(patterns, message, record) {
        Ok(explanation) => {
            print(&[explanation.to_string().trim_end()]);
            if explanation.accepts() { 0 } else { FAILED }
        }
        Err(problems) => {
            print(&problems);
            NOT_CONFIGURED
        }
    }
}

fn print(lines: &[impl Display]) {
    let mut output = io::stdout().lock();
    // Whoever closes our output wants to read no more.
    let _ = lines.iter().try_for_each(|line| writeln!(output, "{line}"));
}

fn serve(file: &Path, format: Option<LogFormat>) -> u8 {
    if let Err(error) = logging::start(format) {
        eprintln!("esm: {error:#}");
        return NOT_CONFIGURED;
    }
    hide();
    match config::load(file, &environment()) {
        Ok(config) => run_service(config, file),
        Err(problems) => {
            for Problem { key, words } in problems {
                error!(key, problem = words, "the configuration cannot be used");
            }
            NOT_CONFIGURED
        }
    }
}

fn invoke(name: &str, event: &Path, file: &Path) -> u8 {
    hide();
    let config = match config::load(file, &environment()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return NOT_CONFIGURED;
        }
    };
    let asked = by_hand::function(&config, name).and_then(|function| Ok((function, by_hand::event(event)?)));
    // What the function prints is logged.
    let started = logging::start(None).and(asked);
    let (function, event) = match started {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("esm: {error:#}");
            return NOT_CONFIGURED;
        }
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("esm: cannot start: {error}");
            return FAILED;
        }
    };
    let Reply { outcome, body } = runtime.block_on(by_hand::invoke(function, event));
    runtime.shutdown_background();
    print_bytes(&body);
    let words = match outcome {
        Outcome::Success => return 0,
        Outcome::FunctionError { error_type, message } => format!("the function failed: {error_type}: {message}"),
        Outcome::Throttled { reason, .. } => format!("the function is busy: {reason}"),
        Outcome::Unavailable { reason, .. } => format!("the function was not invoked: {reason}"),
        Outcome::TooLarge { reason } => format!("the event is too large: {reason}"),
        Outcome::NotUsable { reason } => format!("the function cannot be used: {reason}"),
    };
    eprintln!("esm: {words}");
    FAILED
}

/// Keeps our memory and environment, where secrets are, from other processes of the same user, functions among them, and
/// out of core dumps. What we start is not hidden.
fn hide() {
    // No kernel refuses it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn mappings(command: Option<&MappingsCommand>, endpoint: &str, as_json: bool) -> u8 {
    let asking = async {
        let endpoint = Endpoint::new(endpoint, &environment())?;
        match command {
            None => endpoint.list(as_json).await,
            Some(MappingsCommand::Get { uuid }) => endpoint.get(*uuid, as_json).await,
        }
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(asking)) {
        Ok(text) => {
            print_bytes(text.as_bytes());
            0
        }
        Err(error) => {
            eprintln!("esm: {error:#}");
            FAILED
        }
    }
}

/// To standard output, with a line's end.
fn print_bytes(bytes: &[u8]) {
    let mut output = io::stdout().lock();
    let end: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") { b"" } else { b"\n" };
    // Whoever closes our output wants to read no more.
    let _ = output.write_all(bytes).and_then(|()| output.write_all(end)).and_then(|()| output.flush());
}

/// The system's allocator (glibc's) gives memory back as soon as 128 KiB lie free at the end of a heap, and has it
/// cleared by the system when it asks for it again a moment later, which took a tenth of all that a message costs. It
/// keeps twice the size of the largest block that it was ever handed back, if that was not too large: so it is handed
/// one, which nobody has written to.
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(1024 * 1024)));
}

fn run_service(config: Config, file: &Path) -> u8 {
    keep_freed_memory();
    let threads = available_parallelism().map_or(MOST_THREADS, |cores| cores.get().min(MOST_THREADS));
    let runtime = match Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start");
            return FAILED;
        }
    };
    let end = runtime.block_on(serve::run(config, &|before| config::load_again(before, file, &environment())));
    runtime.shutdown_background(); // a name that is being looked up would make us wait
    match end {
        Ok(End::Drained) => 0,
        Ok(End::Late) => FAILED,
        Ok(End::Killed { signal }) => KILLED + signal,
        Err(error) => {
            error!("{error:#}");
            FAILED
        }
    }
}

/// The variables that are text; others can neither be settings nor secrets.
fn environment() -> Environment {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    env::vars_os().filter_map(text).collect()
}
