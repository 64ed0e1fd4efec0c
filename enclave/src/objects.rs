//! Objects by digest: what receipts and keysets name and anyone may fetch.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use touchstone_formats::digest::Digest;

/// Most bytes of objects that are no longer in force.
const RECENT_BYTES: usize = 32 << 20;

/// JCS objects that stay (settings, build statement) and ones that came and may go (keysets, catalogs,
/// model configurations), the oldest first.
pub struct Objects {
    fixed: HashMap<Digest, Bytes>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    map: HashMap<Digest, Bytes>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl Objects {
    /// A store that always has these.
    pub fn new(fixed: impl IntoIterator<Item = Bytes>) -> Self {
        let fixed = fixed
            .into_iter()
            .map(|object| (Digest::of(&object), object))
            .collect();
        Self {
            fixed,
            recent: Mutex::default(),
        }
    }

    /// Adds an object under its digest.
    pub fn insert(&self, digest: Digest, object: Bytes) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.map.contains_key(&digest) {
            return;
        }
        recent.bytes += object.len();
        recent.order.push_back(digest);
        recent.map.insert(digest, object);
        while recent.bytes > RECENT_BYTES
            && let Some(oldest) = recent.order.pop_front()
        {
            let gone = recent.map.remove(&oldest).map_or(0, |object| object.len());
            recent.bytes -= gone;
        }
    }

    /// The object with this digest, if it is still here.
    pub fn find(&self, digest: &Digest) -> Option<Bytes> {
        self.fixed.get(digest).cloned().or_else(|| {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.map.get(digest).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_objects_are_bounded_and_fixed_ones_stay() {
        let objects = Objects::new([Bytes::from_static(b"settings")]);
        let object = |n: u8| Bytes::from(vec![n; RECENT_BYTES / 4]);
        for n in 0..6 {
            objects.insert(Digest::of(&object(n)), object(n));
        }
        assert_eq!(
            objects.find(&Digest::of(&object(0))),
            None,
            "the oldest went"
        );
        assert_eq!(objects.find(&Digest::of(&object(1))), None);
        assert_eq!(objects.find(&Digest::of(&object(5))), Some(object(5)));
        assert_eq!(
            objects.find(&Digest::of(b"settings")),
            Some(Bytes::from_static(b"settings"))
        );
    }
}
