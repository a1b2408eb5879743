//! Percent-encoding (RFC 3986, section 2.1).

use percent_encoding::percent_decode_str;

/// The bytes that a text stands for; None unless two hexadecimal digits follow every `%`, which
/// [`percent_decode_str`] would let pass.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let is_escape = |rest: &str| {
        rest.as_bytes().first_chunk::<2>().is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_any_byte() {
        assert_eq!(decode("a%20b%2f%Ff+"), Some(b"a b/\xff+".to_vec()));
        assert_eq!(decode(""), Some(Vec::new()));
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for text in ["%", "a%4", "%+5", "%-1", "%zz", "%4g", "%%41", "%4%41", "%\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
