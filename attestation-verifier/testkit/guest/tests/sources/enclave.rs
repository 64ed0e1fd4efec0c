//! The enclave's own side: what it makes of a source that is busy, failing, hanging or lying.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use enclave::config::KernelQuotes;
use enclave::quote::{
    KernelSource, OpenError, QuoteError, QuoteSettings, QuoteSource, Quoter, check,
};
use touchstone_formats::evidence::Tee;
use touchstone_simulated_guest::{Firmware, Made, sev_guest, tsm};
use touchstone_testkit::machine::{Machine, TeeMachine};

use crate::common::{Place, can_mount, data_in, judge, mount_device, mount_tsm, snp, tdx};

fn tsm_at(place: &Place<tsm::Tsm>, event_log: Option<PathBuf>) -> KernelQuotes {
    KernelQuotes::Tsm {
        reports: place.mounted.path().to_owned(),
        entry: "touchstone".into(),
        privilege: None,
        event_log,
    }
}

fn settings(timeout: u64, retries: u32) -> QuoteSettings {
    QuoteSettings {
        timeout: Duration::from_millis(timeout),
        retries,
        queue: 1,
        sessions: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_gives_is_compared_before_it_is_passed_on() {
    if !can_mount("what_a_source_gives_is_compared_before_it_is_passed_on") {
        return;
    }
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, snp()));
    let source = KernelSource::open(&tsm_at(&place, None)).unwrap();
    let ask = async || check(source.quote([1; 64]).await?, &[1; 64]);
    type Meaning = fn(&QuoteError) -> bool;
    let malformed: Meaning = |error| matches!(error, QuoteError::Malformed(_));
    let failed: Meaning = |error| matches!(error, QuoteError::Failed(_));
    for (fault, meaning) in [
        (
            tsm::Fault::Lie,
            (|error| *error == QuoteError::WrongReportData) as Meaning,
        ),
        (tsm::Fault::Truncate, malformed),
        (tsm::Fault::Endless, malformed),
        (tsm::Fault::Errno(16), |error| *error == QuoteError::Busy),
        (tsm::Fault::Errno(5), failed),
    ] {
        place.mounted.state().faults.set(fault, Some(1));
        let error = ask().await.unwrap_err();
        assert!(meaning(&error), "{fault:?}: {error}");
        ask().await.unwrap();
    }
    // The provider of the other kind of platform than the report's.
    let set = |name: &str| place.mounted.state().provider = Some(name.into());
    set("tdx_guest");
    let error = ask().await.unwrap_err();
    assert!(malformed(&error), "{error}");
    set("another_guest");
    let error = ask().await.unwrap_err();
    assert!(malformed(&error), "{error}");
    set("sev_guest");
    ask().await.unwrap();

    let place = mount_device(sev_guest::SevGuest::new(snp()));
    let device = KernelQuotes::SevGuest {
        device: place.mounted.device(),
        privilege: None,
    };
    let source = KernelSource::open(&device).unwrap();
    let faults = || place.mounted.state();
    faults().faults.set(sev_guest::Fault::Lie, Some(1));
    let lie = check(source.quote([1; 64]).await.unwrap(), &[1; 64]);
    assert_eq!(lie, Err(QuoteError::WrongReportData));
    check(source.quote([1; 64]).await.unwrap(), &[1; 64]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_costs_one_thread_and_ends_as_a_failing_source() {
    if !can_mount("a_call_that_hangs_costs_one_thread_and_ends_as_a_failing_source") {
        return;
    }
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, snp()));
    let source = KernelSource::open(&tsm_at(&place, None)).unwrap();
    let quoter = Arc::new(Quoter::start(Arc::new(source), settings(200, 3)));
    quoter.seal([1; 64]).await;
    assert!(!quoter.failing());

    place.mounted.state().faults.set(tsm::Fault::Hang, None);
    let asking = tokio::spawn({
        let quoter = quoter.clone();
        async move { quoter.seal([2; 64]).await }
    });
    quoter.wait_failing(true).await;
    let tried = || quoter.counters().failed.load(Ordering::Relaxed);
    let began = Instant::now();
    while tried() < 5 && began.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tried() >= 5);
    assert_eq!(place.mounted.state().hanging(), 1);
    assert!(!asking.is_finished());

    place.mounted.state().clear_fault();
    let quote = asking.await.unwrap();
    assert_eq!(data_in::<Machine>(&quote.quote), Some([2; 64]));
    assert!(!quoter.failing());
}

/// Firmware that takes its time once.
struct Slow {
    machine: Machine,
    delay: Option<Duration>,
}

impl Firmware for Slow {
    fn report(&mut self, report_data: [u8; 64], privilege: u8) -> Result<Made, i32> {
        if let Some(delay) = self.delay.take() {
            std::thread::sleep(delay);
        }
        Firmware::report(&mut self.machine, report_data, privilege)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_quote_reaches_nobody() {
    if !can_mount("a_late_quote_reaches_nobody") {
        return;
    }
    let slow = Slow {
        machine: snp(),
        delay: Some(Duration::from_secs(4)),
    };
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, slow));
    let source = Arc::new(KernelSource::open(&tsm_at(&place, None)).unwrap());
    let first = source.quote([1; 64]);
    let gave_up = tokio::time::timeout(Duration::from_millis(200), first).await;
    assert!(gave_up.is_err());
    // It is still under way: nothing overtakes it, and nothing waits behind it.
    let began = Instant::now();
    assert_eq!(source.quote([2; 64]).await, Err(QuoteError::Timeout));
    assert!(began.elapsed() < Duration::from_secs(2));
    let quote = loop {
        match source.quote([3; 64]).await {
            Err(QuoteError::Timeout) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(data_in::<Machine>(&quote.quote), Some([3; 64]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_log_goes_with_quotes_of_tdx() {
    if !can_mount("the_event_log_goes_with_quotes_of_tdx") {
        return;
    }
    let machine = tdx();
    let place = mount_tsm(tsm::Tsm::new(Tee::Tdx, machine.clone()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("CCEL");
    let open = || KernelSource::open(&tsm_at(&place, Some(path.clone())));
    let quoted = async |source: KernelSource| source.quote([1; 64]).await.unwrap();

    let quote = quoted(open().unwrap()).await;
    assert_eq!(quote.event_log, None);
    std::fs::write(&path, machine.event_log().unwrap().data.0).unwrap();
    let quote = quoted(open().unwrap()).await;
    assert_eq!(quote.event_log, machine.event_log());
    assert_eq!(
        judge(&machine, &quote.quote, quote.event_log, &[1; 64]),
        (6, None)
    );
    // Padding counts in no bound, up to what a file may have.
    std::fs::write(&path, vec![0xFF; 2 << 20]).unwrap();
    assert_eq!(quoted(open().unwrap()).await.event_log, None);
    std::fs::write(&path, vec![1; (1 << 20) + 1]).unwrap();
    let refused = open().err().unwrap();
    assert!(matches!(refused, OpenError::EventLogLength { .. }));
    std::fs::write(&path, vec![0xFF; (4 << 20) + 1]).unwrap();
    let refused = open().err().unwrap();
    assert!(matches!(refused, OpenError::EventLog { .. }));

    // SEV-SNP has none.
    std::fs::write(&path, machine.event_log().unwrap().data.0).unwrap();
    let place = mount_tsm(tsm::Tsm::new(Tee::SevSnp, snp()));
    let source = KernelSource::open(&tsm_at(&place, Some(path))).unwrap();
    assert_eq!(source.quote([1; 64]).await.unwrap().event_log, None);
}
