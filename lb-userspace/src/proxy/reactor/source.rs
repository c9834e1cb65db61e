//! What the kernel said of a descriptor, and who waits for it.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::BorrowedFd,
    rc::Rc,
    task::{Context, Waker},
};

use rustix::event::epoll;

use super::{try_with, with};

/// Readiness of a descriptor, edge-triggered: set by events, taken back by whoever found it exhausted.
///
/// Registered at its first wait: a connection that is answered at once and closed never costs epoll anything. Wakers stay
/// after a wake-up: as a rule the same task waits again.
#[derive(Debug)]
pub(super) struct Source {
    key: Cell<Option<usize>>,
    pub(super) readable: Cell<bool>,
    pub(super) writable: Cell<bool>,
    /// The peer ended its direction, or all of it: reading goes on to the end.
    pub(super) ended: Cell<bool>,
    /// The connection failed, or both directions ended.
    pub(super) failed: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Source {
    /// Of a descriptor that may be readable and writable.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            key: Cell::new(None),
            readable: Cell::new(true),
            writable: Cell::new(true),
            ended: Cell::new(false),
            failed: Cell::new(false),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        })
    }

    /// Lets the next event of reading wake the caller's task.
    pub(super) fn wait_readable(self: &Rc<Self>, fd: BorrowedFd<'_>, context: &Context<'_>) -> io::Result<()> {
        remember(&self.reader, context);
        self.register(fd)
    }

    /// Lets the next event of writing wake the caller's task.
    pub(super) fn wait_writable(self: &Rc<Self>, fd: BorrowedFd<'_>, context: &Context<'_>) -> io::Result<()> {
        remember(&self.writer, context);
        self.register(fd)
    }

    fn register(self: &Rc<Self>, fd: BorrowedFd<'_>) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        if self.key.get().is_some() {
            return Ok(());
        }
        with(|reactor| {
            let mut sources = reactor.sources.borrow_mut();
            let entry = sources.vacant_entry();
            let data = epoll::EventData::new_u64(entry.key() as u64);
            // What is ready already is told as an event, too: nothing is missed between the last try and this.
            epoll::add(&reactor.epoll, fd, data, Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET)?;
            self.key.set(Some(entry.key()));
            entry.insert(Rc::clone(self));
            Ok(())
        })
    }

    /// Forgets the source. The descriptor is closed next, which takes it out of epoll.
    pub(super) fn forget(&self) {
        let Some(key) = self.key.take() else { return };
        try_with(|reactor| drop(reactor.sources.borrow_mut().try_remove(key)));
    }

    /// An event came.
    pub(super) fn notify(&self, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        if flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR) {
            self.readable.set(true);
            if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR) {
                self.ended.set(true);
            }
            if flags.intersects(Flags::HUP | Flags::ERR) {
                self.failed.set(true);
            }
            wake(&self.reader);
        }
        if flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) && !self.writable.replace(true) {
            wake(&self.writer);
        }
    }
}

fn remember(slot: &RefCell<Option<Waker>>, context: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(waker) => waker.clone_from(context.waker()),
        None => *slot = Some(context.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    if let Some(waker) = &*slot.borrow() {
        waker.wake_by_ref();
    }
}
