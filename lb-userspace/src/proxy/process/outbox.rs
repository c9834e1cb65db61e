//! What the worker has to tell lbd, written by a thread of its own: an lbd that is stopped or slow holds nobody up. What has
//! no room is left out and told by the next message of its kind.

use std::{
    io,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
};

use crate::proxy::{channel::Channel, message::FromWorker};

/// Messages that wait for lbd.
const ROOM: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: SyncSender<FromWorker>,
}

impl Outbox {
    /// Writes to `channel`, however long lbd takes to read.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(channel: Channel) -> io::Result<Self> {
        channel.wait_for_readers()?;
        let (messages, waiting) = sync_channel(ROOM);
        std::thread::Builder::new().name("lb-outbox".to_owned()).spawn(move || {
            while let Ok(message) = waiting.recv() {
                // lbd is gone: who reads the channel says so.
                if channel.send(&message, &[]).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { messages })
    }

    /// Says something to lbd when there is room.
    ///
    /// # Errors
    /// The message, when there is none. Without an lbd everything is taken, and lost.
    pub(super) fn tell(&self, message: FromWorker) -> Result<(), FromWorker> {
        match self.messages.try_send(message) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(message)) => Err(message),
        }
    }
}
