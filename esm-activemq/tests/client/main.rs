//! The client against a scripted peer: what a broker may do at each step of a conversation, and what cannot be
//! produced with a real one.

mod consuming;
mod handshake;
mod peer;
