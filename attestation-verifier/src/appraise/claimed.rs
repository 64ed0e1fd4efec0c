//! What evidence says of itself, with nothing of it proven: for whoever stands beside the platform and wants to know
//! what a policy will say to it, before there is collateral. No verdict can be made of it.

use serde_json::Value;
use touchstone_formats::evidence::{Evidence, Tee};
use touchstone_formats::text::hex_encode;

use super::rules::{Observed, by_rules};
use super::{platform, snp, tdx};
use crate::policy::Platform;
use crate::verdict::{Check, Checks, Outcome};
use crate::{At, Policy, parse};

/// What evidence claims. **None of it is proven**: anybody can write such bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// The checks of the policy's first platform of that kind, held against the claims, in the order of
    /// [`crate::policy::check_ids`]. What only collateral says is not evaluated. A list, not [`Checks`]: it concludes nothing.
    pub checks: Vec<Check>,
    /// As the `platform` of a verdict; null in place of what only collateral says.
    pub platform: Value,
    /// Launch measurement (of TDX MRTD), lower-case hex.
    pub measurement: String,
}

/// Holds what evidence claims against a policy, as of a time. Collateral beside it is not looked at: who has some calls
/// [`super::judge`]. None if the quote is malformed, or the policy has no platform of its kind.
pub fn claimed(evidence: &Evidence, policy: &Policy, at: At) -> Option<Claims> {
    let bare = Evidence {
        purpose: evidence.purpose,
        nonce: None,
        tee: evidence.tee,
        quote: evidence.quote.clone(),
        collateral: None,
        event_log: evidence.event_log.clone(),
    };
    let platform = policy.platforms.iter().find(|p| p.tee == evidence.tee)?;
    let mut form = Checks::new();
    match evidence.tee {
        Tee::SevSnp => {
            let parsed = parse::parse(&bare, &mut form)?;
            let facts = snp::Facts::claimed(parsed.report());
            Some(Claims {
                checks: checks(&facts, platform, at),
                platform: platform::describe(&facts, None),
                measurement: hex_encode(&parsed.report().measurement()),
            })
        }
        Tee::Tdx => {
            let parsed = parse::tdx::parse(&bare, &mut form)?;
            let log = tdx::log::Log::of(bare.event_log.as_ref(), parsed.report());
            let facts = tdx::Facts {
                quote: parsed.quote(),
                pck: &parsed.pck,
                log: &log,
                collateral: None,
            };
            Some(Claims {
                checks: checks(&facts, platform, at),
                platform: tdx::platform::describe(&facts),
                measurement: hex_encode(&parsed.report().mr_td),
            })
        }
    }
}

fn checks<O: Observed>(facts: &O, platform: &Platform, at: At) -> Vec<Check> {
    let mut checks = Checks::new();
    by_rules(facts, platform, None, at, &mut checks);
    let told = checks.iter().cloned().map(|mut check| {
        if check.result == Outcome::NotEvaluated {
            check.reason = "only collateral that verifies says it".to_owned();
        }
        check
    });
    told.collect()
}
