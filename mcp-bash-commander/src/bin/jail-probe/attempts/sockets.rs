//! What reaches other programs: sockets of every kind, and the objects of interprocess communication.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as LocalAddress, UnixStream};

use crate::raw::{address, attempt, call, room, text};

use super::{Named, errno, os, reached, send_to};

pub(super) const ATTEMPTS: &[Named] = &[
    ("connect a local socket", |context| {
        os(UnixStream::connect(&context.socket).map(drop))
    }),
    ("connect an abstract socket", |context| {
        os(LocalAddress::from_abstract_name(&context.abstract_socket)
            .and_then(|name| UnixStream::connect_addr(&name))
            .map(drop))
    }),
    ("bind a socket in the workspace", |_| {
        let _ = fs::remove_file("probe-socket");
        os(std::os::unix::net::UnixListener::bind("probe-socket").map(drop))
    }),
    ("TCP", |context| {
        let mut stream =
            TcpStream::connect(("127.0.0.1", context.tcp)).map_err(|error| errno(&error))?;
        os(stream.write_all(b"TCP"))
    }),
    ("TCP fast open", |context| {
        send_to(libc::SOCK_STREAM, 0, context.tcp, 0x2000_0000)
    }),
    ("TCP fast open on connecting", |_| {
        let socket = call(libc::SYS_socket, &[2, 1, 0])?;
        attempt(libc::SYS_setsockopt, &[socket, 6, 30, address(&1_i32), 4])
    }),
    ("listen on TCP", |_| {
        os(TcpListener::bind("127.0.0.1:0").map(drop))
    }),
    ("MPTCP", |context| {
        send_to(libc::SOCK_STREAM, 262, context.tcp, 0)
    }),
    ("UDP", |context| {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| errno(&error))?;
        os(socket
            .send_to(b"UDP", SocketAddr::from(([127, 0, 0, 1], context.udp)))
            .map(drop))?;
        // In the jail's own network the bytes go nowhere and nobody says so at once; an error comes back with the next call.
        socket
            .connect(("127.0.0.1", context.udp))
            .map_err(|error| errno(&error))?;
        os(socket.send(b"UDP").map(drop))?;
        os(socket.send(b"UDP").map(drop))
    }),
    ("SCTP", |_| {
        reached(
            call(libc::SYS_socket, &[2, 1, 132]),
            &[libc::EPROTONOSUPPORT],
        )
    }),
    ("UDP-Lite", |_| {
        reached(call(libc::SYS_socket, &[2, 2, 136]), &NOT_BUILT_IN)
    }),
    ("DCCP", |_| {
        reached(call(libc::SYS_socket, &[2, 6, 33]), &NOT_BUILT_IN)
    }),
    ("SMC", |_| {
        reached(call(libc::SYS_socket, &[43, 1, 0]), &NOT_BUILT_IN)
    }),
    ("AF_KEY", |_| {
        reached(call(libc::SYS_socket, &[15, 3, 2]), &NOT_BUILT_IN)
    }),
    ("AF_CAN", |_| {
        reached(call(libc::SYS_socket, &[29, 3, 1]), &NOT_BUILT_IN)
    }),
    ("AF_RXRPC", |_| {
        reached(call(libc::SYS_socket, &[33, 2, 2]), &NOT_BUILT_IN)
    }),
    ("AF_QIPCRTR", |_| {
        reached(call(libc::SYS_socket, &[42, 2, 0]), &NOT_BUILT_IN)
    }),
    ("AF_XDP", |_| {
        reached(call(libc::SYS_socket, &[44, 3, 0]), &NOT_BUILT_IN)
    }),
    ("bluetooth", |_| {
        reached(call(libc::SYS_socket, &[31, 3, 1]), &NOT_BUILT_IN)
    }),
    ("raw socket", |_| attempt(libc::SYS_socket, &[2, 3, 1])),
    ("packet socket", |_| attempt(libc::SYS_socket, &[17, 3, 0])),
    ("ICMP socket", |_| {
        reached(
            call(libc::SYS_socket, &[2, 2, 1]),
            // Who may have one is a setting of the host.
            &[libc::EACCES],
        )
    }),
    ("netlink", |_| attempt(libc::SYS_socket, &[16, 3, 0])),
    ("vsock", |_| {
        reached(call(libc::SYS_socket, &[40, 1, 0]), &[libc::EAFNOSUPPORT])
    }),
    ("AF_ALG", |_| {
        reached(call(libc::SYS_socket, &[38, 5, 0]), &[libc::EAFNOSUPPORT])
    }),
    ("TIPC pair", |_| {
        reached(
            call(libc::SYS_socketpair, &[30, 1, 0, room(&[0; 8])]),
            &[libc::EAFNOSUPPORT],
        )
    }),
    ("attach shared memory", |context| {
        attempt(libc::SYS_shmget, &[context.shared_memory.into(), 0, 0])
    }),
    ("use semaphores", |context| {
        attempt(libc::SYS_semget, &[context.semaphores.into(), 0, 0])
    }),
    ("use a queue of messages", |context| {
        attempt(libc::SYS_msgget, &[context.messages.into(), 0])
    }),
    ("open a POSIX queue", |context| {
        let flags = i64::from(libc::O_RDONLY | libc::O_NONBLOCK);
        attempt(libc::SYS_mq_open, &[text(&context.queue), flags, 0, 0])
    }),
];

/// What a kernel without that protocol answers: it was asked.
const NOT_BUILT_IN: [i32; 3] = [
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::ESOCKTNOSUPPORT,
];
