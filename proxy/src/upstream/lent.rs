//! A request on its way to a connection, whose head comes back to whoever may have to send it again.
//!
//! Owns that it does come back, whatever becomes of the attempt: it was sent, it failed, it was cut off by a time limit. Nothing is copied for that, because hardly
//! any request is sent twice. What comes back is the head as this hop frames it; the body is for `exchange::replay` to keep.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use http::Request;
use http::request::Parts;

use crate::body::Body;

/// Where the head of the last attempt is found once nobody uses it any more.
pub type Returned = Cell<Option<Parts>>;

/// A request that is not sent yet. Dropped, it gives its head back.
pub(super) struct Lent<'a> {
    /// `None` only within `take` and `drop`.
    request: Option<Box<Request<Body>>>,
    returned: Option<&'a Returned>,
}

/// The head of one that is.
pub(super) struct LentHead<'a> {
    head: Option<Parts>,
    returned: Option<&'a Returned>,
}

impl<'a> Lent<'a> {
    pub fn new(request: Box<Request<Body>>, returned: Option<&'a Returned>) -> Self {
        Self { request: Some(request), returned }
    }

    /// The request, for whoever gives its head back instead.
    pub fn take(mut self) -> Box<Request<Body>> {
        self.request.take().expect("it is there until it is taken")
    }

    pub fn returned(&self) -> Option<&'a Returned> {
        self.returned
    }
}

impl Deref for Lent<'_> {
    type Target = Request<Body>;

    fn deref(&self) -> &Request<Body> {
        self.request.as_ref().expect("it is there until it is taken")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Request<Body> {
        self.request.as_mut().expect("it is there until it is taken")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let (Some(request), Some(returned)) = (self.request.take(), self.returned) {
            returned.set(Some(request.into_parts().0));
        }
    }
}

impl<'a> LentHead<'a> {
    pub fn new(head: Parts, returned: Option<&'a Returned>) -> Self {
        Self { head: Some(head), returned }
    }

    /// The request as it was, for whoever gives its head back instead.
    pub fn with(mut self, body: Body) -> Box<Request<Body>> {
        let head = self.head.take().expect("it is there until it is taken");
        Box::new(Request::from_parts(head, body))
    }
}

impl Drop for LentHead<'_> {
    fn drop(&mut self) {
        if let (Some(head), Some(returned)) = (self.head.take(), self.returned) {
            returned.set(Some(head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Box<Request<Body>> {
        Box::new(Request::builder().uri("/a").header("x-one", "1").body(Body::empty()).expect("a request"))
    }

    #[test]
    fn what_is_given_up_comes_back_and_what_is_taken_does_not() {
        let returned = Returned::default();
        drop(Lent::new(request(), Some(&returned)));
        let head = returned.take().expect("it came back");
        assert_eq!((head.uri.path(), &head.headers["x-one"]), ("/a", &"1".parse().expect("a value")));

        let taken = Lent::new(request(), Some(&returned)).take();
        assert!(returned.take().is_none());
        let (head, body) = taken.into_parts();
        drop(LentHead::new(head, Some(&returned)));
        let head = returned.take().expect("it came back");
        assert_eq!(LentHead::new(head, Some(&returned)).with(body).uri().path(), "/a");
        assert!(returned.take().is_none());
    }
}
