//! The VEK certificate that the platform itself hands out, where the operator has none in the folder.
//!
//! An enclave on the kernel's quote sources gives on what certificates its platform's host put beside the newest
//! report (docs/control-protocol.md): the only source of a VLEK's, and one of a VCEK's without AMD being asked. Like
//! all collateral it proves itself to whoever judges, and is not judged here.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use touchstone_formats::evidence::Collateral;

use super::CollateralFolder;
use crate::fleet::{Condition, Fleet, Member};

/// Looks at the folder every so often. An enclave that has a certificate is asked for it again after this many looks: with the
/// platform's firmware it changes.
const LOOKS: u32 = 60;

/// Keeps the collateral as it is in the folder, and on the platform, until told to stop.
pub async fn watch_collateral(
    collateral: Arc<CollateralFolder>,
    fleet: Arc<Fleet>,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut rest = 0;
    loop {
        let look = async {
            if collateral.lacks_vek() && rest == 0 {
                let vek = of_fleet(&fleet).await;
                rest = if vek.is_some() { LOOKS } else { 1 };
                if let Some(vek) = vek {
                    collateral.offer_vek(vek);
                }
            }
            rest = rest.saturating_sub(1);
            sleep(every).await;
        };
        tokio::select! {
            () = look => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let collateral = collateral.clone();
        let _ = tokio::task::spawn_blocking(move || collateral.refresh()).await;
    }
}

/// The certificate of the first enclave that gives one.
async fn of_fleet(fleet: &Fleet) -> Option<Vec<u8>> {
    let mut found: Option<(&str, Vec<u8>)> = None;
    for member in fleet.members() {
        if member.health().condition == Condition::Away {
            continue;
        }
        let Some(vek) = of_member(member).await else {
            continue;
        };
        match &found {
            None => found = Some((&member.name, vek)),
            // A VLEK's is that of all of a provider's platforms; a VCEK's is of one.
            Some((first, other)) if *other != vek => tracing::warn!(
                first, enclave = %member.name,
                "these enclaves' platforms sign with different keys; evidence goes out with the first one's certificate"
            ),
            Some(_) => {}
        }
    }
    found.map(|(_, vek)| vek)
}

async fn of_member(member: &Member) -> Option<Vec<u8>> {
    match member.control.collateral().await {
        Ok(Some(Collateral::SevSnp(snp))) => snp.vek,
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(enclave = %member.name, %error, "a platform's certificates could not be had");
            None
        }
    }
}
