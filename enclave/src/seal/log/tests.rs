use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn receipt(n: u8, logged: bool) -> Arc<LoggedReceipt> {
    LoggedReceipt::new([n; 16], vec![n], Digest::of(&[n]), logged)
}

fn log(interval: Duration, max_entries: usize) -> Log {
    let catalog = Arc::new(Catalog {
        keyset_digest: Digest::ZERO,
        epoch: 0,
        previous: Digest::ZERO,
        models: Vec::new(),
    });
    let digest = catalog.digest();
    Log::new(Digest::ZERO, catalog, digest, interval, max_entries)
}

/// What stands in a batch, a letter or the number of a receipt each.
fn names(entries: &[Entry]) -> Vec<String> {
    let name = |entry: &Entry| match entry {
        Entry::Boot { .. } => "boot".to_owned(),
        Entry::Catalog { .. } => "catalog".to_owned(),
        Entry::Receipt { receipt, .. } => receipt.id[0].to_string(),
        Entry::Close { .. } => "close".to_owned(),
    };
    entries.iter().map(name).collect()
}

async fn due(log: &Log) -> Option<Vec<String>> {
    let entries = tokio::time::timeout(Duration::from_millis(50), log.due()).await;
    entries.ok().map(|entries| names(&entries))
}

#[tokio::test]
async fn receipts_come_out_in_order_whatever_order_they_come_in() {
    let log = log(HOUR, 100);
    for n in [3, 1, 2] {
        log.append(n, receipt(n as u8, true));
    }
    assert_eq!(due(&log).await, None, "number 0 is still being signed");
    log.append(0, receipt(0, false));
    assert_eq!(
        due(&log).await.unwrap(),
        ["boot", "catalog", "0", "1", "2", "3"]
    );
    assert_eq!(due(&log).await, None);
    log.append(5, receipt(5, true));
    log.append(4, receipt(4, true));
    assert_eq!(due(&log).await.unwrap(), ["4", "5"]);
    assert_eq!(log.waiting(), 0);
}

#[tokio::test]
async fn only_what_is_urgent_full_or_old_is_due() {
    let log = log(HOUR, 6);
    assert_eq!(due(&log).await, None, "boot and catalog can wait");
    log.append(0, receipt(0, false));
    assert_eq!(due(&log).await, None);
    log.append(1, receipt(1, true));
    assert_eq!(due(&log).await.unwrap(), ["boot", "catalog", "0", "1"]);
    for n in 2..7 {
        log.append(n, receipt(n as u8, false));
        assert_eq!(due(&log).await, None);
    }
    log.append(7, receipt(7, false));
    assert_eq!(due(&log).await.unwrap().len(), 6, "a full batch");

    // The boot entry is the oldest: its time runs from here. A tenth of the interval is left for the quote.
    let started = Instant::now();
    let log = super::tests::log(Duration::from_millis(200), 100);
    log.append(0, receipt(0, false));
    assert_eq!(names(&log.due().await), ["boot", "catalog", "0"]);
    assert!(
        (180..5_000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_sealer_that_waits_is_woken() {
    let log = Arc::new(log(HOUR, 100));
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { (names(&log.due().await), names(&log.due().await)) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    log.append(0, receipt(0, true));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Nothing at all waits now; the next one does not come alone but wakes as well.
    log.append(1, receipt(1, false));
    tokio::time::sleep(Duration::from_millis(20)).await;
    log.append(2, receipt(2, true));
    let (first, second) = waiting.await.unwrap();
    assert_eq!(first, ["boot", "catalog", "0"]);
    assert_eq!(second, ["1", "2"]);
}

#[tokio::test]
async fn a_batch_is_cut_and_the_rest_stays_urgent() {
    let log = log(HOUR, 3);
    for n in 0..4 {
        log.append(n, receipt(n as u8, n == 3));
    }
    assert_eq!(due(&log).await.unwrap(), ["boot", "catalog", "0"]);
    assert_eq!(due(&log).await.unwrap(), ["1", "2", "3"]);
    assert_eq!(due(&log).await, None);
}

#[tokio::test]
async fn a_closed_log_ends_at_once() {
    let log = log(HOUR, 100);
    log.append(0, receipt(0, false));
    log.close();
    assert_eq!(due(&log).await.unwrap(), ["boot", "catalog", "0", "close"]);
}
