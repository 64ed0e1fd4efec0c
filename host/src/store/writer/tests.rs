//! What the writer does with promises, from one writing-down to the next.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use touchstone_formats::GuaranteeSet;

use super::*;
use crate::{
    config::Config,
    metrics::Metrics,
    pending::Pending,
    store::{
        self,
        database::SYNC,
        read::{Fate, Readers},
    },
};

const SETTINGS: &str = r#"
listen = "tcp://127.0.0.1:0"
[enclave]
public = "tcp://127.0.0.1:1"
control = "tcp://127.0.0.1:2"
[store]
path = "unused"
[collateral]
folder = "unused"
"#;

/// A writer that does what it is told and nothing else, with two enclaves.
fn writer(file: &Path) -> Writer {
    let shared = Shared {
        pending: Arc::new(Pending::new(100_000)),
        waiters: Arc::default(),
        keysets: Default::default(),
        names: vec!["left".into(), "right".into()],
        recent: Arc::default(),
        metrics: Metrics::new(&Config::parse(SETTINGS).unwrap()).unwrap(),
    };
    let mut writer = Writer::new(store::open(file).unwrap(), Arc::new(shared)).unwrap();
    writer.restore().unwrap();
    writer
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.sqlite");
    (folder, file)
}

fn id(n: usize) -> Id {
    Digest::of(&n.to_le_bytes()).0[..16].try_into().unwrap()
}

/// Of one of six kinds.
fn note(n: usize) -> Note {
    Note {
        keyset: Digest::of(&[(n % 3) as u8]),
        require: GuaranteeSet::default_set(),
        enclave: Some(n % 2),
        since: Instant::now(),
    }
}

fn keyset(n: u8) -> ReadKeyset {
    ReadKeyset {
        digest: Digest::of(&[n]),
        jcs: "{}".into(),
        evidence: "{}".into(),
        closed: false,
    }
}

/// Which of `0..count` memory knows.
fn known(writer: &Writer, count: usize) -> Vec<usize> {
    (0..count)
        .filter(|n| writer.shared.pending.get(&id(*n)).is_some())
        .collect()
}

fn rows(writer: &Writer, what: &str) -> i64 {
    let sql = format!("SELECT {what}");
    let db = writer.db.connection();
    db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// 1: NORMAL, 2: FULL.
fn synchronous(writer: &Writer) -> i32 {
    let db = writer.db.connection();
    db.pragma_query_value(None, "synchronous", |row| row.get(0))
        .unwrap()
}

fn log_length(file: &Path) -> u64 {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).unwrap().len()
}

#[test]
fn notes_alone_wait_for_the_disk_once_a_second_and_all_else_always() {
    let (_folder, file) = file();
    let mut writer = writer(&file);
    let began = Instant::now();
    let after = |part: f64| began + SYNC.mul_f64(part);
    let mut n = 0;
    let mut flush = |writer: &mut Writer, with_notes: bool, at: f64| {
        if with_notes {
            writer.shared.pending.note(id(n), note(n));
            n += 1;
        }
        let before = log_length(&file);
        writer.flush(after(at), false).unwrap();
        let has_written = log_length(&file) > before;
        (
            has_written.then(|| synchronous(writer)),
            rows(writer, "count(*) FROM notes"),
        )
    };
    assert_eq!(flush(&mut writer, false, 0.0), (None, 0));
    assert_eq!(flush(&mut writer, true, 0.0), (Some(1), 1));
    assert_eq!(flush(&mut writer, true, 0.99), (Some(1), 2));
    // In time also if nothing comes any more, and once.
    assert_eq!(flush(&mut writer, false, 1.0), (Some(2), 2));
    assert_eq!(flush(&mut writer, false, 5.0), (None, 2));
    assert_eq!(flush(&mut writer, true, 5.0), (Some(1), 3));
    assert_eq!(flush(&mut writer, true, 5.5), (Some(1), 4));
    assert_eq!(flush(&mut writer, true, 6.0), (Some(2), 5));

    // What is acknowledged, and what is learnt of an enclave.
    writer.boot(0, [1; 16], &[keyset(0)]).unwrap();
    assert_eq!(synchronous(&writer), 2);
    assert_eq!(flush(&mut writer, true, 7.0).0, Some(1));
    writer.batches([1; 16], &[]).unwrap();
    assert_eq!(synchronous(&writer), 2);
    // With which the notes before are on the disk too.
    assert_eq!(flush(&mut writer, false, 9.0).0, None);
    assert_eq!(flush(&mut writer, true, 9.0).0, Some(1));
    writer.objects(&[(Digest::ZERO, Bytes::new())]).unwrap();
    assert_eq!(synchronous(&writer), 2);
    assert_eq!(flush(&mut writer, true, 9.1).0, Some(1));
    writer.catalog(&Digest::ZERO, "{}").unwrap();
    assert_eq!(synchronous(&writer), 2);
    // And the last of all.
    assert_eq!(flush(&mut writer, true, 9.2).0, Some(1));
    writer.flush(after(9.2), true).unwrap();
    assert_eq!(synchronous(&writer), 2);
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let (_folder, file) = file();
    let mut first = writer(&file);
    let rename = |writer: &Writer, from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        writer.db.connection().execute_batch(&sql).unwrap();
    };
    let add = |writer: &Writer, n: std::ops::Range<usize>| {
        n.for_each(|n| writer.shared.pending.note(id(n), note(n)));
    };
    let now = Instant::now();
    add(&first, 0..10);
    rename(&first, "notes", "gone");
    first.flush(now, false).unwrap_err();
    add(&first, 10..20);
    first.flush(now, false).unwrap_err();
    first.batches([1; 16], &[]).unwrap_err();
    first.boot(0, [1; 16], &[]).unwrap_err();
    assert_eq!(known(&first, 30).len(), 20);
    rename(&first, "gone", "notes");
    // One whose receipt is stored meanwhile is in no row.
    let here = HashSet::from([id(3)]);
    let transaction = first.db.begin(Commit::OnDisk).unwrap();
    notes::settle(&transaction, &first.shared, &here).unwrap();
    let arriving = |id: &Id| here.contains(id);
    let (shared, current) = (&first.shared, &first.current);
    let stored = write_rounds(&transaction, shared, current, &first.taken, &arriving).unwrap();
    transaction.commit().unwrap();
    assert!(stored.is_empty());
    first.written(stored);
    first.shared.pending.settle(here.into_iter());
    let ids = "coalesce(sum(length(ids)) / 16, 0) FROM notes";
    assert_eq!(rows(&first, ids), 19);
    // Written once.
    first.flush(now, false).unwrap();
    assert_eq!(rows(&first, ids), 19);
    drop(first);
    let second = writer(&file);
    let expected: Vec<usize> = (0..20).filter(|n| *n != 3).collect();
    assert_eq!(known(&second, 30), expected);
}

#[test]
fn rows_hold_what_is_pending_and_no_more() {
    let (_folder, file) = file();
    let mut first = writer(&file);
    let count = 20_000;
    // Rounds of all sizes: also of more ids than a row holds.
    let mut from = 0;
    for size in [1, 7, 300, 12_000, count - 12_308] {
        let ids = from..from + size;
        ids.for_each(|n| first.shared.pending.note(id(n), note(n)));
        from += size;
        first.flush(Instant::now(), false).unwrap();
    }
    let most = "max(length(ids)) / 16 FROM notes";
    assert_eq!((from, rows(&first, most)), (count, 1_024));
    let ids = "coalesce(sum(length(ids)) / 16, 0) FROM notes";
    assert_eq!(rows(&first, ids), count as i64);
    let settle = |writer: &mut Writer, which: &dyn Fn(usize) -> bool| {
        let ids: HashSet<Id> = (0..count).filter(|n| which(*n)).map(id).collect();
        let transaction = writer.db.begin(Commit::OnDisk).unwrap();
        notes::settle(&transaction, &writer.shared, &ids).unwrap();
        transaction.commit().unwrap();
        writer.shared.pending.settle(ids.into_iter());
    };
    settle(&mut first, &|n| n % 5 == 1 || (1_000..9_000).contains(&n));
    let left: Vec<usize> = (0..count)
        .filter(|n| n % 5 != 1 && !(1_000..9_000).contains(n))
        .collect();
    assert!(known(&first, count) == left);
    assert_eq!(rows(&first, ids), left.len() as i64);
    drop(first);

    // They are known again as they were, and what comes now is in rounds of its own.
    let mut second = writer(&file);
    assert!(known(&second, count) == left);
    for n in &left {
        let (found, was) = (second.shared.pending.get(&id(*n)).unwrap(), note(*n));
        let kind = |note: Note| (note.keyset, note.require, note.enclave);
        assert_eq!(kind(found), kind(was));
    }
    second.shared.pending.note(id(count), note(count));
    second.flush(Instant::now(), false).unwrap();
    settle(&mut second, &|n| n % 7 != 0);
    let left: HashSet<usize> = left.into_iter().filter(|n| n % 7 == 0).collect();
    assert_eq!(rows(&second, ids), left.len() as i64 + 1);
    settle(&mut second, &|_| true);
    assert_eq!(rows(&second, "count(*) FROM notes"), 1);
    assert_eq!(known(&second, count + 1), [count]);
}

/// What is lost is found by its id for good, and no longer known; also what is promised too late.
#[tokio::test]
async fn what_is_lost_is_kept_by_its_id() {
    let (_folder, file) = file();
    let mut first = writer(&file);
    let now = Instant::now();
    // Keyset 0 is of the left one, 1 of the right one, and 2 never heard of.
    first.boot(0, [1; 16], &[keyset(0)]).unwrap();
    first.boot(1, [2; 16], &[keyset(1)]).unwrap();
    let note = |n: usize| Note {
        enclave: Some(usize::from(n % 3 == 1)),
        ..note(n)
    };
    (0..30).for_each(|n| first.shared.pending.note(id(n), note(n)));
    first.flush(now, false).unwrap();
    // These are noted and not written when the left one is found to have started anew.
    (30..60).for_each(|n| first.shared.pending.note(id(n), note(n)));
    first.boot(0, [3; 16], &[keyset(3)]).unwrap();
    let right: Vec<usize> = (0..60).filter(|n| n % 3 == 1).collect();
    assert_eq!(known(&first, 60), right);
    assert_eq!(rows(&first, "count(*) FROM pending"), 40);
    assert_eq!(rows(&first, "sum(length(ids)) / 16 FROM notes"), 20);

    let readers = Readers::new(&file, Arc::default());
    let fate = async |n: usize, noted: Option<Digest>| {
        let found = readers.lookup(id(n), noted).await.unwrap();
        (found.promised, found.fate)
    };
    for n in 0..60 {
        let noted = first.shared.pending.get(&id(n)).map(|note| note.keyset);
        let expected = match n % 3 {
            1 => Fate::Open,
            _ => Fate::Ended,
        };
        assert_eq!(fate(n, noted).await, (true, expected), "{n}");
    }
    // Nobody promised it; it is promised, and may come; it was promised when its enclave had gone.
    assert_eq!(fate(99, None).await, (false, Fate::Open));
    assert_eq!(fate(99, Some(Digest::of(&[1]))).await, (true, Fate::Open));
    assert_eq!(fate(99, Some(Digest::of(&[2]))).await, (true, Fate::Open));
    let late = note(0).keyset;
    assert_eq!(fate(99, Some(late)).await, (true, Fate::Ended));
    first.shared.pending.note(id(99), note(0));
    first.flush(now, false).unwrap();
    drop(first);

    let second = writer(&file);
    assert_eq!(known(&second, 100), right);
    assert_eq!(fate(99, None).await, (true, Fate::Ended));
    assert_eq!(fate(0, None).await, (true, Fate::Ended));
}

/// Where a receipt was had before its seal, there is a row for it beside its round.
#[test]
fn notes_of_both_kinds_are_settled() {
    let (_folder, file) = file();
    let mut writer = writer(&file);
    (0..4).for_each(|n| writer.shared.pending.note(id(n), note(0)));
    writer.flush(Instant::now(), false).unwrap();
    let insert = "INSERT INTO pending (id, keyset, guarantees) VALUES (?1, zeroblob(32), 'signed')";
    for n in [0, 1, 5] {
        let db = writer.db.connection();
        db.execute(insert, [&id(n)[..]]).unwrap();
        let place = Place {
            round: 0,
            row: true,
        };
        writer.shared.pending.restore(id(n), note(0), place);
    }
    let transaction = writer.db.begin(Commit::OnDisk).unwrap();
    let ids = HashSet::from([id(0), id(2), id(5)]);
    notes::settle(&transaction, &writer.shared, &ids).unwrap();
    transaction.commit().unwrap();
    writer.shared.pending.settle(ids.into_iter());
    assert_eq!(rows(&writer, "count(*) FROM pending"), 1);
    assert_eq!(rows(&writer, "sum(length(ids)) / 16 FROM notes"), 2);
    assert_eq!(known(&writer, 6), [1, 3]);
}

#[test]
fn a_kill_is_survived_by_what_was_flushed() {
    let (folder, file) = file();
    let mut first = writer(&file);
    (0..100).for_each(|n| first.shared.pending.note(id(n), note(n)));
    first.flush(Instant::now(), false).unwrap();
    (100..200).for_each(|n| first.shared.pending.note(id(n), note(n)));
    // What another process would find now: the files as they are, with nothing closed.
    let copy = folder.path().join("copy.sqlite");
    for suffix in ["", "-wal"] {
        let name = |file: &Path| format!("{}{suffix}", file.display());
        std::fs::copy(name(&file), name(&copy)).unwrap();
    }
    let second = writer(&copy);
    assert_eq!(known(&second, 200).len(), 100);
    assert_eq!(SYNC, Duration::from_secs(1), "host.md says so");
}
