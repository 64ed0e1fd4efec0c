//! The log: lies told by whoever holds the log key and can have any checkpoint quoted.

use touchstone_formats::merkle::{EntryKind, entry};
use touchstone_formats::{Digest, LogKey, Purpose};

use crate::support::{Case, all_refused, logged, world};

#[test]
fn lies_about_the_log_are_refused() {
    all_refused(
        logged,
        &[
            ("another log key", 3, "log.signature", |m| {
                m.log_seed([9; 32])
            }),
            ("another origin", 3, "log.origin", |m| {
                m.checkpoint(|c| c.origin = "enclave.example/log/0123456789abcdef".into())
            }),
            ("another root", 3, "log.inclusion", |m| {
                m.checkpoint(|c| c.root = Digest::ZERO)
            }),
            ("a larger tree", 3, "log.inclusion", |m| {
                m.checkpoint(|c| c.size += 8)
            }),
            ("a smaller tree", 3, "log.inclusion", |m| {
                m.checkpoint(|c| c.size = 3)
            }),
            ("an empty tree", 3, "log.inclusion", |m| {
                m.checkpoint(|c| (c.size, c.root) = (0, Digest::of(b"")))
            }),
            ("the index after", 3, "log.inclusion", |m| {
                m.index(|i| *i += 1)
            }),
            ("the index before", 3, "log.inclusion", |m| {
                m.index(|i| *i -= 1)
            }),
            ("no hashes", 3, "log.inclusion", |m| m.path(Vec::clear)),
            ("a hash too many", 3, "log.inclusion", |m| {
                m.path(|p| p.push(Digest::ZERO))
            }),
            ("hashes in another order", 3, "log.inclusion", |m| {
                m.path(|p| p.swap(0, 1))
            }),
            ("another hash", 3, "log.inclusion", |m| {
                m.path(|p| p[0].0[0] ^= 1)
            }),
            ("logged as a catalog", 3, "log.inclusion", |m| {
                m.entries(|all| {
                    let digest: [u8; 32] = all[5][all[5].len() - 32..].try_into().unwrap();
                    all[5] = entry(EntryKind::Catalog, Digest(digest));
                })
            }),
            ("another receipt logged", 3, "log.inclusion", |m| {
                m.entries(|all| all[5] = entry(EntryKind::Receipt, Digest::of(b"other")))
            }),
            ("before its sequence number", 3, "log.index", |m| {
                m.claims(|c| c.sequence = 4)
            }),
            ("a sequence number at the end", 3, "log.index", |m| {
                m.claims(|c| c.sequence = u64::MAX)
            }),
            ("an extension line", 2, "log.proof.format", |m| {
                m.note_text(|t| t.push_str("more\n"))
            }),
            ("a leading zero", 2, "log.proof.format", |m| {
                m.note_text(|t| *t = t.replacen("\n8\n", "\n08\n", 1))
            }),
            ("no signature", 2, "log.proof.format", |m| {
                m.note(|n| n.truncate(n.rfind("\u{2014}").unwrap()))
            }),
            ("a signature twice", 3, "log.signature", |m| {
                m.note(|n| {
                    let line = n[n.rfind("\u{2014}").unwrap()..].to_owned();
                    n.push_str(&line);
                })
            }),
            ("an extra line in the proof", 2, "log.proof.format", |m| {
                m.bundle(|b| {
                    let proof = b.proof.take().unwrap();
                    b.proof = Some(proof.replacen("index", "extra AAAA\nindex", 1));
                })
            }),
            ("an empty proof", 2, "log.proof.format", |m| {
                m.bundle(|b| b.proof = Some(String::new()))
            }),
            ("no seal", 4, "guarantees.stated", |m| m.unsealed()),
            ("a seal without its quote", 4, "guarantees.stated", |m| {
                m.purposes(&[Purpose::Boot])
            }),
            ("a quote without its seal", 4, "evidence.report_data", |m| {
                m.bundle(|b| b.proof = None)
            }),
        ],
    );
}

#[test]
fn the_boot_and_first_catalog_entries_are_never_receipts() {
    let world = world();
    let at = |index: u64| {
        let sequence = index.saturating_sub(2);
        let minted = logged(&world)
            .claims(move |c| c.sequence = sequence)
            .among(0, 4);
        let moved = minted.entries(move |all| {
            let receipt = all.remove(2);
            all.insert(index as usize, receipt);
        });
        Case::new(&world, moved.finish())
    };
    // Where the proof still leads (index 2, as it was minted) all is well; the others need a proof of their own.
    at(2).holds();
    for index in [0, 1] {
        at(index).refused(3, "log.inclusion");
    }
}

#[test]
fn the_logs_name_ends_in_its_keys_digest() {
    let with = |name: &dyn Fn(&LogKey) -> String| {
        let mut world = world();
        world.keyset.log.name = name(&world.keyset.log);
        Case::new(&world, logged(&world).finish())
    };
    with(&|key| key.name.clone()).holds();
    with(&|key| LogKey::origin("another.operator", &key.key)).holds();
    with(&|_| "enclave.example/log".into()).refused(3, "log.origin");
    with(&|_| "enclave.example/log/0000000000000000".into()).refused(3, "log.origin");
    with(&|key| LogKey::origin("enclave.example", &[1; 32]).replace("enclave", &key.name))
        .refused(3, "log.origin");
}

#[test]
fn signatures_of_strangers_are_ignored_sixteen_at_most() {
    let world = world();
    let with = |strangers: usize| {
        let minted = logged(&world).note(move |note| {
            for n in 0..strangers {
                let text = note[..note.rfind("\n\n").unwrap() + 1].to_owned();
                let name = format!("witness.example/w{n}");
                let signed = touchstone_testkit::mint::sign_note(&[n as u8 + 1; 32], &name, &text);
                note.push_str(&signed[signed.rfind("\u{2014}").unwrap()..]);
            }
        });
        Case::new(&world, minted.finish())
    };
    with(1).holds();
    with(16).holds();
    with(17).refused(2, "log.proof.format");
}
