//! Callers that wait for a receipt's state to change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, futures::OwnedNotified};

use crate::pending::Id;

/// Who waits for what. Never more than there are connections.
#[derive(Debug, Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<Id, (usize, Arc<Notify>)>>,
}

impl Waiters {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Id, (usize, Arc<Notify>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a receipt. Whatever happens to it from now on is noticed.
    pub fn wait_for(self: &Arc<Self>, id: Id) -> Waiter {
        let notify = {
            let mut waiting = self.waiting();
            let (count, notify) = waiting.entry(id).or_default();
            *count += 1;
            notify.clone()
        };
        Waiter {
            id,
            notify,
            waiters: self.clone(),
        }
    }

    /// Something happened to these receipts.
    pub fn wake(&self, ids: impl Iterator<Item = Id>) {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        for id in ids {
            if let Some((_, notify)) = waiting.get(&id) {
                notify.notify_waiters();
            }
        }
    }

    /// Something happened that may concern everyone.
    pub fn wake_all(&self) {
        for (_, notify) in self.waiting().values() {
            notify.notify_waiters();
        }
    }
}

/// One caller that waits for one receipt.
#[derive(Debug)]
pub struct Waiter {
    id: Id,
    notify: Arc<Notify>,
    waiters: Arc<Waiters>,
}

impl Waiter {
    /// Ready when something happens after this call.
    pub fn change(&self) -> OwnedNotified {
        self.notify.clone().notified_owned()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting();
        if let Some((count, _)) = waiting.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_after_the_look_is_noticed_and_nothing_is_left_behind() {
        let waiters = Arc::new(Waiters::default());
        let (first, second) = (waiters.wait_for([1; 16]), waiters.wait_for([1; 16]));
        let other = waiters.wait_for([2; 16]);
        let (a, b, c) = (first.change(), second.change(), other.change());
        waiters.wake([[1; 16], [3; 16]].into_iter());
        a.await;
        b.await;
        let soon = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(soon, c).await.is_err());
        let c = other.change();
        waiters.wake_all();
        c.await;
        drop((first, second, other));
        assert!(waiters.waiting().is_empty());
    }
}
