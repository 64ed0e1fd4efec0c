//! What takes time: servers that are slow, pieces that become due. The command's own tests have every other fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attestation_verifier::Roots;
use touchstone_collateral::http::Limits;
use touchstone_collateral::{Error, Fetcher, Fresh, How, Item, Patience, Settings, Sources};
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::Machine;
use touchstone_testkit::vendor::{Reply, Vendor};

const CRL: &str = "/vcek/v1/Genoa/crl";
const DAY: u64 = 86_400;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn settings(machine: &Machine, vendor: &Vendor) -> Settings {
    let roots = Roots::pinned().with_simulated_pem(machine.root_pem().as_bytes());
    let sources = Sources::new(Some(&vendor.url()), None).unwrap();
    Settings {
        limits: Limits {
            connect: Duration::from_millis(200),
            total: Duration::from_millis(400),
        },
        patience: Patience {
            attempts: 2,
            first_pause: Duration::from_millis(50),
            ..Patience::default()
        },
        ..Settings::new(sources, roots.unwrap())
    }
}

fn list() -> Item {
    Item::of_target(CRL).unwrap().0
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for() {
    let machine = Machine::new(Product::Genoa, 5, now());
    let vendor = Vendor::kds(&machine);
    let good = vendor.reply(CRL);
    let slow = Reply::Silence(Duration::from_secs(30));
    vendor.put(CRL, slow.clone());
    let fetcher = Fetcher::new(settings(&machine, &vendor)).unwrap();
    let begin = Instant::now();
    let error = fetcher.obtain(&list(), Fresh::WhenDue).await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("the answer took longer than 0.4 s"),
        "{error}"
    );
    assert_eq!(vendor.count(CRL), 2);
    // Slow once is forgiven.
    vendor.script(CRL, vec![slow, good]);
    fetcher.obtain(&list(), Fresh::WhenDue).await.unwrap();
}

/// Days that the fetcher's clock is ahead.
static AHEAD: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_list_is_renewed_after_a_day_and_long_before_it_ends() {
    let machine = Machine::new(Product::Genoa, 5, now());
    let vendor = Vendor::kds(&machine);
    let folder = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(Settings {
        cache: Some(folder.path().to_owned()),
        clock: || now() + AHEAD.load(Ordering::Relaxed),
        ..settings(&machine, &vendor)
    })
    .unwrap();
    let after = async |seconds: u64| {
        AHEAD.store(seconds, Ordering::Relaxed);
        fetcher.obtain(&list(), Fresh::WhenDue).await
    };
    assert!(matches!(after(0).await.unwrap().how, How::Fetched));
    assert!(matches!(after(DAY - 60).await.unwrap().how, How::Cached));
    assert!(matches!(after(DAY + 60).await.unwrap().how, How::Fetched));
    assert_eq!(vendor.count(CRL), 2);
    // The server is gone: what is there serves until it ends, and not a moment longer.
    vendor.put(CRL, Reply::Hangup);
    assert!(matches!(after(20 * DAY).await.unwrap().how, How::Kept(_)));
    let error = after(29 * DAY).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // It serves what has expired: said, and not kept.
    vendor.put(CRL, Vendor::kds(&machine).reply(CRL));
    let error = after(29 * DAY).await.unwrap_err();
    assert!(matches!(error, Error::Outdated { .. }), "{error}");
}
