//! What takes time: servers that are slow, pieces that become due. The command's own tests have every other fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attestation_verifier::Roots;
use touchstone_collateral::http::Limits;
use touchstone_collateral::{Error, Fetcher, Fresh, How, Item, Patience, Settings, Sources};
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::{Machine, TdxMachine};
use touchstone_testkit::tdx::TdReport;
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
        // The slow server's test waits for it; everybody else's answers may be slow, too, on a busy machine.
        limits: Limits {
            connect: Duration::from_secs(1),
            total: Duration::from_millis(1_500),
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
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("the answer took longer than 1.5 s"),
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

static LATER: AtomicU64 = AtomicU64::new(0);

/// Whoever can write into the cache's folder has pieces asked for again, and gets nothing else by it.
#[tokio::test]
async fn a_cache_cannot_stop_the_clock() {
    let machine = Machine::new(Product::Genoa, 5, now());
    let vendor = Vendor::kds(&machine);
    let folder = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(Settings {
        cache: Some(folder.path().to_owned()),
        clock: || now() + LATER.load(Ordering::Relaxed),
        ..settings(&machine, &vendor)
    })
    .unwrap();
    let item = list();
    let obtain = || fetcher.obtain(&item, Fresh::WhenDue);
    obtain().await.unwrap();
    let file = folder.path().join(list().file_name());
    let fetched_at = |time: u64| {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        entry["fetched"] = time.into();
        std::fs::write(&file, entry.to_string()).unwrap();
    };
    fetched_at(now());
    assert!(matches!(obtain().await.unwrap().how, How::Cached));
    fetched_at(now() + 1000 * DAY);
    assert!(matches!(obtain().await.unwrap().how, How::Fetched));

    // It has expired, and the cache says that it was fetched just now; or will be.
    LATER.store(29 * DAY, Ordering::Relaxed);
    let mut newer = machine.clone();
    newer.crl.this_update += 28 * DAY;
    newer.crl.next_update = newer.crl.next_update.map(|next| next + 28 * DAY);
    vendor.put(CRL, Vendor::kds(&newer).reply(CRL));
    for time in [now() + 29 * DAY, now() + 1000 * DAY] {
        let expired = machine.collateral().crls.remove(0);
        let text = std::fs::read_to_string(&file).unwrap();
        let mut entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        entry["body"] = touchstone_formats::text::base64_encode(&expired).into();
        std::fs::write(&file, entry.to_string()).unwrap();
        fetched_at(time);
        assert!(matches!(obtain().await.unwrap().how, How::Fetched));
    }
}

static AFTER: AtomicU64 = AtomicU64::new(0);

/// An old list that runs for long, shown when the newer one has expired: the newer one may have had a revocation.
#[tokio::test]
async fn nothing_goes_back_when_what_was_newer_has_expired() {
    let at = |from: u64, to: u64| {
        let mut machine = Machine::new(Product::Genoa, 5, now());
        machine.crl.this_update = from;
        machine.crl.next_update = Some(to);
        machine
    };
    let machine = at(now() - DAY, now() + 5 * DAY);
    let vendor = Vendor::kds(&machine);
    let folder = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(Settings {
        cache: Some(folder.path().to_owned()),
        clock: || now() + AFTER.load(Ordering::Relaxed),
        ..settings(&machine, &vendor)
    })
    .unwrap();
    let item = list();
    let obtain = || fetcher.obtain(&item, Fresh::Now);
    let served = |from: u64, to: u64| {
        let mut machine = machine.clone();
        machine.crl.this_update = from;
        machine.crl.next_update = Some(to);
        vendor.put(CRL, Vendor::kds(&machine).reply(CRL));
    };
    assert!(matches!(obtain().await.unwrap().how, How::Fetched));
    AFTER.store(6 * DAY, Ordering::Relaxed);
    served(now() - 10 * DAY, now() + 60 * DAY);
    let error = obtain().await.unwrap_err();
    assert!(
        error.to_string().contains("an older one than was fetched"),
        "{error}"
    );
    // The twin is one second newer than what expired.
    served(now() - DAY + 60, now() + 60 * DAY);
    assert!(matches!(obtain().await.unwrap().how, How::Fetched));
}

/// Intel signs TCB info of old evaluations anew for who asks by number: what is dated later may be older.
#[tokio::test]
async fn an_old_evaluation_is_old_whatever_its_date() {
    const INFO: &str = "/tdx/certification/v4/tcb?fmspc=";
    let machine = TdxMachine::new(4, TdReport::v1_0(), now());
    let vendor = Vendor::pcs(&machine);
    let folder = tempfile::tempdir().unwrap();
    let roots = Roots::pinned().with_simulated_pem(machine.root_pem().as_bytes());
    let sources = Sources::new(None, Some(&vendor.url())).unwrap();
    let mut settings = Settings::new(sources, roots.unwrap());
    settings.cache = Some(folder.path().to_owned());
    let fetcher = Fetcher::new(settings).unwrap();
    let target = format!(
        "{INFO}{}",
        touchstone_formats::text::hex_encode(&machine.platform.fmspc).to_uppercase()
    );
    let item = Item::of_target(&target).unwrap().0;
    let obtain = || fetcher.obtain(&item, Fresh::Now);
    assert!(matches!(obtain().await.unwrap().how, How::Fetched));
    let number = machine.tcb_info.tcb_evaluation_data_number;
    for (number, is_kept) in [(number - 1, true), (number + 1, false), (number, true)] {
        let mut other = machine.clone();
        other.tcb_info.issue_date += 60;
        other.tcb_info.tcb_evaluation_data_number = number;
        vendor.put(&target, Vendor::pcs(&other).reply(&target));
        let had = obtain().await.unwrap();
        assert_eq!(
            matches!(had.how, How::Kept(_)),
            is_kept,
            "{number}: {:?}",
            had.how
        );
    }
}
