//! Checkpoints, signed notes, proofs of inclusion, keys of logs (formats.md §8).
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::{Checkpoint, LogKey, SignedNote, TlogProof};

fuzz_target!(|input: &str| {
    if let Ok(checkpoint) = Checkpoint::parse(input) {
        assert_eq!(checkpoint.text(), input);
    }
    if let Ok(note) = SignedNote::parse(input) {
        assert_eq!(SignedNote::parse(&note.to_string()).as_ref(), Ok(&note));
        let _ = note.checkpoint();
    }
    if let Ok(proof) = TlogProof::parse(input) {
        assert_eq!(TlogProof::parse(&proof.to_string()).as_ref(), Ok(&proof));
        let _ = proof.note.checkpoint();
    }
    if let Ok(key) = input.parse::<LogKey>() {
        assert_eq!(key.to_string().parse::<LogKey>().as_ref(), Ok(&key));
        let _ = (key.key_id(), key.name_is_origin());
    }
});
