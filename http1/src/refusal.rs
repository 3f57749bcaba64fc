//! Why a message is no HTTP/1 that may be passed on.

use std::fmt;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident $sentence:literal;)*) => {
        /// Closed, so that whoever answers has a word for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[doc = $doc])+ $variant,)* }

        impl Refusal {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// One sentence without a full stop, for whoever sent the message.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

refusals! {
    /// Larger than [`crate::Limits::head`].
    HeadTooLarge "the head is too large";
    /// More than [`crate::Limits::fields`].
    TooManyFields "the head has too many fields";
    /// RFC 9110 §9.1: a method is a token.
    Method "the method is not valid";
    /// Neither 1.0 nor 1.1.
    Version "the version is not HTTP/1.0 or HTTP/1.1";
    /// It cannot be read as any of the four forms.
    Target "the target is not valid";
    /// A form that its method does not have (RFC 9112 §3.2).
    TargetForm "the target has a form its method does not allow";
    /// Also a space before the colon and a folded line (RFC 9112 §5).
    FieldName "a field's name is not valid, or its line is folded";
    /// RFC 9110 §5.5.
    FieldValue "a field's value has a byte that is not allowed";
    /// A bare CR or LF (RFC 9112 §2.2).
    LineEnd "a line does not end with CR LF";
    /// The first line of a response.
    Status "the status line is not valid";
    /// RFC 9112 §3.2: HTTP/1.1 has exactly one.
    HostMissing "the request names no host";
    /// As [`Self::HostMissing`].
    HostTwice "the request has two Hosts";
    /// Not `uri-host [":" port]`.
    HostInvalid "the Host is not valid";
    /// Not a decimal number that fits (RFC 9110 §8.6).
    LengthInvalid "the Content-Length is not valid";
    /// Two readings of where the body ends.
    LengthsDiffer "two Content-Lengths differ";
    /// Two readings of where the body ends (RFC 9112 §6.1).
    LengthAndCoding "there is both a Content-Length and a Transfer-Encoding";
    /// Anything but `chunked`, once: a proxy would have to undo the others.
    CodingUnknown "the Transfer-Encoding is not chunked";
    /// RFC 9112 §6.1: HTTP/1.0 has none, and a hop before may not have known it.
    CodingInHttp10 "HTTP/1.0 has no Transfer-Encoding";
    /// CONNECT has no content (RFC 9110 §9.3.6); what would be one is the tunnel's to another reader.
    ConnectWithBody "a CONNECT has no body";
    /// Not hexadecimal, or too large.
    ChunkSize "a chunk's size is not valid";
    /// More than 16 KiB of them in a body, or a control character (RFC 9112 §7.1.1).
    ChunkExtension "a chunk's extension is too long or not valid";
    /// No CR LF behind a chunk's data.
    ChunkEnd "a chunk does not end where its size says";
    /// Over the limits of a head.
    TrailersTooLarge "the trailers are too large";
    /// Not a field section.
    Trailers "the trailers are not valid";
    /// A response that never comes to its point.
    TooManyInterim "too many interim responses came before the final one";
}

impl Refusal {
    /// Whether it is a limit that was exceeded, not a rule.
    pub const fn is_too_large(self) -> bool {
        matches!(self, Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge)
    }

    /// Whether where the body ends could be read in two ways: how requests are smuggled past a proxy.
    pub const fn is_ambiguous(self) -> bool {
        matches!(
            self,
            Self::LengthsDiffer
                | Self::LengthAndCoding
                | Self::CodingUnknown
                | Self::CodingInHttp10
                | Self::ConnectWithBody
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for Refusal {}
