//! Access control lists as tar has them, which is text (acl(5)), and as setxattr(2) takes them.

/// `ACL_EA_VERSION` of linux/posix_acl_xattr.h.
const VERSION: u32 = 2;
/// The ID of entries that name nobody.
const NOBODY: u32 = u32::MAX;

/// The value of `system.posix_acl_access` or `..._default` for a list in text form: entries such as
/// `user:1000:r-x` between commas or newlines. star and bsdtar add a fourth part, the ID of what the entry
/// names. None if it is no list, or names somebody without a number: no names are known before the boot, but
/// root's.
pub(super) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?;
    let mut entries = Vec::new();
    for line in text.split(['\n', ',']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            entries.push(entry(line)?);
        }
    }
    // The kernel wants them so.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Some(value)
}

/// Tag, ID and permissions of an entry.
fn entry(line: &str) -> Option<(u16, u32, u16)> {
    let mut parts = line.split(':').map(str::trim);
    let (kind, who, permissions) = (parts.next()?, parts.next()?, parts.next()?);
    let id = match (who, parts.next()) {
        ("", _) => NOBODY,
        (_, Some(id)) => id.parse().ok()?,
        ("root", None) => 0,
        (number, None) => number.parse().ok()?,
    };
    let tag = match (kind, id) {
        ("user" | "u", NOBODY) => 0x01,
        ("user" | "u", _) => 0x02,
        ("group" | "g", NOBODY) => 0x04,
        ("group" | "g", _) => 0x08,
        ("mask" | "m", NOBODY) => 0x10,
        ("other" | "o", NOBODY) => 0x20,
        _ => return None,
    };
    let permissions = permissions.chars().try_fold(0, |bits, letter| match letter {
        'r' => Some(bits | 4),
        'w' => Some(bits | 2),
        'x' => Some(bits | 1),
        '-' => Some(bits),
        _ => None,
    });
    Some((tag, id, permissions?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a list, as (tag, permissions, ID).
    fn entries(text: &str) -> Option<Vec<(u16, u16, u32)>> {
        let value = from_text(text.as_bytes())?;
        let (version, rest) = value.split_at(4);
        assert_eq!(version, [2, 0, 0, 0]);
        let (entries, rest) = rest.as_chunks::<8>();
        assert!(rest.is_empty());
        let short = |a, b| u16::from_le_bytes([a, b]);
        let entries = entries.iter().map(|&[a, b, c, d, e, f, g, h]| {
            (short(a, b), short(c, d), u32::from_le_bytes([e, f, g, h]))
        });
        Some(entries.collect())
    }

    #[test]
    fn lists_of_gnu_tar_and_of_star_mean_the_same() {
        let nobody = u32::MAX;
        let list = vec![
            (1, 6, nobody),
            (2, 5, 1000),
            (4, 4, nobody),
            (8, 7, 0),
            (16, 7, nobody),
            (32, 0, nobody),
        ];
        let gnu = "user::rw-\nuser:1000:r-x\ngroup::r--\ngroup:root:rwx\nmask::rwx\nother::---\n";
        assert_eq!(entries(gnu), Some(list.clone()));
        let star = "user::rw-,group::r--,mask::rwx,other::---,user:lisa:r-x:1000,group:root:rwx:0";
        assert_eq!(entries(star), Some(list));
    }

    #[test]
    fn who_has_no_number_cannot_be_named() {
        assert_eq!(entries("user::rw-,user:lisa:r-x,group::r--,mask::r-x,other::---"), None);
        assert_eq!(entries("something else"), None);
    }
}
