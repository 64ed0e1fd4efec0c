//! A DER *writer* that will write anything it is told, wrong things included.
//!
//! A certificate library refuses to make the certificates that negative tests need: an outer
//! algorithm that differs from the inner one, an extension that stands twice, spare bits in a signature. So
//! the few forms that AMD's and Intel's certificates use are put together here by hand; the tests read the
//! results with two independent parsers.

/// `SEQUENCE`, constructed.
pub const SEQUENCE: u8 = 0x30;
/// `SET`, constructed.
pub const SET: u8 = 0x31;
/// `BOOLEAN`.
pub const BOOLEAN: u8 = 0x01;
/// `INTEGER`.
pub const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub const OCTET_STRING: u8 = 0x04;
/// `NULL`.
pub const NULL: u8 = 0x05;
/// `OBJECT IDENTIFIER`.
pub const OID: u8 = 0x06;
/// `UTF8String`.
pub const UTF8_STRING: u8 = 0x0c;
/// `PrintableString`.
pub const PRINTABLE_STRING: u8 = 0x13;
/// `IA5String`.
pub const IA5_STRING: u8 = 0x16;
/// `UTCTime`.
pub const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`.
pub const GENERALIZED_TIME: u8 = 0x18;

/// One tag-length-value with the shortest length encoding.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n if n < 0x80 => out.push(n as u8),
        n => {
            let be = n.to_be_bytes();
            let be = &be[be.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | be.len() as u8);
            out.extend_from_slice(be);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A `SEQUENCE` of parts that are already DER.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// An explicit context tag `[n]` around something that is already DER.
pub fn explicit(n: u8, inner: &[u8]) -> Vec<u8> {
    tlv(0xa0 | n, inner)
}

/// A non-negative `INTEGER` from big-endian bytes: leading zeros go, a sign byte comes when needed.
pub fn unsigned(be: &[u8]) -> Vec<u8> {
    let be = &be[be.iter().take_while(|b| **b == 0).count()..];
    match be.first() {
        None => tlv(INTEGER, &[0]),
        Some(first) if first & 0x80 != 0 => tlv(INTEGER, &[&[0], be].concat()),
        Some(_) => tlv(INTEGER, be),
    }
}

/// A non-negative `INTEGER`.
pub fn number(n: u64) -> Vec<u8> {
    unsigned(&n.to_be_bytes())
}

/// An `OBJECT IDENTIFIER` from dotted text.
///
/// # Panics
/// On text that is not an object identifier.
pub fn oid(dotted: &str) -> Vec<u8> {
    let oid = der::asn1::ObjectIdentifier::new(dotted).expect("a dotted object identifier");
    tlv(OID, oid.as_bytes())
}

/// A `BIT STRING` with no spare bits.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    bit_string_with_unused(bytes, 0)
}

/// A `BIT STRING` that claims `unused` spare bits at its end (0 in every honest signature).
pub fn bit_string_with_unused(bytes: &[u8], unused: u8) -> Vec<u8> {
    tlv(BIT_STRING, &[&[unused], bytes].concat())
}

/// `UTCTime` up to 2049, `GeneralizedTime` from 2050, as RFC 5280 §4.1.2.5 says.
///
/// # Panics
/// When `unix` seconds lie past the year 9999.
pub fn time(unix: u64) -> Vec<u8> {
    let t = time::OffsetDateTime::from_unix_timestamp(unix as i64)
        .expect("a time before the year 10000");
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    );
    match t.year() {
        y @ 1950..2050 => tlv(UTC_TIME, format!("{:02}{rest}", y % 100).as_bytes()),
        y => tlv(GENERALIZED_TIME, format!("{y:04}{rest}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_integers_are_minimal() {
        assert_eq!(tlv(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[7; 256])[..4], [4, 0x82, 1, 0]);
        assert_eq!(number(0), [2, 1, 0]);
        assert_eq!(number(127), [2, 1, 127]);
        // As AMD writes a microcode level of 217: with a sign byte.
        assert_eq!(number(217), [2, 2, 0, 0xd9]);
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
    }

    #[test]
    fn times_change_form_in_2050() {
        assert_eq!(time(1_603_387_385), tlv(UTC_TIME, b"201022172305Z"));
        assert_eq!(time(2_524_607_999), tlv(UTC_TIME, b"491231235959Z"));
        assert_eq!(
            time(2_524_608_000),
            tlv(GENERALIZED_TIME, b"20500101000000Z")
        );
    }
}
