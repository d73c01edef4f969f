//! The service `esm`: event source mappings for Amazon MQ, run by yourself.
//!
//! A library with a short `main`, so that tests can boot the whole service in their own process.
//!
//! Reading order: [`cli`] (what can be asked for), [`config`] (a file and the environment become
//! valid settings), [`adapters`] (the brokers and backends in this build), [`check`] (what the
//! settings come to, for people), [`secrets`] (logins that change), [`by_hand`] (a function tried alone), [`filter`] (what filters would say), [`control`]
//! (which mappings there are, and that they run), [`serve`] (start, run, drain), [`http`] (what is answered) with [`access`]
//! (who may call) and `listener` with `patient` (connections), [`mappings`] (what a running service says), [`logging`].

pub mod access;
pub mod adapters;
pub mod api;
pub mod by_hand;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod filter;
pub mod http;
mod listener;
pub mod logging;
pub mod mappings;
mod patient;
pub mod secrets;
pub mod serve;
mod signals;
mod unclean_end;
