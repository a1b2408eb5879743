//! What the watcher is asked for while it waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::limits::MAX_DOUBTS;

/// Where a watcher is asked.
#[derive(Clone, Debug)]
pub(in crate::master) struct Orders {
    look: Arc<AtomicBool>,
    sender: SyncSender<Order>,
}

/// The watcher's end.
#[derive(Debug)]
pub(in crate::master) struct Told {
    look: Arc<AtomicBool>,
    receiver: Receiver<Order>,
}

#[derive(Debug)]
enum Order {
    Look,
    Doubt(IpAddr, u32),
}

/// What came while it waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An order to look at everything.
    Look,
    /// Nothing, or doubts.
    Nothing,
}

/// The server is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NobodyAsks;

/// Both ends.
pub(in crate::master) fn orders() -> (Orders, Told) {
    let (sender, receiver) = sync_channel(MAX_DOUBTS);
    let look = Arc::new(AtomicBool::new(false));
    (Orders { look: look.clone(), sender }, Told { look, receiver })
}

impl Orders {
    /// Everything is to be looked at.
    pub(in crate::master) fn look(&self) {
        self.look.store(true, Ordering::SeqCst);
        // If there is no room the watcher is going to look in any case.
        let _ = self.sender.try_send(Order::Look);
    }

    /// A host says that a chunk is wrong. While the watcher is busy, what there is no room for is left out.
    pub(in crate::master) fn doubt(&self, host: IpAddr, chunk: u32) {
        let _ = self.sender.try_send(Order::Doubt(host, chunk));
    }
}

impl Told {
    /// Waits for so long, or for ever, or until there is an order; orders that come together are one.
    pub(super) fn wait(
        &self,
        most: Option<Duration>,
        mut doubt: impl FnMut(IpAddr, u32),
    ) -> Result<Asked, NobodyAsks> {
        let order = match most {
            Some(most) => self.receiver.recv_timeout(most),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let first = match order {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(NobodyAsks),
        };
        for order in first.into_iter().chain(self.receiver.try_iter()) {
            if let Order::Doubt(host, chunk) = order {
                doubt(host, chunk);
            }
        }
        Ok(if self.look.swap(false, Ordering::SeqCst) { Asked::Look } else { Asked::Nothing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(told: &Told) -> Result<Asked, NobodyAsks> {
        told.wait(Some(Duration::ZERO), |_, _| {})
    }

    #[test]
    fn orders_that_come_together_are_one() {
        let (orders, told) = orders();
        orders.look();
        orders.look();
        assert_eq!(nothing(&told), Ok(Asked::Look));
        assert_eq!(nothing(&told), Ok(Asked::Nothing));
        drop(orders);
        assert_eq!(nothing(&told), Err(NobodyAsks));
    }

    #[test]
    fn an_order_is_not_lost_among_more_doubts_than_there_is_room_for() {
        let (orders, told) = orders();
        for chunk in 0..10 * MAX_DOUBTS as u32 {
            orders.doubt([10, 0, 0, 1].into(), chunk);
        }
        orders.look();
        let mut doubts = 0;
        assert_eq!(told.wait(None, |_, _| doubts += 1), Ok(Asked::Look));
        assert_eq!(doubts, MAX_DOUBTS);
    }
}
