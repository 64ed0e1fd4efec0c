//! Seconds since 1970 to and from RFC 3339, without a clock.

use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, Time};

/// `2026-11-20T00:00:00Z`; times past the year 9999 are clamped to its last second.
pub fn rfc3339(seconds: u64) -> String {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(seconds).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Reads an RFC 3339 time, any offset, whole seconds, 1970 or later.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let t = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (t.nanosecond() == 0).then_some(())?;
    u64::try_from(t.unix_timestamp()).ok()
}

/// Last second of a day written `YYYY-MM-DD` (UTC).
pub fn end_of_day(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<u16> {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
        part.parse().ok()
    };
    if bytes.len() != 10 || bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let month = u8::try_from(digits(5..7)?).ok()?.try_into().ok()?;
    let day = u8::try_from(digits(8..10)?).ok()?;
    let date = Date::from_calendar_date(i32::from(digits(0..4)?), month, day).ok()?;
    let end = date
        .with_time(Time::from_hms(23, 59, 59).ok()?)
        .assume_utc();
    u64::try_from(end.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        assert_eq!(rfc3339(1_763_596_800), "2025-11-20T00:00:00Z");
        assert_eq!(parse_rfc3339("2025-11-20T00:00:00Z"), Some(1_763_596_800));
        assert_eq!(
            parse_rfc3339("2025-11-20T01:00:00+01:00"),
            Some(1_763_596_800)
        );
        assert_eq!(parse_rfc3339("2025-11-20"), None);
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59Z"), None);
        assert_eq!(parse_rfc3339("2025-11-20T00:00:00.5Z"), None);
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn days_end_at_their_last_second() {
        assert_eq!(end_of_day("2025-11-19"), Some(1_763_596_799));
        for bad in [
            "2025-11-31",
            "2025-13-01",
            "25-11-19",
            "2025-11-19T",
            "+025-11-19",
            "",
        ] {
            assert_eq!(end_of_day(bad), None, "{bad}");
        }
    }
}
