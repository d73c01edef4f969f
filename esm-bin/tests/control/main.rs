//! The control API of the built program, asked by AWS's own clients, by hand, and by hostile ones.

mod aws;
mod boto3;
mod command_line;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "the tests of data paths need more of it")]
mod common;
mod described;
mod document;
mod hostile;
mod operations;
mod pages;
mod samples;
mod service;
mod terraform;
