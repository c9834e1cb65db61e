//! Questions that the worker has not answered yet.

use std::{collections::BTreeMap, sync::mpsc::SyncSender, time::Instant};

use crate::proxy::{
    channel::Channel,
    message::{Answer, Question, ToWorker},
};

/// Questions at a time: further askers are told that there is no answer.
const MOST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By id: until when the asker waits.
    open: BTreeMap<u64, (Instant, SyncSender<Answer>)>,
    ids: u64,
}

impl Questions {
    /// Asks; without a worker, or room, the asker is told by the end of its channel.
    pub(super) fn ask(
        &mut self,
        question: Question,
        until: Instant,
        answer: SyncSender<Answer>,
        worker: Option<&Channel>,
    ) {
        let Some(worker) = worker.filter(|_| self.open.len() < MOST) else { return };
        self.ids += 1;
        if worker.send(&ToWorker::Ask { id: self.ids, question }, &[]).is_ok() {
            self.open.insert(self.ids, (until, answer));
        }
    }

    /// An answer; those to forgotten questions are dropped.
    pub(super) fn answered(&mut self, id: u64, answer: Answer) {
        if let Some((_, asker)) = self.open.remove(&id) {
            // It may have gone away.
            let _ = asker.try_send(answer);
        }
    }

    /// Forgets questions whose askers wait no longer.
    pub(super) fn forget(&mut self, now: Instant) {
        self.open.retain(|_, (until, _)| *until > now);
    }

    /// The worker is gone: nobody will answer.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}
