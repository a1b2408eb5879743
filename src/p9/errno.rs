//! Error numbers, as 9P2000.L sends them, with the words that the other dialects send.

/// A Linux error number and its words.
///
/// Linux clients of plain 9P2000 turn the words back into the number, so they are strerror's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

macro_rules! errors {
    ($($name:ident = $number:literal $text:literal)*) => {
        #[allow(missing_docs, reason = "the names and numbers are errno(3)'s")]
        impl Errno {
            $(pub const $name: Errno = Errno($number);)*

            /// The words for it.
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "Remote I/O error",
                }
            }
        }
    };
}

errors! {
    EPERM = 1 "Operation not permitted"
    ENOENT = 2 "No such file or directory"
    EIO = 5 "Input/output error"
    EBADF = 9 "Bad file descriptor"
    EACCES = 13 "Permission denied"
    EBUSY = 16 "Device or resource busy"
    ENOTDIR = 20 "Not a directory"
    EISDIR = 21 "Is a directory"
    EINVAL = 22 "Invalid argument"
    EMFILE = 24 "Too many open files"
    EROFS = 30 "Read-only file system"
    ELOOP = 40 "Too many levels of symbolic links"
    EPROTO = 71 "Protocol error"
    EMSGSIZE = 90 "Message too long"
    EOPNOTSUPP = 95 "Operation not supported"
    ESTALE = 116 "Stale file handle"
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text() {
            "Remote I/O error" => write!(f, "error {}", self.0),
            text => f.write_str(text),
        }
    }
}
