//! Memory that a request works with: lent for its time, kept by the thread for the next one.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

use crate::proxy::{h1::Slots, rules::Edits};

/// Sets that a thread keeps.
const KEPT: usize = 128;

/// The largest text buffer that is kept.
const MAX_TEXT: usize = 64 * 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "lent and given back as they are, without being moved")]
    static STOCK: RefCell<Vec<Box<Memory>>> = const { RefCell::new(Vec::new()) };
}

/// What a request needs: empty at its begin.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Of the request's head.
    pub(crate) request: Slots,
    /// Of the response's head.
    pub(crate) response: Slots,
    /// What is written to the node.
    pub(crate) to_node: Vec<u8>,
    /// What is written to the client.
    pub(crate) to_client: Vec<u8>,
    /// The response's head, where it is told of afterwards.
    pub(crate) answered: Vec<u8>,
    /// Field lines that are added to the request.
    pub(crate) extra: Vec<u8>,
    /// What rules want changed.
    pub(crate) edits: Edits,
}

/// A set of the thread's, for one request.
#[derive(Debug)]
pub(crate) struct Scratch(Option<Box<Memory>>);

impl Scratch {
    pub(crate) fn take() -> Self {
        Self(Some(STOCK.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Deref for Scratch {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        self.0.as_ref().expect("only dropping takes it out")
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Memory {
        self.0.as_mut().expect("only dropping takes it out")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(mut memory) = self.0.take() else { return };
        memory.request.clear();
        memory.response.clear();
        memory.edits.clear();
        for text in [&mut memory.to_node, &mut memory.to_client, &mut memory.answered, &mut memory.extra] {
            text.clear();
            if text.capacity() > MAX_TEXT {
                *text = Vec::new();
            }
        }
        // While the thread ends, its stock may be gone already.
        let _ = STOCK.try_with(|stock| {
            let mut stock = stock.borrow_mut();
            if stock.len() < KEPT {
                stock.push(memory);
            }
        });
    }
}
