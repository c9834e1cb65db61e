//! `Accept-Encoding`, RFC 9110 §12.5.3.

use crate::control::proxy::http::Coding;

/// The coding that the client likes best among `offered`, in whose order ties are broken; `None`: it likes none, or prefers
/// the body as it is.
pub(super) fn choose(accepted: &str, offered: &[Coding]) -> Option<Coding> {
    let quality = |name: &str| named(accepted, name).or_else(|| named(accepted, "*"));
    // Uncoded is acceptable unless it is said otherwise; it is preferred only when it is said so.
    let identity = named(accepted, "identity").unwrap_or(0);
    let mut best = None;
    for coding in offered {
        let quality = quality(coding.name()).unwrap_or(0);
        if quality > 0 && quality >= identity && best.is_none_or(|(most, _)| quality > most) {
            best = Some((quality, *coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// The quality of a coding in thousandths, where it is named.
fn named(accepted: &str, name: &str) -> Option<u16> {
    accepted.split(',').find_map(|part| {
        let mut words = part.split(';').map(str::trim);
        let coding = words.next()?;
        // `x-gzip` is the same as `gzip` (RFC 9110 §8.4.1.3).
        let is_it = coding.eq_ignore_ascii_case(name) || (name == "gzip" && coding.eq_ignore_ascii_case("x-gzip"));
        is_it.then(|| words.find_map(|word| word.strip_prefix("q=").or(word.strip_prefix("Q="))).map_or(1000, weight))
    })
}

/// `0.8` in thousandths; what is no weight is 0: rather an uncompressed answer than one that cannot be read.
fn weight(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, digits) {
        ("0", true) => format!("{fraction:0<3}").parse().unwrap_or(0),
        ("1", true) if fraction.bytes().all(|byte| byte == b'0') => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_is_offered_is_chosen() {
        const ALL: &[Coding] = &[Coding::Zstd, Coding::Br, Coding::Gzip];
        let cases: [(&str, &[Coding], Option<Coding>); 22] = [
            ("gzip", ALL, Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", ALL, Some(Coding::Zstd)),
            ("gzip, deflate, br", ALL, Some(Coding::Br)),
            ("gzip;q=1, br;q=0.9", ALL, Some(Coding::Gzip)),
            ("gzip;q=0.5, br;q=0.999", ALL, Some(Coding::Br)),
            ("br;q=0, gzip", ALL, Some(Coding::Gzip)),
            ("gzip;q=0", ALL, None),
            ("gzip;q=0.000", ALL, None),
            ("*", ALL, Some(Coding::Zstd)),
            ("*;q=0", ALL, None),
            ("zstd;q=0, *", ALL, Some(Coding::Br)),
            ("*;q=0, gzip", ALL, Some(Coding::Gzip)),
            ("identity", ALL, None),
            ("identity;q=0.9, gzip;q=0.5", ALL, None),
            ("identity;q=0.5, gzip;q=0.9", ALL, Some(Coding::Gzip)),
            ("identity, gzip", ALL, Some(Coding::Gzip)),
            ("", ALL, None),
            ("deflate", ALL, None),
            ("x-gzip", ALL, Some(Coding::Gzip)),
            ("GZIP ; q=1.0", ALL, Some(Coding::Gzip)),
            ("gzip;q=nonsense, br;q=2", ALL, None),
            ("br", &[Coding::Gzip], None),
        ];
        for (accepted, offered, expected) in cases {
            assert_eq!(choose(accepted, offered), expected, "{accepted}");
        }
    }
}
