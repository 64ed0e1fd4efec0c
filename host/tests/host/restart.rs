//! What outlives the host, whenever it is killed; and what it does with a store that it cannot use.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use touchstone_formats::{Bundle, TlogProof, headers::TouchstoneResponse, text::hex_encode};

use crate::{
    client::{get, send, until},
    enclave::{Enclave, Id},
    run::{Place, Process},
};

fn target(id: Id) -> String {
    format!("/v1/receipts/{}", hex_encode(&id))
}

async fn infer(address: std::net::SocketAddr) -> Id {
    let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
    TouchstoneResponse::parse(answer.header("touchstone").unwrap())
        .unwrap()
        .id
}

/// Where the host is killed.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A control request of this kind has come in and is not answered.
    Asked(&'static str),
    /// It was carried out, and the answer never arrives.
    Unanswered(&'static str),
    /// It was answered this long ago.
    Answered(&'static str, Duration),
}

/// Kills the host at a step; the flag says that it did.
fn kill_at(enclave: &Enclave, host: &Process, step: Step) -> Arc<AtomicBool> {
    let pid = Pid::from_raw(host.id() as i32).unwrap();
    let (done, flag) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let killed = done.clone();
    // Once: what comes after is another host.
    let once = move || !flag.swap(true, SeqCst);
    match step {
        Step::Asked(kind) => enclave.before(move |_, target| {
            let hit = target.contains(kind) && once();
            if hit {
                kill_process(pid, Signal::KILL).unwrap();
                killed.store(true, SeqCst);
            }
            hit
        }),
        Step::Unanswered(kind) => enclave.after(move |_, target| {
            let hit = target.contains(kind) && once();
            if hit {
                kill_process(pid, Signal::KILL).unwrap();
                killed.store(true, SeqCst);
            }
            hit
        }),
        Step::Answered(kind, delay) => enclave.after(move |_, target| {
            if target.contains(kind) && once() {
                let killed = killed.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    kill_process(pid, Signal::KILL).unwrap();
                    killed.store(true, SeqCst);
                });
            }
            false
        }),
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_any_step_the_host_keeps_all_that_it_acknowledged() {
    let mut steps = Vec::new();
    for kind in ["keysets", "batches", "ack"] {
        steps.extend([Step::Asked(kind), Step::Unanswered(kind)]);
    }
    // From the answer with the batches to well after the acknowledgement: through reading, the
    // transaction, its commit, and what follows.
    for microseconds in (0..12_000).step_by(500) {
        steps.push(Step::Answered(
            "batches",
            Duration::from_micros(microseconds),
        ));
    }
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let mut all: Vec<Id> = Vec::new();
    let (mut lost_work, mut kept_work) = (0, 0);
    for step in steps {
        let host = place.spawn();
        // This one pulls as usual until all is well.
        enclave.all_acknowledged().await;
        let fresh = [infer(host.address()).await, infer(host.address()).await];
        all.extend(fresh);
        let done = match step {
            // Asked for at the start alone.
            Step::Asked("keysets") | Step::Unanswered("keysets") => {
                host.kill();
                let settings = place.path("host.toml");
                let barrier = enclave.clone();
                // The next one is killed at its first question.
                let next = Arc::new(std::sync::Mutex::new(None::<Process>));
                let flag = Arc::new(AtomicBool::new(false));
                let (asked, hit) = (flag.clone(), matches!(step, Step::Asked(_)));
                let hook =
                    move |target: &str| target.contains("keysets") && !asked.swap(true, SeqCst);
                match hit {
                    true => barrier.before(move |_, target| hook(target)),
                    false => barrier.after(move |_, target| hook(target)),
                }
                *next.lock().unwrap() = Some(Process::spawn(&settings));
                let end = Instant::now() + Duration::from_secs(10);
                while !flag.load(SeqCst) {
                    assert!(Instant::now() < end, "{step:?} never came");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                next.lock().unwrap().take().unwrap().kill();
                enclave.seal();
                None
            }
            _ => {
                let done = kill_at(&enclave, &host, step);
                enclave.seal();
                Some((done, host))
            }
        };
        if let Some((done, host)) = done {
            let end = Instant::now() + Duration::from_secs(10);
            while !done.load(SeqCst) {
                assert!(Instant::now() < end, "{step:?} never came");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            host.wait();
        }
        enclave.no_hooks();
        // By the enclave's word, all of these are kept. The enclave has forgotten them.
        let acknowledged = enclave.acknowledged_receipts();
        enclave.die().await;
        let host = place.spawn();
        for id in &acknowledged {
            let answer = get(host.address(), &target(*id)).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{step:?}: acknowledged and lost: {}",
                host.log()
            );
            Bundle::parse(&answer.body).unwrap();
        }
        // And those of the batch under way are stored whole, or not at all.
        let mut stored = 0;
        for id in fresh {
            let answer = get(host.address(), &target(id)).await;
            match answer.status {
                StatusCode::OK => stored += 1,
                // Noted or, killed within the flush time, unknown here until the enclave is back.
                StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE => {}
                other => panic!("{step:?}: {other}"),
            }
        }
        assert!(stored == 0 || stored == 2, "{step:?}: half a batch");
        match stored {
            0 => lost_work += 1,
            _ => kept_work += 1,
        }
        host.kill();
        enclave.come_back().await;
    }
    // The steps lie on both sides of the commit.
    assert!(
        lost_work >= 4 && kept_work >= 2,
        "{lost_work} before the commit, {kept_work} after it"
    );

    let host = place.spawn();
    enclave.all_acknowledged().await;
    for id in all {
        assert_eq!(
            get(host.address(), &target(id)).await.status,
            StatusCode::OK
        );
    }
    let (code, log) = host.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("MISBEHAVIOUR"), "{log}");
    let db = Connection::open(place.store()).unwrap();
    let left: [i64; 3] = ["notes", "pending", "misbehaviour"].map(|table| {
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .unwrap()
    });
    assert_eq!(left, [0; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_outlives_the_host_and_ends_with_the_enclave() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let id = infer(host.address()).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    host.kill();
    enclave.die().await;

    let host = place.spawn();
    let answer = get(host.address(), &target(id)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", host.log());
    host.kill();

    // Both start anew: the host finds out that the promise cannot be kept.
    enclave.rise().await;
    let host = place.spawn();
    until(host.address(), &target(id), "gone", |answer| {
        answer.status == StatusCode::GONE
    })
    .await;
    assert!(
        host.log().contains("ended before sealing"),
        "{}",
        host.log()
    );
    // That is remembered, whether or not an enclave is there.
    host.kill();
    enclave.die().await;
    let host = place.spawn();
    assert_eq!(
        get(host.address(), &target(id)).await.status,
        StatusCode::GONE
    );
}

/// Noted before the host has heard of any keyset, or boot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_under_an_unknown_keyset_ends_with_the_enclave_too() {
    let enclave = Enclave::start().await;
    enclave.before(|_, _| true);
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let id = infer(host.address()).await;
    assert_eq!(
        get(host.address(), &target(id)).await.status,
        StatusCode::ACCEPTED
    );
    tokio::time::sleep(Duration::from_millis(150)).await;
    // The first boot that it sees may be the one that promised.
    enclave.die().await;
    enclave.no_hooks();
    enclave.rise().await;
    let probe = enclave.answer("signed");
    until(host.address(), &target(probe), "there", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    assert_eq!(
        get(host.address(), &target(id)).await.status,
        StatusCode::ACCEPTED
    );
    // The next one cannot be.
    enclave.die().await;
    enclave.rise().await;
    until(host.address(), &target(id), "gone", |answer| {
        answer.status == StatusCode::GONE
    })
    .await;
}

/// A file of version 2 had a row for each promise, and those are kept too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_row_for_each_promise_keeps_them() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    enclave.answer("logged");
    enclave.seal();
    enclave.all_acknowledged().await;
    let (kept, lost) = (infer(host.address()).await, [7; 16]);
    tokio::time::sleep(Duration::from_millis(150)).await;
    host.kill();
    let db = Connection::open(place.store()).unwrap();
    db.execute_batch(
        "INSERT INTO pending (id, keyset, guarantees, boot, enclave)
         SELECT ids, keyset, guarantees, boot, enclave FROM notes;
         DROP TABLE notes;
         INSERT INTO boots (id, turn, through) VALUES (x'00', 0, 0);
         INSERT INTO pending (id, keyset, guarantees, boot)
         VALUES (x'07070707070707070707070707070707', zeroblob(32), 'signed', last_insert_rowid());
         PRAGMA user_version = 2;",
    )
    .unwrap();
    let rows = |db: &Connection| -> i64 {
        db.query_row("SELECT count(*) FROM pending", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(rows(&db), 2);
    drop(db);
    let host = place.spawn();
    for (id, status) in [(kept, StatusCode::ACCEPTED), (lost, StatusCode::GONE)] {
        assert_eq!(get(host.address(), &target(id)).await.status, status);
    }
    enclave.seal();
    enclave.all_acknowledged().await;
    let answer = get(host.address(), &target(kept)).await;
    assert_eq!(answer.status, StatusCode::OK);
    host.kill();
    // The one that came is no longer pending.
    assert_eq!(rows(&Connection::open(place.store()).unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_given_again_change_nothing() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let mut ids = Vec::new();
    for size in [1, 3, 64, 65, 200] {
        ids.extend((0..size).map(|_| enclave.answer("logged quoted")));
        enclave.seal();
        enclave.quote(&ids[..1]);
        enclave.all_acknowledged().await;
    }
    let count = || {
        let db = Connection::open(place.store()).unwrap();
        [
            "batches",
            "packs",
            "receipts",
            "quotes",
            "catalogs",
            "keysets",
            "boots",
            "misbehaviour",
        ]
        .map(|table| {
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
        })
    };
    let before = count();
    assert_eq!(before, [5, 1 + 1 + 1 + 2 + 4, 333, 1, 1, 1, 1, 0]);
    let bundle = get(host.address(), &target(ids[70])).await.body;
    enclave.forgetful();
    let acknowledged = enclave.acknowledged().len();
    enclave.seal();
    let end = Instant::now() + Duration::from_secs(10);
    while enclave.acknowledged().len() < acknowledged + 3 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut after = count();
    after[0] -= 1; // The empty seal.
    assert_eq!(after, before);
    assert_eq!(get(host.address(), &target(ids[70])).await.body, bundle);
    assert!(!host.log().contains("MISBEHAVIOUR"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_contradict_each_other_are_kept_and_cried_out() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let first = enclave.answer("logged");
    enclave.seal();
    enclave.all_acknowledged().await;
    assert!(
        !host.log().contains("MISBEHAVIOUR"),
        "the honest part of this test is honest"
    );

    // Another receipt with its number, another with its id, and two of one number in one batch.
    enclave.forge([1; 16], 0, |_| {});
    enclave.forge(first, 7, |_| {});
    enclave.forge([2; 16], 9, |_| {});
    enclave.forge([3; 16], 9, |claims| claims.status = 0);
    enclave.seal();
    enclave.all_acknowledged().await;

    for id in [first, [1; 16], [2; 16], [3; 16]] {
        let answer = get(host.address(), &target(id)).await;
        assert_eq!(answer.status, StatusCode::OK, "both are served");
        let bundle = Bundle::parse(&answer.body).unwrap();
        let receipt = touchstone_formats::Receipt::parse(&bundle.receipt).unwrap();
        assert_eq!(receipt.claims.cti, id);
        if id == first {
            assert_eq!(
                receipt.claims.sequence, 0,
                "the first that was stored stays"
            );
        }
    }
    assert_eq!(
        host.log().matches("PROOF OF MISBEHAVIOUR").count(),
        3,
        "{}",
        host.log()
    );
    let db = Connection::open(place.store()).unwrap();
    let mut statement = db
        .prepare("SELECT kind, first, second, proof FROM misbehaviour ORDER BY number")
        .unwrap();
    let rows: Vec<(String, Vec<u8>, Vec<u8>, String)> = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut kinds: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["id", "sequence", "sequence"]);
    for (kind, first, second, proof) in &rows {
        let [first, second] =
            [first, second].map(|cose| touchstone_formats::Receipt::parse(cose).unwrap().claims);
        match kind.as_str() {
            "id" => assert_eq!(first.cti, second.cti),
            _ => assert_eq!(first.sequence, second.sequence),
        }
        assert_ne!(first, second);
        TlogProof::parse(proof).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stored_is_not_acknowledged() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let good = enclave.answer("logged");
    enclave.seal();
    enclave.all_acknowledged().await;
    enclave.forge([1; 16], 1, |claims| {
        claims.keyset_digest = touchstone_formats::Digest::ZERO
    });
    enclave.seal();
    let end = Instant::now() + Duration::from_secs(10);
    while !host.log().contains("cannot be stored") {
        assert!(Instant::now() < end, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(enclave.acknowledged().iter().max(), Some(&1));
    // Everything else goes on.
    assert_eq!(
        get(host.address(), &target(good)).await.status,
        StatusCode::OK
    );
    assert_eq!(get(host.address(), "/x").await.status, StatusCode::OK);
}

/// While the disk refuses, nothing is acknowledged; when it no longer does, everything is made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_refuses_is_not_acknowledged_and_made_up_for() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let before = enclave.answer("logged");
    enclave.seal();
    enclave.all_acknowledged().await;
    let rename = |from: &str, to: &str| {
        let db = Connection::open(place.store()).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}"))
            .unwrap();
    };
    rename("packs", "gone");
    let after = enclave.answer("logged");
    enclave.seal();
    let end = Instant::now() + Duration::from_secs(10);
    while !host.log().contains("nothing is pulled from the enclave") {
        assert!(Instant::now() < end, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(enclave.acknowledged().iter().max(), Some(&1));
    // Requests are relayed all the same; a look-up says that the store failed.
    assert_eq!(get(host.address(), "/x").await.status, StatusCode::OK);
    let answer = get(host.address(), &target(after)).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.problem(), "the host's store failed");

    rename("gone", "packs");
    enclave.all_acknowledged().await;
    for id in [before, after] {
        assert_eq!(
            get(host.address(), &target(id)).await.status,
            StatusCode::OK
        );
    }
}

/// A store that is of no use ends the start, with a sentence that says which file and why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_cannot_be_used_are_refused_clearly() {
    let enclave = Enclave::start().await;
    let good = Place::new(enclave.public, enclave.control);
    let host = good.spawn();
    for _ in 0..300 {
        enclave.answer("logged");
    }
    enclave.seal();
    enclave.all_acknowledged().await;
    let (code, log) = host.terminate();
    assert_eq!(code, Some(0), "{log}");

    let whole = fs::read(good.store()).unwrap();
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle..middle + 8_192].fill(0xa5);
    let version_9 = |file: &std::path::Path| {
        fs::copy(good.store(), file).unwrap();
        Connection::open(file)
            .unwrap()
            .pragma_update(None, "user_version", 9)
            .unwrap();
    };
    let another = |file: &std::path::Path| {
        Connection::open(file)
            .unwrap()
            .execute_batch("CREATE TABLE things (thing TEXT)")
            .unwrap();
    };
    type Spoil<'a> = &'a dyn Fn(&std::path::Path);
    let cases: [(&str, Spoil<'_>, &str); 7] = [
        (
            "the twin",
            &|file| assert!(fs::copy(good.store(), file).unwrap() > 0),
            "",
        ),
        (
            "text",
            &|file| fs::write(file, "hello, I am not a database at all".repeat(10)).unwrap(),
            "is damaged: file is not a database",
        ),
        (
            "cut short",
            &|file| fs::write(file, &whole[..whole.len() / 2]).unwrap(),
            "is damaged",
        ),
        (
            "overwritten",
            &|file| fs::write(file, &flipped).unwrap(),
            "is damaged",
        ),
        (
            "another version",
            &version_9,
            "found a store of version 9, expected version 3",
        ),
        (
            "another program's",
            &another,
            "found another program's SQLite file",
        ),
        (
            "a folder",
            &|file| fs::create_dir(file).unwrap(),
            "unable to open",
        ),
    ];
    for (what, spoil, says) in cases {
        let place = Place::new(enclave.public, enclave.control);
        spoil(&place.store());
        let before = fs::read(place.store()).ok();
        let host = place.spawn();
        if says.is_empty() {
            host.address();
            continue;
        }
        let (code, log) = host.wait();
        assert_eq!(code, Some(1), "{what}");
        assert!(
            log.contains(says) && log.contains("store.sqlite"),
            "{what}: {log}"
        );
        assert_eq!(fs::read(place.store()).ok(), before, "{what}: not touched");
    }

    // Two hosts on one store.
    let first = good.spawn();
    first.address();
    let (code, log) = good.spawn().wait();
    assert_eq!(code, Some(1));
    assert!(log.contains("another host uses it"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_is_wrong_with_its_settings() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let file = place.path("host.toml");
    let good = place.settings();
    for (from, to, says) in [
        (
            "threads = 2",
            "threads = 0",
            "key `threads`: found 0, expected a whole number from 1 to 1024",
        ),
        ("poll_ms = 20", "poll = 20", "unknown key `collateral.poll`"),
        ("listen = ", "# ", "key `listen` is missing"),
        ("threads = 2", "threads = ", "not a TOML file"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        fs::write(&file, bad).unwrap();
        let (code, log) = Process::spawn(&file).wait();
        assert_eq!(code, Some(1), "{to}");
        assert!(
            log.contains(says) && log.contains("host.toml"),
            "{to}: {log}"
        );
    }
    let (code, log) = Process::spawn(&place.path("missing.toml")).wait();
    assert!(code == Some(1) && log.contains("missing.toml"), "{log}");

    // The address is taken.
    fs::write(&file, &good).unwrap();
    let host = Process::spawn(&file);
    let taken = good.replacen("tcp://127.0.0.1:0", &format!("tcp://{}", host.address()), 1);
    let other = Place::new(enclave.public, enclave.control);
    fs::write(
        &file,
        taken.replace(
            place.store().to_str().unwrap(),
            other.store().to_str().unwrap(),
        ),
    )
    .unwrap();
    let (code, log) = Process::spawn(&file).wait();
    assert!(
        code == Some(1) && log.contains("listen 127.0.0.1:"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_termination_writes_down_what_is_promised() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.spawn();
    let ids = [
        infer(host.address()).await,
        infer(host.address()).await,
        infer(host.address()).await,
    ];
    let began = Instant::now();
    let (code, log) = host.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(5));
    enclave.die().await;
    let host = place.spawn();
    for id in ids {
        assert_eq!(
            get(host.address(), &target(id)).await.status,
            StatusCode::ACCEPTED
        );
    }
}
