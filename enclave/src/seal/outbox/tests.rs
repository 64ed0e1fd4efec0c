use touchstone_formats::{control::Batch, evidence::Tee, report_data::Purpose};

use super::*;

fn receipt(n: u8) -> Arc<LoggedReceipt> {
    let cose = vec![n; 500];
    LoggedReceipt::new([n; 16], cose.clone(), Digest::of(&cose), true)
}

fn evidence() -> Evidence {
    Evidence {
        purpose: Some(Purpose::Receipt),
        nonce: Some(vec![1; 8]),
        tee: Tee::SevSnp,
        quote: vec![7; 1_184],
        collateral: None,
        event_log: None,
    }
}

fn seal(outbox: &Outbox, receipts: &[Arc<LoggedReceipt>], closes: Option<Digest>) -> u64 {
    let mut json = Vec::new();
    for (at, receipt) in receipts.iter().enumerate() {
        wire::receipt(
            &mut json,
            &receipt.cose,
            2 + at as u64,
            &[Digest::ZERO, Digest::of(b"x")],
        );
    }
    let batch = wire::seal(
        Digest::ZERO,
        "note\n",
        &evidence(),
        &[],
        &json,
        closes.is_some(),
    );
    let numbered = receipts
        .iter()
        .enumerate()
        .map(|(at, receipt)| (2 + at as u64, receipt.clone()));
    outbox.publish_seal(batch, numbered.collect(), closes)
}

async fn numbers(outbox: &Outbox, after: u64) -> Vec<u64> {
    let batches = outbox.after(after, Duration::ZERO, usize::MAX).await;
    batches.iter().map(|batch| batch.number).collect()
}

#[tokio::test]
async fn a_batch_is_what_the_control_protocol_says() {
    let outbox = Outbox::new(1 << 20);
    let receipts = [receipt(1), receipt(2)];
    receipts
        .iter()
        .for_each(|receipt| outbox.add(Digest::ZERO, receipt));
    seal(&outbox, &receipts, None);
    outbox.publish_quote(Digest::ZERO, &[1; 16], &evidence());
    let parsed: Vec<Batch> = outbox
        .after(0, Duration::ZERO, usize::MAX)
        .await
        .iter()
        .map(|batch| {
            let json = [
                format!("{{\"number\":{}", batch.number).as_bytes(),
                &batch.json,
            ]
            .concat();
            serde_json::from_slice(&json).unwrap()
        })
        .collect();
    let [sealed, quoted] = parsed.as_slice() else {
        panic!("{parsed:?}")
    };
    assert_eq!((sealed.number, quoted.number), (1, 2));
    assert_eq!(sealed.checkpoint.as_deref(), Some("note\n"));
    assert_eq!(sealed.evidence, Some(evidence()));
    let indexes: Vec<u64> = sealed
        .receipts
        .iter()
        .map(|receipt| receipt.index)
        .collect();
    assert_eq!(indexes, [2, 3]);
    assert_eq!(sealed.receipts[1].receipt.0, receipts[1].cose);
    assert_eq!(sealed.receipts[1].proof[1].0, Digest::of(b"x"));
    assert!(!sealed.closed && sealed.quotes.is_empty() && sealed.catalogs.is_empty());
    assert_eq!((&quoted.checkpoint, &quoted.evidence), (&None, &None));
    assert_eq!(
        (quoted.quotes[0].id.0, &quoted.quotes[0].evidence),
        ([1; 16], &evidence())
    );
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_and_its_bytes_are_given_back() {
    let outbox = Outbox::new(1 << 20);
    assert_eq!(
        outbox.range(),
        Range {
            oldest: 0,
            newest: 0
        }
    );
    for n in 0..4_u8 {
        let receipt = receipt(n);
        outbox.add(Digest::ZERO, &receipt);
        assert_eq!(outbox.unsealed(), 1);
        let closes = (n == 2).then(|| Digest::of(b"keyset"));
        assert_eq!(seal(&outbox, &[receipt], closes), u64::from(n) + 1);
        assert_eq!(outbox.unsealed(), 0);
    }
    assert_eq!(numbers(&outbox, 0).await, [1, 2, 3, 4]);
    assert_eq!(numbers(&outbox, 2).await, [3, 4]);
    let held = outbox.held();
    assert_eq!(outbox.acknowledge(1), []);
    assert_eq!(outbox.held(), held * 3 / 4);
    assert!(outbox.receipt(&[0; 16]).is_none() && outbox.receipt(&[1; 16]).is_some());
    assert_eq!(outbox.acknowledge(3), [Digest::of(b"keyset")]);
    assert_eq!(
        outbox.range(),
        Range {
            oldest: 4,
            newest: 4
        }
    );
    // Again, and more than there is: no harm.
    assert_eq!(outbox.acknowledge(2), []);
    assert_eq!(outbox.acknowledge(u64::MAX), []);
    assert_eq!(outbox.held(), 0);
    assert_eq!(
        outbox.range(),
        Range {
            oldest: 0,
            newest: 4
        }
    );
    assert_eq!(
        outbox.publish_quote(Digest::ZERO, &[9; 16], &evidence()),
        5,
        "numbers go on"
    );
    tokio::time::timeout(Duration::from_millis(20), outbox.drained())
        .await
        .unwrap_err();
    outbox.acknowledge(5);
    outbox.drained().await;
}

#[tokio::test]
async fn bytes_are_counted_from_the_start_and_the_estimate_is_near() {
    let outbox = Outbox::new(30_000);
    let receipts: Vec<_> = (0..20).map(receipt).collect();
    let mut added = 0;
    for receipt in &receipts {
        if outbox.full() {
            break;
        }
        outbox.add(Digest::ZERO, receipt);
        added += 1;
    }
    assert!((8..20).contains(&added), "full after {added}");
    let waiting = outbox.held();
    let mut json = Vec::new();
    let twenty = [Digest::of(b"x"); 20];
    for receipt in &receipts[..added] {
        wire::receipt(&mut json, &receipt.cose, 1 << 20, &twenty);
    }
    let batch = wire::seal(Digest::ZERO, "note\n", &evidence(), &[], &json, false);
    let numbered = receipts[..added]
        .iter()
        .map(|receipt| (0, receipt.clone()))
        .collect();
    outbox.publish_seal(batch, numbered, None);
    // Beside the receipts the batch holds one quote.
    let sealed = outbox.held();
    assert!(
        sealed < waiting * 13 / 10 && sealed > waiting * 7 / 10,
        "{waiting} became {sealed}"
    );
}
