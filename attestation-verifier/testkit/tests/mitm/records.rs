//! A host that lies in what it keeps: receipts. Judged by the client library.

use std::time::Duration;

use touchstone_client::{Client, Unverified, Verified};
use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle, Upstream};

use crate::common::{Caller, MODEL, caller_of, exit_of, shared_stack, tensor};

/// Waits for a complete receipt: briefly where none will ever come.
async fn connect(caller: &Caller, middle: &ManInTheMiddle, lie: Lie) -> Client {
    let wait = match lie {
        Lie::ReceiptWithhold => Duration::from_secs(3),
        _ => Duration::from_secs(60),
    };
    caller.builder(middle).wait(wait).connect().await.unwrap()
}

async fn ask(client: &Client) -> Result<Verified, Unverified> {
    client
        .infer(MODEL, &[tensor()])
        .await
        .unwrap()
        .verified()
        .await
}

#[tokio::test]
async fn a_host_that_lies_about_receipts_is_refused_by_name() {
    let test = "a_host_that_lies_about_receipts_is_refused_by_name";
    let Some(stack) = shared_stack(test) else {
        return;
    };
    let caller = caller_of(&stack, &[]);
    for lie in [
        Lie::None,
        Lie::ReceiptAlter,
        Lie::ReceiptWithhold,
        Lie::ReceiptStale,
        Lie::ReceiptOfAnother,
        Lie::ReceiptSwap,
    ] {
        let config = Config::before(Upstream::Address(stack.host().address()), lie);
        let middle = ManInTheMiddle::start(config).unwrap();
        let (one, two) = (
            connect(&caller, &middle, lie).await,
            connect(&caller, &middle, lie).await,
        );
        let (first, second) = match lie {
            // Crossed between two who ask at the same time.
            Lie::ReceiptSwap => tokio::join!(ask(&one), ask(&two)),
            // The second gets the receipt of the first.
            _ => (ask(&one).await, ask(&two).await),
        };
        let mut refused = vec![];
        for answer in [first, second] {
            match answer {
                Ok(verified) => assert_eq!(verified.verdict().exit(), 0),
                Err(unverified) => refused.push(unverified),
            }
        }
        let expected = match lie {
            Lie::None => 0,
            Lie::ReceiptOfAnother => 1,
            _ => 2,
        };
        assert_eq!(refused.len(), expected, "{lie}");
        for unverified in refused {
            let verdict = &unverified.verdict;
            assert_eq!(
                verdict.deciding(),
                Some(lie.refused_by()),
                "{lie}: {}",
                verdict.words()
            );
            assert_eq!(
                i32::from(verdict.exit()),
                exit_of(lie.refused_by()),
                "{lie}"
            );
        }
    }
}
