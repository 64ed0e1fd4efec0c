//! The log: checkpoint, inclusion, place (formats.md §6).

use serde_json::{Value, json};
use touchstone_formats::LogKey;
use touchstone_formats::merkle::{EntryKind, entry, leaf_hash, verify_inclusion};

use super::Judging;
use crate::verdict::{Checks, Fault};

/// Entries before the first receipt: `boot` and the first `catalog`.
const ENTRIES_BEFORE_RECEIPTS: u64 = 2;

impl Judging<'_> {
    /// Everything about the proof. Whether the receipt is in the keyset's log; that a quote
    /// covers the checkpoint is the evidence's part.
    pub(super) fn log(&self, checks: &mut Checks) -> bool {
        let Some(seal) = &self.parts.seal else {
            return false;
        };
        let key = &self.parts.bundle.keyset.log;
        let mut log = Checks::new();

        if self.by.known.note(&seal.proof.note, key) {
            log.pass("log.signature", key.name.clone(), key.name.clone());
        } else {
            let reason = "the checkpoint is not signed by the keyset's log key";
            let fault = Fault::NotAuthentic;
            log.fail(
                "log.signature",
                fault,
                key.name.clone(),
                Value::Null,
                reason,
            );
        }

        let origin = &seal.checkpoint.origin;
        if *origin != key.name {
            let reason = "the checkpoint's origin is not the name of the keyset's log key";
            let (expected, found) = (key.name.clone(), origin.clone());
            log.fail("log.origin", Fault::NotAuthentic, expected, found, reason);
        } else if !key.name_is_origin() {
            let expected = LogKey::origin("<prefix>", &key.key);
            let reason =
                "the log's name does not end in the first 16 hex digits of its key's digest";
            log.fail(
                "log.origin",
                Fault::NotAuthentic,
                expected,
                origin.clone(),
                reason,
            );
        } else {
            log.pass("log.origin", key.name.clone(), origin.clone());
        }

        let leaf = leaf_hash(&entry(EntryKind::Receipt, self.parts.receipt.digest()));
        let (index, size) = (seal.proof.index, seal.checkpoint.size);
        let found = json!({ "index": index, "size": size });
        if verify_inclusion(index, size, leaf, &seal.proof.hashes, seal.checkpoint.root) {
            log.pass("log.inclusion", seal.checkpoint.root.to_string(), found);
        } else {
            let reason = "the proof does not lead from this receipt to the checkpoint's root";
            let root = seal.checkpoint.root.to_string();
            log.fail("log.inclusion", Fault::NotAuthentic, root, found, reason);
        }

        let sequence = self.parts.receipt.claims.sequence;
        let least = sequence.checked_add(ENTRIES_BEFORE_RECEIPTS);
        if least.is_some_and(|least| index >= least) {
            log.pass("log.index", least, index);
        } else {
            let reason = "the receipt stands earlier in the log than its sequence number allows";
            log.fail("log.index", Fault::NotAuthentic, least, index, reason);
        }

        let holds = log.hold();
        checks.extend(log);
        holds
    }
}
