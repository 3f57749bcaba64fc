//! What a plain scalar means.

use super::{Number, Numeric, Value};

/// A plain scalar by YAML 1.2.2, section 10.3.2, but for numbers that older YAML reads as something else.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    match numeric(text) {
        Some(value) => Value::Number(Number { written: text.to_owned(), value }),
        None => Value::String(text.to_owned()),
    }
}

fn numeric(text: &str) -> Option<Numeric> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let radix = match unsigned.get(..2) {
        Some("0o") => 8,
        Some("0x") => 16,
        _ => 10,
    };
    if radix != 10 {
        // Signs are not part of these forms.
        let digits =
            text.get(2..).filter(|digits| digits.starts_with(|c: char| c.is_ascii_alphanumeric()))?;
        return u64::from_str_radix(digits, radix).ok().map(Numeric::Unsigned);
    }
    if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit() {
        return None;
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let digits = text.strip_prefix('+').unwrap_or(text);
        if let Ok(n) = digits.parse() {
            return Some(Numeric::Unsigned(n));
        }
        if let Ok(n) = digits.parse() {
            return Some(Numeric::Signed(n));
        }
    }
    // What is left of Rust's own float grammar is the core schema's: digits, a point, an exponent.
    let plain = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !plain || !unsigned.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite()).map(Numeric::Float)
}
