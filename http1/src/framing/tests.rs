use super::*;

fn said(fields: &[(&'static str, &'static str)]) -> Result<Said, Refusal> {
    let mut said = Said::default();
    for (name, value) in fields {
        said.see(&HeaderName::from_static(name), &HeaderValue::from_static(value))?;
    }
    Ok(said)
}

#[test]
fn a_request_ends_where_all_readers_see_its_end() {
    use Framing::*;
    let chunked = ("transfer-encoding", "chunked");
    for (fields, want) in [
        (vec![], Ok(None)),
        (vec![("content-length", "0")], Ok(None)),
        (vec![("content-length", "5")], Ok(Length(5))),
        (vec![("content-length", "005")], Ok(Length(5))),
        (vec![("content-length", "5"), ("content-length", "5")], Ok(Length(5))),
        (vec![("content-length", "18446744073709551615")], Ok(Length(u64::MAX))),
        (vec![chunked], Ok(Chunked)),
        (vec![("transfer-encoding", "CHUNKED")], Ok(Chunked)),
        (vec![("content-length", "5"), ("content-length", "6")], Err(Refusal::LengthsDiffer)),
        (vec![("content-length", "18446744073709551616")], Err(Refusal::LengthInvalid)),
        (vec![("content-length", "5, 5")], Err(Refusal::LengthInvalid)),
        (vec![("content-length", "+5")], Err(Refusal::LengthInvalid)),
        (vec![("content-length", "0x5")], Err(Refusal::LengthInvalid)),
        (vec![("content-length", "")], Err(Refusal::LengthInvalid)),
        (vec![("content-length", "5"), chunked], Err(Refusal::LengthAndCoding)),
        (vec![chunked, ("content-length", "0")], Err(Refusal::LengthAndCoding)),
        (vec![chunked, chunked], Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "gzip, chunked")], Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "chunked, identity")], Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "xchunked")], Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "identity")], Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "")], Err(Refusal::CodingUnknown)),
    ] {
        let with_host: Vec<_> = std::iter::once(("host", "a")).chain(fields.clone()).collect();
        let got = said(&with_host).and_then(|said| said.request(false, &Method::POST, false));
        assert_eq!(got, want, "{fields:?}");
    }
    let old = said(&[chunked]).and_then(|said| said.request(true, &Method::POST, false));
    assert_eq!(old, Err(Refusal::CodingInHttp10));
    let connect = said(&[("host", "a"), ("content-length", "1")]).unwrap();
    assert_eq!(connect.request(false, &Method::CONNECT, true), Err(Refusal::ConnectWithBody));
}

#[test]
fn a_request_says_once_whom_it_is_for() {
    let host = |hosts: &[(&'static str, &'static str)], http10| {
        said(hosts).and_then(|said| said.request(http10, &Method::GET, false)).err()
    };
    assert_eq!(host(&[], false), Some(Refusal::HostMissing));
    assert_eq!(host(&[], true), None);
    assert_eq!(Said::default().request(false, &Method::GET, true), Ok(Framing::None));
    assert_eq!(host(&[("host", "a"), ("host", "a")], false), Some(Refusal::HostTwice));
    for good in ["", "a", "a.b:80", "[::1]:80", "a_b", "x%20y", "1.2.3.4"] {
        assert_eq!(host(&[("host", good)], false), None, "{good}");
    }
    for bad in ["a b", "a/b", "a,b", "user@a", "a#b", "a?b", "a\\b", "\"a\""] {
        assert_eq!(host(&[("host", bad)], false), Some(Refusal::HostInvalid), "{bad}");
    }
}

#[test]
fn a_response_is_framed_by_what_it_answers() {
    use Framing::*;
    let length = ("content-length", "5");
    let chunked = ("transfer-encoding", "chunked");
    for (fields, status, to, want) in [
        (vec![], 200, To::Other, Ok(UntilClose)),
        (vec![length], 200, To::Other, Ok(Length(5))),
        (vec![length], 200, To::Head, Ok(None)),
        (vec![chunked], 200, To::Head, Ok(None)),
        (vec![length], 304, To::Other, Ok(None)),
        (vec![], 204, To::Other, Ok(None)),
        (vec![length], 200, To::Connect, Ok(None)),
        (vec![length], 502, To::Connect, Ok(Length(5))),
        (vec![chunked], 200, To::Other, Ok(Chunked)),
        (vec![length, chunked], 200, To::Other, Ok(Chunked)),
        (vec![("transfer-encoding", "identity"), length], 200, To::Other, Ok(Length(5))),
        (vec![("transfer-encoding", "gzip, chunked")], 200, To::Other, Err(Refusal::CodingUnknown)),
        (vec![("transfer-encoding", "gzip")], 200, To::Other, Err(Refusal::CodingUnknown)),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let got = said(&fields).unwrap().response(false, status, to);
        assert_eq!(got, want, "{fields:?} {status} {to:?}");
    }
    let old = said(&[chunked]).unwrap().response(true, StatusCode::OK, To::Other);
    assert_eq!(old, Err(Refusal::CodingInHttp10));
}

#[test]
fn connections_go_on_as_both_versions_have_it() {
    for (value, http10, keeps) in [
        (None, false, true),
        (None, true, false),
        (Some("close"), false, false),
        (Some("keep-alive"), true, true),
        (Some("Keep-Alive"), true, true),
        (Some("keep-alive, close"), true, false),
        (Some("x, CLOSE"), false, false),
    ] {
        let fields: Vec<_> = value.map(|value| ("connection", value)).into_iter().collect();
        assert_eq!(said(&fields).unwrap().keeps(http10), keeps, "{value:?} {http10}");
    }
    // A later line does not take a close back.
    let lines = [("connection", "close"), ("connection", "keep-alive")];
    assert!(!said(&lines).unwrap().keeps(false));
}
