//! Free ports on loopback.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up). A node that is
/// killed must find its ports free when it comes back, and a client that retries a dead port inside that range
/// can even end up connected to itself.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_767;

/// Different ports that nobody listens on at this moment.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = any_free()?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Begins at a random place, so that nodes which start at the same time seldom meet.
fn any_free() -> Result<TcpListener> {
    let range = u64::from(LAST - FIRST) + 1;
    let start = RandomState::new().hash_one(0) % range;
    for step in 0..range {
        let port = FIRST + u16::try_from((start + step) % range)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    bail!("no port between {FIRST} and {LAST} is free")
}
