//! Numbers and lists as sentences want them.

use std::time::Duration;

/// `1 request`, `12 requests`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `once`, `twice`, `12 times`.
pub(crate) fn times(number: u64) -> String {
    match number {
        1 => "once".into(),
        2 => "twice".into(),
        _ => format!("{number} times"),
    }
}

/// `1.000 s`, or `12.3 ms` below a tenth of a second.
pub(crate) fn seconds(wait: Duration) -> String {
    if wait < Duration::from_millis(100) {
        format!("{:.1} ms", wait.as_secs_f64() * 1e3)
    } else {
        format!("{:.3} s", wait.as_secs_f64())
    }
}

/// `12%` for a share of 0.12; `0.4%` below one percent.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.95 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

/// `512 bytes`, `195.5 KiB`, `1.5 MiB`, `7.8 GiB`.
pub(crate) fn bytes(number: u64) -> String {
    const KIB: f64 = 1024.0;
    let size = number as f64;
    if size < 10.0 * KIB {
        count(number, "byte", "bytes")
    } else if size < KIB * KIB {
        format!("{:.1} KiB", size / KIB)
    } else if size < KIB * KIB * KIB {
        format!("{:.1} MiB", size / KIB / KIB)
    } else {
        format!("{:.1} GiB", size / KIB / KIB / KIB)
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!(count(1, "request", "requests"), "1 request");
        assert_eq!(times(2), "twice");
        assert_eq!(seconds(Duration::from_micros(1_000_300)), "1.000 s");
        assert_eq!(seconds(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(bytes(200_189), "195.5 KiB");
        assert_eq!(bytes(512), "512 bytes");
        assert_eq!(bytes(8_375_186_227), "7.8 GiB");
        assert_eq!(percent(0.123), "12%");
        assert_eq!(percent(0.004), "0.4%");
    }

    #[test]
    fn lists_end_with_and() {
        let parts = ["a", "b", "c"].map(String::from);
        assert_eq!(join(&parts), "a, b and c");
        assert_eq!(join(&parts[..1]), "a");
    }
}
