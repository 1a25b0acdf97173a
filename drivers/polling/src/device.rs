//! The device, as it were: what a real one has in its registers is state in memory here.

use core::sync::atomic::{AtomicU32, Ordering};

/// A device that cannot interrupt: it has something to say now and then, and whoever wants to know has to look.
#[derive(Debug, Default)]
pub(crate) struct Device {
    looks: AtomicU32,
    requests: AtomicU32,
    served: AtomicU32,
}

impl Device {
    /// At every so many looks there is a new request.
    const REQUEST_EVERY: u32 = 2;

    /// Reads the status register: whether the device needs attention.
    pub(crate) fn needs_attention(&self) -> bool {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        if look.is_multiple_of(Self::REQUEST_EVERY) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        self.requests.load(Ordering::Relaxed) != self.served.load(Ordering::Relaxed)
    }

    /// Does what the device wants.
    pub(crate) fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was looked at.
    pub(crate) fn looks(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Whether nothing that it wanted is left undone.
    pub(crate) fn is_content(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == self.served.load(Ordering::Relaxed)
    }
}
