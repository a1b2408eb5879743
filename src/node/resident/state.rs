//! `state.json`: what a process serves, for people and programs of the same machine.
//!
//! It is one JSON object; `docs/boot.md` says what its members mean. Names may hold any bytes: as in a
//! manifest, those that are not printable ASCII are `\xHH` in its strings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::image::manifest::Manifest;
use crate::image::path::{TreePath, escape};
use crate::node::plan::Plan;
use crate::status::string;

/// What it is made of.
pub(super) struct State<'a> {
    pub(super) pid: u32,
    pub(super) port: u16,
    /// Since 1970.
    pub(super) since_s: u64,
    pub(super) until_s: Option<u64>,
    pub(super) server: &'a str,
    pub(super) sources: &'a [OsString],
    pub(super) manifest: &'a Manifest,
    pub(super) plan: &'a Plan,
}

impl State<'_> {
    pub(super) fn to_json(&self) -> String {
        let until = self.until_s.map_or("null".to_owned(), |until| until.to_string());
        let served: Vec<String> =
            self.sources.iter().filter_map(|source| self.served(source.as_bytes())).collect();
        format!(
            "{{\"version\":1,\"pid\":{},\"port\":{},\"since\":{},\"until\":{until},\"server\":{},\
             \"generation\":\"{}\",\"served\":[{}]}}\n",
            self.pid,
            self.port,
            self.since_s,
            string(self.server),
            self.manifest.generation().to_hex(),
            served.join(","),
        )
    }

    /// One thing that was asked for: its path on the server, where it is here, and its size.
    fn served(&self, source: &[u8]) -> Option<String> {
        let path = TreePath::from_user(source).ok()?;
        let listing = self.manifest.listing();
        let entry = listing.find(&path)?;
        let place = self.plan.place(entry)?;
        let mut file = self.plan.dir.as_os_str().as_bytes().to_vec();
        if !place.is_root() {
            file.push(b'/');
            file.extend_from_slice(place.as_bytes());
        }
        let bytes = listing.image_start(listing.subtree_end(entry)) - listing.image_start(entry);
        Some(format!(
            "{{\"path\":{},\"file\":{},\"bytes\":{}}}",
            string(&escape(path.as_bytes_or_dot())),
            string(&escape(&file)),
            bytes,
        ))
    }
}

/// The process that a state, or its beginning, was written by.
pub(super) fn pid_in(state: &str) -> Option<u32> {
    let (_, pid) = state.split_once("\"pid\":")?;
    pid.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use super::*;
    use crate::image::manifest::tests::entry;
    use crate::image::manifest::{Content, Listing};
    use crate::node::plan::{DestIs, plan};

    #[test]
    fn it_names_what_was_asked_for_whatever_its_name() {
        let name = b"images/ro\"ot \xff";
        let file = |bytes| Content::File { bytes, image_offset: 0 };
        let mut odd = entry("images/x", file(1000));
        odd.path = TreePath::from_manifest(name).unwrap();
        let listing = Listing::new(vec![
            entry(".", Content::Directory),
            entry("etc", Content::Directory),
            entry("etc/a", file(5)),
            entry("etc/b", file(7)),
            entry("images", Content::Directory),
            odd,
        ])
        .unwrap();
        let hashes = listing.layout().iter().map(|_| blake3::hash(b"any")).collect();
        let manifest = Manifest::new(listing, hashes).unwrap();
        let sources = [OsString::from_vec(name.to_vec()), "/etc/".into()];
        let paths = [name.to_vec(), b"etc".to_vec()].map(|p| TreePath::from_user(&p).unwrap());
        let dest = Path::new("/run/xget/files");
        let plan = plan(&manifest, &paths, dest, DestIs::Directory, "head").unwrap();
        let state = State {
            pid: 7,
            port: 20004,
            since_s: 1000,
            until_s: Some(1060),
            server: "head",
            sources: &sources,
            manifest: &manifest,
            plan: &plan,
        };
        let expected = format!(
            concat!(
                r#"{{"version":1,"pid":7,"port":20004,"since":1000,"until":1060,"server":"head","#,
                r#""generation":"{}","served":["#,
                r#"{{"path":"images/ro\"ot\\x20\\xff","file":"/run/xget/files/ro\"ot\\x20\\xff","#,
                r#""bytes":1000}},{{"path":"etc","file":"/run/xget/files/etc","bytes":12}}]}}"#,
                "\n"
            ),
            manifest.generation().to_hex()
        );
        assert_eq!(state.to_json(), expected);
        assert_eq!(pid_in(&expected), Some(7));
    }
}
