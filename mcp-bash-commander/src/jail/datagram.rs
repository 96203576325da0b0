//! One datagram with descriptors over a sequenced-packet socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Most descriptors in one datagram; the kernel's own bound is 253.
pub(super) const MAX_DESCRIPTORS: usize = 240;

/// Most bytes in one datagram.
pub(super) const MAX_BYTES: usize = 8 * 1024;

/// A connected pair of sockets that keep datagrams apart and tell when the other side is gone.
pub(super) fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends one datagram; a full socket buffer is `EAGAIN`, never a wait.
pub(super) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags)
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(Errno::MSGSIZE)
    }
}

/// Receives one datagram without waiting. `None` is the end: the other side is closed.
pub(super) fn receive(socket: impl AsFd) -> rustix::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    // Most are short: what is kept of one is copied.
    let mut bytes = [0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        )
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(Errno::MSGSIZE);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((bytes[..received.bytes].to_vec(), descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together_and_the_end_is_told() -> anyhow::Result<()> {
        let (here, there) = pair()?;
        let file = std::fs::File::open("/dev/null")?;
        assert_eq!(receive(&there).err(), Some(Errno::AGAIN));
        send(&here, b"one", &[file.as_fd(), file.as_fd()])?;
        send(&here, b"two", &[])?;
        drop(here);
        let (bytes, descriptors) =
            receive(&there)?.ok_or_else(|| anyhow::anyhow!("no datagram"))?;
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"one"[..], 2));
        let (bytes, descriptors) =
            receive(&there)?.ok_or_else(|| anyhow::anyhow!("no datagram"))?;
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"two"[..], 0));
        assert!(receive(&there)?.is_none());
        Ok(())
    }
}
