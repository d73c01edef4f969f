//! Whose connection it is: the system's own tables say which process holds the other end.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::unix::ffi::OsStrExt as _,
};

use rustix::process::{Uid, geteuid};

/// The process group among `groups` that holds the other end of a connection, if one of them does.
/// A process group has the id of the process that leads it.
pub(super) fn group_of(peer: SocketAddr, local: SocketAddr, groups: &[i32]) -> io::Result<Option<i32>> {
    let Some(socket) = socket(&fs::read_to_string("/proc/self/net/tcp")?, peer, local) else { return Ok(None) };
    // Looking at every process takes long, so that other users must not be able to ask for it.
    if !may_be_ours(socket.user, geteuid()) {
        return Ok(None);
    }
    // Nearly always it is the leader of the group itself.
    if let Some(leader) = groups.iter().find(|leader| holds(**leader, socket.inode)) {
        return Ok(Some(*leader));
    }
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(group) = group(process).filter(|group| groups.contains(group))
            && holds(process, socket.inode)
        {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    user: u32,
    inode: u64,
}

/// The socket that is bound to `peer` and connected to `local`. The table has a line for each socket,
/// `number: local remote state queues timer retransmits user timeouts inode`.
fn socket(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<Socket> {
    let (peer, local) = (in_table(peer)?, in_table(local)?);
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next()? != peer || fields.next()? != local {
            return None;
        }
        let user = fields.nth(4)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok().filter(|inode| *inode != 0)?;
        Some(Socket { user, inode })
    })
}

/// Whether a function that we started may be this user: only root's can have become another one.
fn may_be_ours(user: u32, we: Uid) -> bool {
    we.is_root() || we.as_raw() == user
}

/// An address as the table writes it: the bytes in the machine's order, then the port.
fn in_table(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

/// A process that is gone, or that may not be looked into, holds nothing.
fn holds(process: i32, socket: u64) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let name = format!("socket:[{socket}]");
    let mut links = files.flatten().flat_map(|file| fs::read_link(file.path()));
    links.any(|link| link.as_os_str().as_bytes() == name.as_bytes())
}

/// The name in parentheses may hold anything, so fields are counted from its end.
fn group(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Where a Runtime API is served: any port that is free.
pub(super) const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_socket_and_whose_it_is_stand_in_the_table() {
        let header =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |local, remote, inode| {
            let (local, remote) = (in_table(local).unwrap(), in_table(remote).unwrap());
            format!("   7: {local} {remote} 01 00000000:00000000 02:000AFC8A 00000000  1001        0 {inode} 2 0\n")
        };
        let [peer, local] = [40_000, 9_001].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let table = [header, &line(local, peer, 5), &line(peer, local, 6)].concat();
        assert_eq!(socket(&table, peer, local), Some(Socket { user: 1_001, inode: 6 }));
        assert_eq!(socket(&line(peer, local, 0), peer, local), None, "nobody holds it any more");
    }

    #[test]
    fn another_users_connection_is_none_of_a_functions_unless_we_are_root() {
        assert!(may_be_ours(1_001, Uid::from_raw(1_001)));
        assert!(!may_be_ours(1_002, Uid::from_raw(1_001)));
        assert!(may_be_ours(1_002, Uid::ROOT));
    }

    #[test]
    fn a_connection_belongs_to_the_process_group_that_holds_it() {
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let local = listener.local_addr().unwrap();
        // The leader waits while another process of its group connects.
        let script = "(exec 3<>/dev/tcp/127.0.0.1/$0; read line <&3) & wait";
        let mut command = Command::new("bash");
        command.args(["-c", script, &local.port().to_string()]).process_group(0).stdin(Stdio::null());
        let mut group = command.spawn().unwrap();
        let leader = i32::try_from(group.id()).unwrap();
        let (connection, peer) = listener.accept().unwrap();
        let ours = TcpStream::connect(local).unwrap();

        assert_eq!(group_of(peer, local, &[1, leader]).unwrap(), Some(leader));
        assert_eq!(group_of(peer, local, &[1]).unwrap(), None);
        assert_eq!(group_of(ours.local_addr().unwrap(), local, &[leader]).unwrap(), None);

        drop(connection);
        group.wait().unwrap();
    }
}
