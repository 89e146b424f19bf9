//! Where alerts arrive in a simulation, which has no network.

use std::cell::RefCell;

/// What takes a body.
type Take = Box<dyn Fn(&[u8])>;

thread_local! {
    static SINK: RefCell<Option<Take>> = const { RefCell::new(None) };
}

/// While it lives, alerts that this thread sends go elsewhere.
pub(crate) struct Sink(());

impl Sink {
    /// Passes the body of each to `take`.
    pub(crate) fn open(take: impl Fn(&[u8]) + 'static) -> Self {
        SINK.set(Some(Box::new(take)));
        Self(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        SINK.set(None);
    }
}

/// Takes the body of an alert instead of its receiver; `false`: nothing is simulated on this thread.
pub(super) fn arrives(body: &[u8]) -> bool {
    SINK.with_borrow(|sink| sink.as_ref().map(|take| take(body)).is_some())
}
