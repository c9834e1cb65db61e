//! Messages between lbd, its worker and its spawner: JSON behind a length, on a stream socketpair, with file descriptors
//! beside (`SCM_RIGHTS`). Both ends are ours, but the worker's may have been taken over: lengths and counts are bounded, and
//! what is not a message ends the channel. Blocking.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest message: a plan with its certificates and pages.
const MAX_BYTES: usize = 64 << 20;

/// The most file descriptors of a message; the kernel's limit is 253 (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 250;

/// How long a writer waits for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(2);

/// One end.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Two ends.
    ///
    /// # Errors
    /// When the kernel has no room.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (own, other) = UnixStream::pair()?;
        Ok((Self::new(own)?, other))
    }

    /// An end.
    ///
    /// # Errors
    /// When the kernel refuses its time limit.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Lets this end wait for its reader without a limit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait_for_readers(&self) -> io::Result<()> {
        self.stream.set_write_timeout(None)
    }

    /// The same end for another thread: one sends, the other receives.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Sends a message and descriptors.
    ///
    /// # Errors
    /// When the other end is gone or does not read.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length =
            u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BYTES && descriptors.len() <= MAX_DESCRIPTORS);
        let length = length.ok_or_else(|| io::Error::other("message too long"))?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(&frame)], rights, flags, None)?;
        (&self.stream).write_all(&frame[sent..])
    }

    /// The next message and its descriptors; `None` when the other end is gone.
    ///
    /// # Errors
    /// What comes is no message.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let (read, descriptors) = self.receive_some(&mut length)?;
        if read == 0 {
            return Ok(None);
        }
        (&self.stream).read_exact(&mut length[read..])?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_BYTES {
            return Err(io::Error::other("message too long"));
        }
        let mut body = vec![0; length];
        (&self.stream).read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, descriptors)))
    }

    /// The first bytes of a message: the descriptors come with them.
    fn receive_some(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = cmsg_space!([std::os::fd::RawFd; MAX_DESCRIPTORS]);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.stream.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Err(nix::Error::EINTR) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for this process, and nothing else knows of them.
                descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        Ok((received.bytes, descriptors))
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.stream.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn messages_of_any_size_arrive_with_their_descriptors() {
        let (near, far) = Channel::pair().unwrap();
        let far = Channel::new(far).unwrap();
        let long = "x".repeat(3 << 20);
        let expected = long.clone();
        let reader = std::thread::spawn(move || {
            let (first, descriptors) = far.receive::<String>().unwrap().unwrap();
            assert_eq!((first == expected, descriptors.len()), (true, 2));
            let (second, none) = far.receive::<u32>().unwrap().unwrap();
            assert_eq!((second, none.len()), (7, 0));
            assert!(far.receive::<u32>().unwrap().is_none(), "the other end is gone");
            File::from(descriptors.into_iter().next().unwrap()).metadata().unwrap().len()
        });
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        near.send(&long, &[file.as_fd(), file.as_fd()]).unwrap();
        near.send(&7_u32, &[]).unwrap();
        drop(near);
        assert_eq!(reader.join().unwrap(), file.metadata().unwrap().len());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{]", b"\0\0\0\x09\"cut", b"\0\0"] {
            let (near, far) = Channel::pair().unwrap();
            let mut far = far;
            far.write_all(bytes).unwrap();
            drop(far);
            assert!(near.receive::<String>().is_err(), "{bytes:?}");
        }
    }
}
