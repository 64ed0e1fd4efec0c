//! Rules that expect something and ask for nothing, and days that are as good as never.

use super::super::demand::{Bound, Demand};
use super::gaps::out_of_date;
use super::{Finding, Level, Part};
use crate::dates::end_of_day;

const DAY: u64 = 86_400;
/// A grace for platforms that are out of date, days: Intel gives operators about as long between publishing a TCB recovery and
/// enforcing it.
const LONG_GRACE: u64 = 90;
/// A waiver that ends later than this many days from now is one that nobody will look at again.
const LONG_WAIVER: u64 = 731;

pub(super) fn of_part(part: &Part, findings: &mut Vec<Finding>) {
    let later = |day: &str, days: u64| {
        end_of_day(day).is_none_or(|end| end > part.at.saturating_add(days * DAY))
    };
    let out_of_date = part.demand("tdx.tcb.status").is_some_and(out_of_date);
    for (id, demand) in &part.demands {
        let day = match demand {
            Demand::Waived(waiver) => waiver.until.as_deref(),
            Demand::Expected(Bound::Until(day)) => day.as_deref(),
            _ => None,
        };
        let (level, words) = match (demand, day) {
            (_, Some(day)) if *id == "tdx.tcb.grace" && out_of_date && later(day, LONG_GRACE) => (
                Level::Weak,
                format!(
                    "Platforms that are out of date are tolerated until {day}: in more than {LONG_GRACE} days attacks on them are \
                     everybody's."
                ),
            ),
            (Demand::Waived(_), Some(day)) if later(day, LONG_WAIVER) => (
                Level::Note,
                format!("It is waived until {day}: as good as without end."),
            ),
            (Demand::Expected(Bound::Bits(0)), _) => (
                Level::Note,
                "Its mask is zero: no bit is asked for. Say that it is waived, and why.".to_owned(),
            ),
            _ => continue,
        };
        findings.push(Finding {
            level,
            key: part.key(id),
            words,
        });
    }
}
