//! What a request is refused for, and how it is answered.

use crate::proxy::path::BadPath;

/// Why a request is refused. The client gets [`Refusal::status`]; then both sides are closed, and nothing that came after
/// is read: where it begins cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum Refusal {
    /// A line ends by LF alone.
    BareLf,
    /// CR without LF.
    BareCr,
    /// NUL, DEL or another control byte.
    ControlByte,
    /// No method, or lower-case letters in it.
    BadMethod,
    /// `CONNECT` or `TRACE`.
    MethodNotAllowed,
    /// Neither a path nor a URL, or with a byte that must not be in one.
    BadTarget,
    /// See [`BadPath`].
    BadPath(BadPath),
    /// No version, or what is none.
    BadVersion,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnsupportedVersion,
    /// A field line begins with a space (obs-fold, or a space after the request line).
    FoldedField,
    /// A field line without colon, or with a byte that no name has.
    BadFieldName,
    /// `Connection` lists more than anybody means.
    TooManyOptions,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    DuplicateHost,
    /// `Host` is no host.
    BadHost,
    /// The target's host and `Host` differ.
    HostMismatch,
    /// `Content-Length` is no number.
    BadContentLength,
    /// More than one `Content-Length`.
    DuplicateContentLength,
    /// `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` more than once, empty, or `chunked` more than once.
    BadTransferEncoding,
    /// A transfer coding other than `chunked`.
    UnsupportedCoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10,
    /// `Expect` other than `100-continue`.
    BadExpect,
    /// The body is, or would be, longer than allowed.
    BodyTooLarge,
    /// The request line is longer than allowed.
    TargetTooLong,
    /// The head is longer than allowed.
    HeadTooLarge,
    /// There are more fields than allowed.
    TooManyFields,
}

impl Refusal {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::BadExpect => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::UnsupportedCoding => 501,
            Self::UnsupportedVersion => 505,
            Self::BareLf
            | Self::BareCr
            | Self::ControlByte
            | Self::BadMethod
            | Self::BadTarget
            | Self::BadPath(_)
            | Self::BadVersion
            | Self::FoldedField
            | Self::BadFieldName
            | Self::TooManyOptions
            | Self::NoHost
            | Self::DuplicateHost
            | Self::BadHost
            | Self::HostMismatch
            | Self::BadContentLength
            | Self::DuplicateContentLength
            | Self::LengthAndCoding
            | Self::BadTransferEncoding
            | Self::CodingInHttp10 => 400,
        }
    }

    /// A word for logs and `Proxy-Status`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLf => "bare-lf",
            Self::BareCr => "bare-cr",
            Self::ControlByte => "control-byte",
            Self::BadMethod => "bad-method",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::BadTarget => "bad-target",
            Self::BadPath(BadPath::Relative) => "relative-path",
            Self::BadPath(BadPath::Byte) => "bad-path-byte",
            Self::BadPath(BadPath::Escape) => "bad-escape",
            Self::BadPath(BadPath::Nul) => "nul-in-path",
            Self::BadPath(BadPath::EncodedSlash) => "encoded-slash",
            Self::BadPath(BadPath::HiddenDots) => "hidden-dots",
            Self::BadPath(BadPath::Overlong) => "overlong-utf8",
            Self::BadVersion => "bad-version",
            Self::UnsupportedVersion => "unsupported-version",
            Self::FoldedField => "folded-field",
            Self::BadFieldName => "bad-field-name",
            Self::TooManyOptions => "too-many-options",
            Self::NoHost => "no-host",
            Self::DuplicateHost => "duplicate-host",
            Self::BadHost => "bad-host",
            Self::HostMismatch => "host-mismatch",
            Self::BadContentLength => "bad-content-length",
            Self::DuplicateContentLength => "duplicate-content-length",
            Self::LengthAndCoding => "length-and-coding",
            Self::BadTransferEncoding => "bad-transfer-encoding",
            Self::UnsupportedCoding => "unsupported-coding",
            Self::CodingInHttp10 => "coding-in-http10",
            Self::BadExpect => "bad-expect",
            Self::BodyTooLarge => "body-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
        }
    }
}
