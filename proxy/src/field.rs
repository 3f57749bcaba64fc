//! A field of a message, found by comparing names.
//!
//! A map finds a name by hashing it letter by letter, which for `x-forwarded-for` costs as much as comparing it with the names of a whole usual head:
//! a name of another length is dismissed at once. For names that most messages do not have; never for one that a policy gives.

use http::{HeaderMap, HeaderValue};

/// The first value of `name`, which is in lower case.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    headers.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_the_map_finds() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("te", "trailers"), ("x-one", "1"), ("X-One", "2"), ("content-type", "a/b")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for name in ["te", "x-one", "content-type", "x-on", "x-one-more", "tf", ""] {
            assert_eq!(find(&headers, name), headers.get(name), "{name}");
        }
    }
}
