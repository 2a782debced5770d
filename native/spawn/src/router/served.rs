//! What the two kinds of published ports have in common: a thread without capabilities that waits in epoll alone, and a
//! place for each client, of which a tenant has not all.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Clients of one port, of all ports of a tenant, and of all: two descriptors each. The last quarter of all is for tenants
/// that have few.
pub const OF_A_PORT_MAX: usize = 512;
const OF_A_TENANT_MAX: usize = 1024;
const OF_ALL_MAX: usize = 8192;
const FEW: usize = 64;
/// Descriptors that are not clients'.
const OTHER_DESCRIPTORS: usize = 2048;
const STACK_BYTES: usize = 256 << 10;

static OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// The clients of each tenant, by its bridge.
#[derive(Debug, Default)]
pub struct Tenants(BTreeMap<String, Weak<AtomicUsize>>);

impl Tenants {
    /// Places for the clients of one more port of this tenant.
    pub fn places(&mut self, bridge: &str) -> Places {
        self.0.retain(|_, clients| clients.strong_count() > 0);
        let known = self.0.get(bridge).and_then(Weak::upgrade);
        let clients = known.unwrap_or_default();
        self.0.insert(bridge.into(), Arc::downgrade(&clients));
        Places(clients)
    }
}

/// Where one port's clients find theirs.
#[derive(Debug)]
pub struct Places(Arc<AtomicUsize>);

/// One client's, until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// None when the tenant, or everybody, has as many as there may be.
    pub fn take(&self) -> Option<Place> {
        let taken = |counter: &AtomicUsize, most: usize| {
            let more = |count: usize| (count < most).then(|| count.saturating_add(1));
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
        };
        let own = taken(&self.0, OF_A_TENANT_MAX)?;
        let most = of_all_max();
        let most = if own < FEW { most } else { most.saturating_sub(most >> 2) };
        if taken(&OF_ALL, most).is_none() {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(&self.0)))
    }
}

/// Fewer where this process may not have that many descriptors.
fn of_all_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    OF_ALL_MAX.min(limit.saturating_sub(OTHER_DESCRIPTORS) >> 1)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        OF_ALL.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A port that is served until this is dropped; its socket, and all that it had open, is closed then. The thread has no
/// capability, but is one of the router's process and root's user id.
#[derive(Debug)]
pub struct Served {
    /// The thread hears when it is closed.
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Has a new thread `open` what serves, and run it. What `open` is given is to be waited on: it hangs up when the
    /// serving is to end. Pods are reached from the network of the calling thread.
    ///
    /// # Errors
    /// What `open` says; no thread, or no descriptors.
    pub fn start<T: 'static>(
        open: impl FnOnce(OwnedFd) -> io::Result<T> + Send + 'static,
        serve: fn(T),
    ) -> io::Result<Self> {
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (tell, told) = sync_channel(1);
        let run = move || {
            let made = drop_capabilities().and_then(|()| open(ended));
            match made {
                Ok(made) => {
                    let _ = tell.send(Ok(()));
                    serve(made);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        let thread = Builder::new().name("door".into()).stack_size(STACK_BYTES).spawn(run)?;
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread is gone")))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Served {
    /// Has it end, and does not wait for that.
    pub fn end(&mut self) {
        self.end = None;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
        // It waits for nothing but epoll, and the port is free when it is gone.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Of the calling thread: all. The list of calls that are never done comes with the thread that made this one.
fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_s_clients_leave_room_for_another_s() {
        let mut tenants = Tenants::default();
        let ports = [tenants.places("cmb1"), tenants.places("cmb1")];
        let taken: Vec<Place> =
            ports.iter().cycle().map_while(Places::take).take(OF_ALL_MAX).collect();
        assert_eq!(taken.len(), OF_A_TENANT_MAX);
        let other = tenants.places("cmb2");
        assert!(other.take().is_some());
        drop(taken);
        assert!(ports.first().unwrap().take().is_some());
        // Nobody's count is kept for ever.
        drop(ports);
        drop(tenants.places("cmb3"));
        assert_eq!(tenants.0.keys().collect::<Vec<_>>(), ["cmb2", "cmb3"]);
    }
}
