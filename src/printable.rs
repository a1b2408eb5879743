//! Text that others have chosen, on a terminal or a page.

use std::borrow::Cow;

/// Whether a character is seen as itself, and does nothing to those around it.
///
/// Not so control characters, those that format or reorder text (soft hyphens, U+200B, U+202E, U+FEFF), separators of
/// lines and spaces that look like others or like nothing, and what is not assigned or private.
pub(crate) fn is_printable(c: char) -> bool {
    // `str::escape_debug` knows Unicode's categories. It escapes some ASCII for the sake of string literals, and
    // combining characters at the beginning of a string.
    let mut behind_a_letter = [b'a', 0, 0, 0, 0];
    let len = 1 + behind_a_letter.get_mut(1..).map_or(0, |rest| c.encode_utf8(rest).len());
    let text = behind_a_letter.get(..len).and_then(|text| std::str::from_utf8(text).ok());
    matches!(c, ' '..='~')
        || !c.is_ascii()
            && !is_ignorable(c)
            && text.is_some_and(|text| text.escape_debug().count() == 2)
}

/// Characters of other categories that are shown as nothing (Default_Ignorable_Code_Point of Unicode), or as a space.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34F}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// The text with each character escaped that is not printable.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_all_scripts_are_printable() {
        for text in
            ["xget: it's \"here\" \\ ~", "grün", "名前", "имя", "नाम", "ชื่อ", "e\u{301}", "→ ✓ 🦀"]
        {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_is_not_seen_or_moves_other_text_is_escaped() {
        let ranges = [
            0..=0x1F,
            0x7F..=0x9F,
            0xA0..=0xA0,
            0xAD..=0xAD,
            0x34F..=0x34F,
            0x600..=0x605,
            0x61C..=0x61C,
            0x115F..=0x1160,
            0x1680..=0x1680,
            0x17B4..=0x17B5,
            0x180B..=0x180F,
            0x2000..=0x200F,
            0x2028..=0x202F,
            0x205F..=0x206F,
            0x2800..=0x2800,
            0x3000..=0x3000,
            0x3164..=0x3164,
            0xE000..=0xE000,
            0xFE00..=0xFE0F,
            0xFEFF..=0xFEFF,
            0xFFA0..=0xFFA0,
            0xFFF9..=0xFFFB,
            0x1D173..=0x1D17A,
            0xE0000..=0xE01EF,
            0x10FFFF..=0x10FFFF,
        ];
        for c in ranges.into_iter().flatten().filter_map(char::from_u32) {
            assert!(!is_printable(c), "{c:?}");
        }
        assert_eq!(printable("a\u{202e}b\n\u{200b}"), "a\\u{202e}b\\n\\u{200b}");
    }
}
