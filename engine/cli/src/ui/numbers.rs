//! Numbers for people: two digits of uncertainty decide how many are shown.

/// A time span: `0.12 s`, `48 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.2} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..100 => format!("{whole} s"),
        100..6000 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A time in RFC 3339 to the second: `2026-11-22 18:57:31 UTC`.
pub(crate) fn time(time: &str) -> String {
    match (time.split_once('T'), time.ends_with('Z')) {
        (Some((day, clock)), true) if clock.len() >= 8 => format!("{day} {} UTC", &clock[..8]),
        _ => time.to_owned(),
    }
}

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `512 B`, `1.4 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// How many decimals show two digits of an uncertainty; at most four.
pub(crate) fn decimals(uncertainty: f64) -> usize {
    if !(uncertainty.is_finite() && uncertainty > 0.0) {
        return 1;
    }
    (1.0 - uncertainty.log10().floor()).clamp(0.0, 4.0) as usize
}

/// A number of unknown uncertainty: an integer as such, anything else with four digits.
pub(crate) fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(value.abs() as u64));
    }
    let size = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&size) {
        format!("{value:.3e}")
    } else {
        format!("{value:.*}", (3.0 - size).clamp(0.0, 6.0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(seconds(0.123), "0.12 s");
        assert_eq!(seconds(200.4), "3 min 20 s");
        assert_eq!(seconds(7500.0), "2 h 05 min");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(bytes(1_468_006), "1.4 MiB");
        assert_eq!(plain(3.0), "3");
        assert_eq!(plain(1.234_567), "1.235");
        assert_eq!(plain(0.000_012_3), "1.230e-5");
    }

    #[test]
    fn two_digits_of_uncertainty_are_shown() {
        assert_eq!(decimals(19.0), 0);
        assert_eq!(decimals(1.9), 1);
        assert_eq!(decimals(0.19), 2);
        assert_eq!(decimals(0.0), 1);
    }
}
