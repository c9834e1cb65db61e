//! Paths and their normal forms.

use proptest::prelude::*;

use super::*;

const STRICT: Policy = Policy { allow_encoded_slash: false, merge_slashes: true };
const ENCODED: Policy = Policy { allow_encoded_slash: true, merge_slashes: true };
const SLASHES: Policy = Policy { allow_encoded_slash: false, merge_slashes: false };

#[test]
fn h9_paths_have_one_normal_form() {
    let cases = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a.b/..c/d../...", "/a.b/..c/d../..."),
        ("/.", "/"),
        ("/..", "/"),
        ("/./", "/"),
        ("/../../a", "/a"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/./b/../c", "/a/c"),
        ("/a/b/../../../c/", "/c/"),
        ("/x/../admin/%2e%2e/..;/", "/"),
        ("/a/%2e/b", "/a/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/..;x=y/b", "/b"),
        ("/a/.;x/b", "/a/b"),
        ("/a/%2e%2e;/b", "/b"),
        ("/a;x=y/b;jsessionid=1", "/a;x=y/b;jsessionid=1"),
        ("/a;/..", "/"),
        ("//", "/"),
        ("//a//b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/%41%7a%30%2d%5F%7e", "/Az0-_~"),
        ("/%3a%2C%7b%20%e9%C3%A9", "/%3A%2C%7B%20%E9%C3%A9"),
        ("/a|b^c`{d}[e]\"<>", "/a%7Cb%5Ec%60%7Bd%7D%5Be%5D%22%3C%3E"),
        ("/%252e%252e/%2525", "/%252e%252e/%2525"),
        ("/%252f", "/%252f"),
        ("/%c1x", "/%C1x"),
        ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
    ];
    for (path, normal) in cases {
        assert_eq!(normalise(path.as_bytes(), STRICT).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn h9_normal_paths_are_borrowed() {
    for path in ["/", "/a/b.c/d", "/.well-known/x", "/%20", "/a;b=c"] {
        assert!(matches!(normalise(path.as_bytes(), STRICT), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn h9_slashes_are_kept_by_choice() {
    for (path, normal) in [("//a//b//", "//a//b//"), ("/a//../b", "/a/b"), ("/a/..//b", "//b"), ("/.//a", "//a")] {
        assert_eq!(normalise(path.as_bytes(), SLASHES).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn h9_encoded_slashes_are_a_choice() {
    for path in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/%2f"] {
        assert_eq!(normalise(path.as_bytes(), STRICT), Err(BadPath::EncodedSlash), "{path}");
    }
    for (path, normal) in [("/a%2fb", "/a%2Fb"), ("/a%5cb", "/a%5Cb"), ("/a\\b", "/a%5Cb"), ("/a%2f/b", "/a%2F/b")] {
        assert_eq!(normalise(path.as_bytes(), ENCODED).as_deref(), Ok(normal), "{path}");
    }
    for path in ["/a%2f..", "/..%2fa", "/a%2f%2e%2e%2fb", "/a%5c..%5cb", "/..\\a", "/a/b%2f..;x", "/.%2f"] {
        assert_eq!(normalise(path.as_bytes(), ENCODED), Err(BadPath::HiddenDots), "{path}");
    }
}

#[test]
fn h9_what_could_be_read_two_ways_is_refused() {
    let cases = [
        ("", BadPath::Relative),
        ("a", BadPath::Relative),
        ("%2fa", BadPath::Relative),
        ("/%00", BadPath::Nul),
        ("/a%00.html", BadPath::Nul),
        ("/%", BadPath::Escape),
        ("/%4", BadPath::Escape),
        ("/%zz", BadPath::Escape),
        ("/%+1", BadPath::Escape),
        ("/%u002e", BadPath::Escape),
        ("/%%32e", BadPath::Escape),
        ("/a/..%3b/b", BadPath::HiddenDots),
        ("/a/%2e%3Bx", BadPath::HiddenDots),
        ("/%c0%ae", BadPath::Overlong),
        ("/%c0%af", BadPath::Overlong),
        ("/%C1%9c", BadPath::Overlong),
        ("/%e0%80%af", BadPath::Overlong),
        ("/%f0%80%80%af", BadPath::Overlong),
        ("/é", BadPath::Byte),
        ("/a b", BadPath::Byte),
        ("/a?b", BadPath::Byte),
        ("/a#b", BadPath::Byte),
        ("/a\tb", BadPath::Byte),
        ("/a\u{7f}", BadPath::Byte),
    ];
    for (path, expected) in cases {
        assert_eq!(normalise(path.as_bytes(), STRICT), Err(expected), "{path}");
    }
}

proptest! {
    #[test]
    fn h9_normal_forms_are_normal(path in "/([a./%;\\\\25eEfF]|%2[eEfF]|%5[cC]|\\.\\.|/){0,24}", encoded: bool, merge: bool) {
        let policy = Policy { allow_encoded_slash: encoded, merge_slashes: merge };
        let Ok(normal) = normalise(path.as_bytes(), policy) else { return Ok(()) };
        let again = normalise(normal.as_bytes(), policy);
        prop_assert_eq!(again.as_deref(), Ok(&*normal));
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        prop_assert!(!normal.split('/').any(is_dots), "{}", normal);
        prop_assert!(!merge || !normal.contains("//"), "{}", normal);
    }
}
