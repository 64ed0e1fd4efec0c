//! Numbers as RFC 8785 §3.2.2.3 writes them (ECMAScript's `Number.prototype.toString`).

/// The one canonical text of a finite number.
pub(super) fn ecmascript(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    // serde_json writes the shortest digits that read back as the same number and, of two equally
    // near, the even ones, as ECMAScript does (std does not do the latter). Where it puts the point
    // is its own affair: take the digits and the place of the point out again.
    let written = serde_json::to_string(&number.abs()).unwrap_or_default();
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let leading_zeros = length(&all) - length(significant);
    let digits = significant.trim_end_matches('0');
    let count = length(digits);
    // The decimal point stands after the first `point` digits.
    let point = length(whole) - leading_zeros + exponent.parse::<i32>().unwrap_or(0);

    let sign = if number < 0.0 { "-" } else { "" };
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let split = |at: i32| digits.split_at(usize::try_from(at).unwrap_or(0));
    if count <= point && point <= 21 {
        return format!("{sign}{digits}{}", zeros(point - count));
    }
    if 0 < point && point <= 21 {
        let (whole, fraction) = split(point);
        return format!("{sign}{whole}.{fraction}");
    }
    if -6 < point && point <= 0 {
        return format!("{sign}0.{}{digits}", zeros(-point));
    }
    let exponent = point - 1;
    let plus = if exponent < 0 { "" } else { "+" };
    let (first, rest) = split(1);
    let dot = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{dot}{rest}e{plus}{exponent}")
}

fn length(digits: &str) -> i32 {
    // A double has some 330 digits at most.
    i32::try_from(digits.len()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::ecmascript;

    /// The samples of RFC 8785 appendix B, finite ones.
    #[test]
    fn rfc_8785_appendix_b() {
        for (bits, text) in [
            (0x0000000000000000_u64, "0"),
            (0x8000000000000000, "0"),
            (0x0000000000000001, "5e-324"),
            (0x8000000000000001, "-5e-324"),
            (0x7fefffffffffffff, "1.7976931348623157e+308"),
            (0xffefffffffffffff, "-1.7976931348623157e+308"),
            (0x4340000000000000, "9007199254740992"),
            (0xc340000000000000, "-9007199254740992"),
            (0x4430000000000000, "295147905179352830000"),
            (0x44b52d02c7e14af5, "9.999999999999997e+22"),
            (0x44b52d02c7e14af6, "1e+23"),
            (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
            (0x444b1ae4d6e2ef4e, "999999999999999700000"),
            (0x444b1ae4d6e2ef4f, "999999999999999900000"),
            (0x444b1ae4d6e2ef50, "1e+21"),
            (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
            (0x3eb0c6f7a0b5ed8d, "0.000001"),
            (0x41b3de4355555553, "333333333.3333332"),
            (0x41b3de4355555554, "333333333.33333325"),
            (0x41b3de4355555555, "333333333.3333333"),
            (0x41b3de4355555556, "333333333.3333334"),
            (0x41b3de4355555557, "333333333.33333343"),
            (0xbecbf647612f3696, "-0.0000033333333333333333"),
            (0x43143ff3c1cb0959, "1424953923781206.2"),
        ] {
            assert_eq!(ecmascript(f64::from_bits(bits)), text, "{bits:016x}");
        }
    }
}
