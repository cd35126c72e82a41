//! Numbers with units as in `postgresql.conf`, converted to the unit of their parameter. The rules are those of PostgreSQL's
//! `guc.c`.

/// Memory in bytes.
const MEMORY: &[(&str, f64)] =
    &[("B", 1.0), ("kB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0), ("TB", 1_099_511_627_776.0)];
/// Time in microseconds.
const TIME: &[(&str, f64)] =
    &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 60e6), ("h", 3600e6), ("d", 86_400e6)];

/// A petabyte: more than any WAL, and every whole number up to it is exact.
const BYTES_MAX: f64 = 1_125_899_906_842_624.0;

/// A whole number, rounded as by the server.
pub(crate) fn integer(text: &str, unit: Option<&str>) -> Result<f64, String> {
    let (digits, rest) = split(text);
    let hexadecimal = digits.contains(['x', 'X']);
    let fraction = !hexadecimal && digits.contains(['.', 'e', 'E']);
    let number = if fraction { digits.parse().ok() } else { whole(digits) };
    let number = number.ok_or("expected a whole number")?;
    let number = in_unit(number, rest, unit)?.round_ties_even();
    if number.abs() > f64::from(i32::MAX) {
        return Err(format!("{number} is too large a number"));
    }
    Ok(number)
}

/// A number.
pub(super) fn real(text: &str, unit: Option<&str>) -> Result<f64, String> {
    let (digits, rest) = split(text);
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or("expected a number")?;
    in_unit(number, rest, unit)
}

/// An amount of memory in bytes, with PostgreSQL's units: `16777216`, `16MB`, `0x10 kB`, `1.5GB`.
///
/// # Errors
/// In words, when it is not one.
pub fn memory_bytes(text: &str) -> Result<u64, String> {
    let (digits, rest) = split(text);
    let number = if digits.contains(['.', 'e', 'E']) && !digits.contains(['x', 'X']) {
        digits.parse().ok().filter(|number: &f64| number.is_finite())
    } else {
        whole(digits)
    };
    let number = number.ok_or("expected a number of bytes")?;
    let bytes = in_unit(number, rest, Some("B"))?.round_ties_even();
    if (0.0..=BYTES_MAX).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(format!("{bytes} bytes are out of range"))
    }
}

/// The number, and the text after it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let unsigned = text.trim_start_matches(['+', '-']);
    let hexadecimal = unsigned.starts_with("0x") || unsigned.starts_with("0X");
    let mut end = text.len();
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let exponent = !hexadecimal
            && matches!(c, 'e' | 'E')
            && text[at + 1..].starts_with(|next: char| next.is_ascii_digit() || matches!(next, '+' | '-'));
        let sign = matches!(c, '+' | '-') && (at == 0 || matches!(before, 'e' | 'E'));
        let digit = c.is_ascii_digit() || (hexadecimal && (c.is_ascii_hexdigit() || matches!(c, 'x' | 'X')));
        if !(digit || exponent || sign || (c == '.' && !hexadecimal)) {
            end = at;
            break;
        }
        before = c;
    }
    (&text[..end], text[end..].trim_start())
}

/// Also hexadecimal and octal, as in C.
fn whole(digits: &str) -> Option<f64> {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let number = if let Some(hexadecimal) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i64::from_str_radix(hexadecimal, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(&digits[1..], 8).ok()?
    } else {
        digits.parse().ok()?
    };
    // Beyond the range of any parameter the last digits do not matter.
    Some(sign * (number as f64))
}

fn in_unit(number: f64, given: &str, unit: Option<&str>) -> Result<f64, String> {
    if given.is_empty() {
        return Ok(number);
    }
    let Some(unit) = unit else {
        return Err(format!("{given:?} follows the number, which has no unit"));
    };
    let digits = unit.find(|c: char| !c.is_ascii_digit()).unwrap_or_default();
    let (times, unit) = unit.split_at(digits);
    let times: f64 = times.parse().unwrap_or(1.0);
    let family = if MEMORY.iter().any(|(name, _)| *name == unit) { MEMORY } else { TIME };
    let factor = |name: &str| family.iter().find(|(known, _)| *known == name).map(|(_, factor)| *factor);
    match (factor(given), factor(unit)) {
        (Some(given), Some(unit)) => Ok(number * given / (unit * times)),
        _ => {
            let names: Vec<&str> = family.iter().map(|(name, _)| *name).collect();
            Err(format!("{given:?} is no unit of it: expected {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("1024kB", 1 << 20),
            (" 16 MB ", 16 << 20),
            ("1.5GB", 3 << 29),
            ("0x400", 1024),
            ("1TB", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(memory_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "x", "-1", "16mb", "16KB", "16M", "1 s", "MB", "16MB16", "1e400", "nan", "9999999TB"]
        {
            assert!(memory_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_come_in_the_unit_of_their_parameter() {
        assert_eq!(integer("128MB", Some("8kB")), Ok(16384.0));
        assert_eq!(integer("1GB", Some("MB")), Ok(1024.0));
        assert_eq!(integer("90s", Some("min")), Ok(2.0));
        assert_eq!(integer("-1", Some("MB")), Ok(-1.0));
        assert_eq!(integer("0600", None), Ok(384.0));
        assert_eq!(integer("0x1F", None), Ok(31.0));
        assert_eq!(integer("1e3", None), Ok(1000.0));
        assert_eq!(integer("2.5", None), Ok(2.0));
        assert_eq!(real(".5ms", Some("ms")), Ok(0.5));
        assert_eq!(real("1e-2", None), Ok(0.01));
        for bad in ["", "x", "08", "--1", "1-2", "1e", "0x", "1..2", "inf"] {
            assert!(integer(bad, None).is_err(), "{bad}");
        }
    }
}
