//! The descriptors spawn waits on, and whose they are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Events taken at once.
const EVENTS_MAX: usize = 64;

/// What happens on a descriptor.
pub type Interest = epoll::EventFlags;

/// An epoll instance that knows a `Source` for every descriptor.
#[derive(Debug)]
pub struct Poller<Source> {
    inner: Rc<Inner<Source>>,
}

#[derive(Debug)]
struct Inner<Source> {
    epoll: OwnedFd,
    sources: RefCell<BTreeMap<u64, Source>>,
    next: Cell<u64>,
}

/// A descriptor that is waited on until this is dropped.
#[derive(Debug)]
pub struct Watched<Source> {
    fd: OwnedFd,
    key: u64,
    inner: Rc<Inner<Source>>,
}

impl<Source: Copy> Poller<Source> {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let inner = Inner { epoll, sources: RefCell::default(), next: Cell::new(0) };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// Waits on `fd`, level-triggered; events carry `source`. Hang-up and error are always reported.
    ///
    /// # Errors
    /// A descriptor that cannot be waited on.
    pub fn watch(
        &self,
        fd: OwnedFd,
        interest: Interest,
        source: Source,
    ) -> io::Result<Watched<Source>> {
        let key = self.inner.next.get();
        self.inner.next.set(key.wrapping_add(1));
        epoll::add(&self.inner.epoll, &fd, epoll::EventData::new_u64(key), interest)?;
        self.inner.sources.borrow_mut().insert(key, source);
        Ok(Watched { fd, key, inner: Rc::clone(&self.inner) })
    }

    /// Waits for something to happen, until `deadline` if there is one.
    ///
    /// # Errors
    /// What `epoll_wait(2)` says.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<(Source, Interest)>> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // A millisecond more, so that what is due is due when we wake.
        let more = |left: Duration| match left {
            Duration::ZERO => left,
            left => left.saturating_add(Duration::from_millis(1)),
        };
        let left = left.map(more);
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(&self.inner.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let sources = self.inner.sources.borrow();
        let known = |event: &epoll::Event| {
            let (key, flags) = (event.data, event.flags);
            sources.get(&key.u64()).map(|source| (*source, flags))
        };
        Ok(events.iter().filter_map(known).collect())
    }
}

impl<Source> Watched<Source> {
    /// Waits for something else on the same descriptor.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn change(&self, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.key);
        Ok(epoll::modify(&self.inner.epoll, &self.fd, data, interest)?)
    }
}

impl<Source> AsFd for Watched<Source> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<Source> Drop for Watched<Source> {
    fn drop(&mut self) {
        // A child between clone and exec may hold the file open, and epoll would go on reporting it.
        let _ = epoll::delete(&self.inner.epoll, &self.fd);
        self.inner.sources.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_is_readable_and_forgets_what_was_dropped() {
        let poller = Poller::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let watched = poller.watch(read, Interest::IN, 7).unwrap();
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(poller.wait(None).unwrap(), [(7, Interest::IN)]);
        assert_eq!(poller.wait(None).unwrap(), [(7, Interest::IN)], "level-triggered");
        let copy = rustix::io::dup(&watched).unwrap();
        drop(watched);
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty(), "though a copy is open");
        drop(copy);
    }
}
