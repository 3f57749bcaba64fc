//! Header edits of a rule (Gateway API `HTTPHeaderFilter`): remove, then set, then add.

use http::HeaderMap;
use outrigger_config::model::HeaderEdits;

/// Names and values were parsed at load; an edit allocates only where the map grows. Whether there was anything to edit.
pub fn apply(edits: &HeaderEdits, headers: &mut HeaderMap) -> bool {
    if edits.remove.is_empty() && edits.set.is_empty() && edits.add.is_empty() {
        return false;
    }
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name.clone(), value.clone());
    }
    true
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn set_replaces_every_line_and_add_keeps_them() {
        let edits = HeaderEdits {
            remove: vec![HeaderName::from_static("x-gone")],
            set: vec![pair("x-set", "new")],
            add: vec![pair("x-add", "2")],
        };
        let mut headers = HeaderMap::from_iter([
            pair("x-gone", "1"),
            pair("x-set", "a"),
            pair("x-add", "1"),
            pair("x-kept", "1"),
        ]);
        headers.append("x-gone", HeaderValue::from_static("2"));
        headers.append("x-set", HeaderValue::from_static("b"));
        apply(&edits, &mut headers);
        let lines =
            |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(lines("x-gone"), [""; 0]);
        assert_eq!(lines("x-set"), ["new"]);
        assert_eq!(lines("x-add"), ["1", "2"]);
        assert_eq!(lines("x-kept"), ["1"]);
    }
}
