//! What a policy says of a keyset, whether a receipt or a connection rests on it.

use serde_json::json;
use touchstone_formats::Keyset;

use crate::bundle::rule;
use crate::verdict::{Checks, Fault};
use crate::{At, Policy};

/// The keyset lives no longer than the policy allows (formats.md §7, "Time").
pub(crate) fn span(checks: &mut Checks, keyset: &Keyset, policy: &Policy, at: At) {
    let id = "keyset.span";
    // A span below zero has no moment within it: `keyset.lifetime` refuses it.
    let span = keyset.not_after.saturating_sub(keyset.not_before);
    let most = &policy.answer.keyset_span_seconds;
    rule(checks, id, most, at, json!(span), |checks, &most, found| {
        if span <= most {
            checks.pass(id, most, found);
        } else {
            let reason = "the keyset lives longer than the policy allows, in seconds";
            checks.fail(id, Fault::Policy, most, found, reason);
        }
    });
}

/// The keyset has one of the names that the policy accepts.
pub(crate) fn name(checks: &mut Checks, keyset: &Keyset, policy: &Policy, at: At) {
    let id = "keyset.name";
    let Some(session) = &policy.session else {
        checks.unconsidered(id, "the policy has no [session]: any name will do");
        return;
    };
    let found = json!(keyset.name);
    rule(
        checks,
        id,
        &session.name,
        at,
        found,
        |checks, names, found| {
            if names.contains(&keyset.name) {
                checks.pass(id, json!(names), found);
            } else {
                let reason = "the keyset has a name that is not in the policy's list";
                checks.fail(id, Fault::Policy, json!(names), found, reason);
            }
        },
    );
}
