//! Durations on the command line: `90s`, `15m`, `24h`, `7d`.

use std::time::Duration;

/// A whole number and one unit.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 15m, 24h or 7d");
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let scale: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count
        .checked_mul(scale)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_overflow_is_refused() {
        assert_eq!(parse("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        for bad in [
            "",
            "s",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "1ä",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
