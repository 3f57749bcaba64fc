//! Who is logged in: a name in a cookie.
//!
//! Anybody may log in under any name and no password is looked at, so the cookie needs no signature. The name goes out
//! as a header, which is why only visible ASCII is taken.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as HttpBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::sample::body::{self, Body, BoxError};

/// Reads the form field `username`, sets the session and sends the visitor back to the page.
pub async fn login<B>(form: B) -> Response<Body>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let Ok(form) = body::collect(form, MAX_FORM).await else {
        return body::text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too long\n");
    };
    let Some(user) = field(&String::from_utf8_lossy(&form), "username").filter(|user| acceptable(user))
    else {
        return body::text(StatusCode::BAD_REQUEST, "username: 1 to 64 visible ASCII characters\n");
    };
    to_the_page(&format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", utf8_percent_encode(&user, ESCAPED)))
}

pub fn logout() -> Response<Body> {
    to_the_page(&format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"))
}

/// The user whose session the request carries.
pub fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let value = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))?;
    let user = percent_decode_str(value).decode_utf8().ok()?;
    acceptable(&user).then(|| user.into_owned())
}

fn to_the_page(cookie: &str) -> Response<Body> {
    let mut response = body::text(StatusCode::FOUND, "");
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    let cookie =
        HeaderValue::from_str(cookie).expect("an escaped name within ASCII attributes is a header value");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// One field of an `application/x-www-form-urlencoded` form.
fn field(form: &str, wanted: &str) -> Option<String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (decode(name) == wanted).then(|| decode(value)))
}

fn acceptable(user: &str) -> bool {
    (1..=64).contains(&user.len()) && user.bytes().all(|byte| byte.is_ascii_graphic())
}

const COOKIE: &str = "session";
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
const MAX_FORM: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_is_found_again_in_the_cookie() {
        for (form, user) in [
            ("username=jason&passwd=", Some("jason")),
            ("passwd=x&username=a%40b%3D%3B", Some("a@b=;")),
            ("username=", None),
            ("username=two+words", None),
            ("username=%0d%0aset-cookie%3Ax", None),
            ("username=%C3%A9", None),
            ("name=jason", None),
        ] {
            let response = login(body::full(form)).await;
            let mut headers = HeaderMap::new();
            if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                headers.insert(header::COOKIE, format!("theme=dark; {pair}").parse().unwrap());
            }
            assert_eq!(super::user(&headers).as_deref(), user, "{form}");
            assert_eq!(response.status(), if user.is_some() { 302 } else { 400 }, "{form}");
        }
    }

    #[test]
    fn a_cookie_someone_made_up_names_no_user_a_header_cannot_carry() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("session=a%0d%0ab"));
        assert_eq!(user(&headers), None);
    }
}
