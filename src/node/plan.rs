//! The plan of a fetch: which entries of a manifest are wanted, and what each is called below the
//! destination. Only [`DestIs::look`] touches the file system.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::image::chunks::ChunkSet;
use crate::image::manifest::{Listing, Manifest, Unresolved};
use crate::image::path::{PARTIAL_PREFIX, TreePath, shown};

/// What DEST is before a fetch. Symbolic links are followed: a DEST is what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestIs {
    /// Nothing; it will be made, as a directory.
    Missing,
    /// A directory, into which the sources go.
    Directory,
    /// A regular file, which a single source replaces.
    File,
    /// A device, socket or fifo, which is no place to put anything.
    Other,
}

impl DestIs {
    /// Looks at DEST; fails if that is not allowed.
    pub fn look(dest: &Path) -> Result<DestIs, Error> {
        match fs::metadata(dest) {
            Ok(found) if found.is_dir() => Ok(DestIs::Directory),
            Ok(found) if found.is_file() => Ok(DestIs::File),
            Ok(_) => Ok(DestIs::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DestIs::Missing),
            Err(error) => Err(Error::file("read the attributes of", dest)(error)),
        }
    }
}

/// Which entries are fetched, and where below one directory they go.
///
/// The directory of every place is the place of an entry too, or [`Plan::dir`] itself; no two
/// entries have the same place, and no place is called like a temporary file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory that everything goes below.
    pub dir: PathBuf,
    listing: Listing,
    /// What was asked for, in the order of the entries; no entry is in two of them.
    chosen: Vec<Chosen>,
    /// The one file that a DEST which is a file is replaced by.
    replacement: Option<TreePath>,
}

/// One thing that was asked for, with all that is in it.
#[derive(Clone, Debug)]
struct Chosen {
    entries: Range<usize>,
    /// Where it is in the tree, and where it goes below the destination: if the way to it has symbolic links, it
    /// has another name there.
    path: TreePath,
    place: TreePath,
}

/// The sources as a person wrote them.
pub fn source_paths(sources: &[OsString]) -> Result<Vec<TreePath>, Error> {
    let paths = sources.iter().map(|source| TreePath::from_user(source.as_bytes()));
    paths.collect::<Result<_, _>>().map_err(|bad| Error::Usage(bad.to_string()))
}

/// Works out where the sources go.
///
/// `.` is everything and goes directly below DEST; any other source goes below DEST under its last
/// name, with all that is in it, as with `cp -rH`: symbolic links are followed to what was asked for, and kept in
/// what is in it. A single source that is no directory may take the
/// place of a DEST that is a file; if that DEST is a symbolic link to a file, the link is replaced.
///
/// Fails with [`Error::NotServed`] for a source that the manifest does not have (`host` says who
/// was asked), and with [`Error::Usage`] if DEST cannot hold the sources or if two of them would
/// get in each other's way.
pub fn plan(
    manifest: &Manifest,
    sources: &[TreePath],
    dest: &Path,
    dest_is: DestIs,
    host: &str,
) -> Result<Plan, Error> {
    let listing = manifest.listing();
    let entries = sources.iter().map(|source| {
        listing.resolve(source).map_err(|why| {
            let path = match why {
                Unresolved::Missing => source.to_string(),
                link => format!("{source}: {link}"),
            };
            Error::NotServed { path, host: host.to_owned() }
        })
    });
    let entries = entries.collect::<Result<Vec<usize>, Error>>()?;
    refuse_collisions(sources, dest)?;
    let mut plan = Plan {
        dir: dest.to_owned(),
        listing: listing.clone(),
        chosen: Vec::new(),
        replacement: None,
    };
    match dest_is {
        DestIs::Missing | DestIs::Directory => plan.choose(sources.iter().zip(entries))?,
        DestIs::File => plan.replace(&entries, dest)?,
        DestIs::Other => return Err(unfit(dest, "is not a directory or regular file")),
    }
    plan.refuse_bad_places(host)?;
    Ok(plan)
}

impl Plan {
    /// Where an entry goes, below [`Plan::dir`]; None if it was not asked for. Only the root of the
    /// manifest can have the place of that directory itself.
    pub fn place(&self, entry: usize) -> Option<TreePath> {
        let chosen = self.chosen.iter().find(|chosen| chosen.entries.contains(&entry))?;
        match &self.replacement {
            Some(place) => Some(place.clone()),
            None => chosen.place.join_all(&self.listing.path(entry)?.relative_to(&chosen.path)?),
        }
    }

    /// Was the entry asked for?
    pub fn chosen(&self, entry: usize) -> bool {
        self.chosen.iter().any(|chosen| chosen.entries.contains(&entry))
    }

    /// All entries that were asked for, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.chosen.iter().flat_map(|chosen| chosen.entries.clone())
    }

    /// The place that is a file already and is to be replaced, where DEST named that file itself.
    pub fn replacement(&self) -> Option<&TreePath> {
        self.replacement.as_ref()
    }

    /// The chunks that hold any byte of a file that was asked for.
    pub fn wanted(&self) -> ChunkSet {
        let layout = self.listing.layout();
        let mut wanted = ChunkSet::empty(layout);
        // What was asked for at once, and is in one place of the tree, is in one place of the image.
        for Chosen { entries, .. } in &self.chosen {
            let start = self.listing.image_start(entries.start);
            let end = self.listing.image_start(entries.end);
            for chunk in layout.covering(start..end) {
                wanted.insert(chunk);
            }
        }
        wanted
    }

    fn choose<'a>(
        &mut self,
        sources: impl Iterator<Item = (&'a TreePath, usize)>,
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for (source, entry) in sources {
            let entries = entry..self.listing.subtree_end(entry);
            let path = self.listing.path(entry).unwrap_or(TreePath::root());
            // `refuse_collisions` has seen that no two have the same name.
            let place = TreePath::root().join(source.name()).unwrap_or(TreePath::root());
            found.push((source, Chosen { entries, path, place }));
        }
        found.sort_by_key(|(_, chosen)| chosen.entries.start);
        // The same may be asked for twice.
        found.dedup_by(|(a, _), (b, _)| a == b);
        for ((a, one), (b, other)) in found.iter().zip(found.iter().skip(1)) {
            if one.entries.end > other.entries.start {
                return Err(Error::Usage(format!(
                    "{a} and {b} lead to the same files by symbolic links: fetch only one of them"
                )));
            }
        }
        self.chosen = found.into_iter().map(|(_, chosen)| chosen).collect();
        Ok(())
    }

    fn replace(&mut self, entries: &[usize], dest: &Path) -> Result<(), Error> {
        let &[entry] = entries else {
            return Err(unfit(dest, "is a file; several sources need a directory as destination"));
        };
        if self.listing.is_dir(entry) {
            return Err(unfit(dest, "is a file and cannot be replaced by a directory"));
        }
        let name = dest.file_name().unwrap_or_default();
        let place = TreePath::root().join(name.as_bytes());
        let place = place.ok_or_else(|| unfit(dest, "has no file name"))?;
        self.dir = match dest.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        self.replacement = Some(place);
        let path = self.listing.path(entry).unwrap_or(TreePath::root());
        self.chosen = vec![Chosen { entries: entry..entry + 1, path, place: TreePath::root() }];
        Ok(())
    }

    /// A master leaves out such names, so that only a manifest that means harm has one: it could
    /// have one file's temporary be another file.
    fn refuse_bad_places(&self, host: &str) -> Result<(), Error> {
        for entry in self.entries() {
            let why = match self.place(entry) {
                Some(place) if place.name().starts_with(PARTIAL_PREFIX) => {
                    format!("{place} has a name that is reserved for unfinished files")
                }
                Some(_) => continue,
                // By the name of a link to a directory above it.
                None => "a path is longer than 4095 bytes by the name that was asked for".into(),
            };
            return Err(Error::Peer { host: host.to_owned(), why });
        }
        Ok(())
    }
}

/// Fails with [`Error::Usage`] if two sources would get in each other's way.
///
/// An entry has one place and a place one entry. That holds for all of them if it holds for the
/// sources: what is in a source goes where the source goes.
pub fn refuse_collisions(sources: &[TreePath], dest: &Path) -> Result<(), Error> {
    for (i, a) in sources.iter().enumerate() {
        for b in sources.iter().skip(i + 1).filter(|b| *b != a) {
            if a.is_within(b) || b.is_within(a) {
                let (part, whole) = if a.is_within(b) { (a, b) } else { (b, a) };
                return Err(Error::Usage(format!(
                    "{part} is inside {whole}: fetch only one of them"
                )));
            }
            if a.name() == b.name() {
                let place = dest.join(std::ffi::OsStr::from_bytes(a.name()));
                let place = shown(place.as_os_str().as_bytes());
                return Err(Error::Usage(format!("{a} and {b} would both be stored as {place}")));
            }
        }
    }
    Ok(())
}

fn unfit(dest: &Path, why: &str) -> Error {
    Error::Usage(format!("{} {why}", shown(dest.as_os_str().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::Content;
    use crate::image::manifest::tests::entry;

    /// `boot/vmlinuz`, `boot/sub/vmlinuz`, links to them and out of the tree, and `etc/boot`.
    fn manifest() -> Manifest {
        let file = || Content::File { bytes: 100_000, image_offset: 0 };
        let link = |target: &str| Content::Symlink { target: target.as_bytes().into() };
        let listing = Listing::new(vec![
            entry(".", Content::Directory),
            entry("boot", Content::Directory),
            entry("boot/deep", link(".")),
            entry("boot/latest", link("vmlinuz")),
            entry("boot/link", link("sub")),
            entry("boot/out", link("../../x")),
            entry("boot/sub", Content::Directory),
            entry("boot/sub/vmlinuz", file()),
            entry("boot/vmlinuz", file()),
            entry("etc", Content::Directory),
            entry("etc/boot", file()),
        ])
        .unwrap();
        let hashes = listing.layout().iter().map(|_| blake3::hash(b"any")).collect();
        Manifest::new(listing, hashes).unwrap()
    }

    fn planned(sources: &[&str], dest: &str, dest_is: DestIs) -> Result<Plan, Error> {
        let path = |source: &&str| TreePath::from_user(source.as_bytes()).unwrap();
        let sources: Vec<TreePath> = sources.iter().map(path).collect();
        plan(&manifest(), &sources, Path::new(dest), dest_is, "master")
    }

    /// What is fetched, as `path in the manifest -> place`, or the error.
    fn places(sources: &[&str], dest: &str, dest_is: DestIs) -> Result<Vec<String>, String> {
        let plan = planned(sources, dest, dest_is).map_err(|error| error.to_string())?;
        let manifest = manifest();
        let line = |i| {
            let place = plan.place(i).unwrap();
            format!("{} -> {place}", manifest.listing().entry(i).unwrap().path)
        };
        Ok(plan.entries().map(line).collect())
    }

    #[test]
    fn a_dot_lays_everything_directly_below_dest() {
        let all = places(&["."], "/x", DestIs::Missing).unwrap();
        assert_eq!(all.len(), 11);
        assert!(all.contains(&". -> .".into()));
        assert!(all.contains(&"boot/sub/vmlinuz -> boot/sub/vmlinuz".into()), "{all:?}");
    }

    #[test]
    fn other_sources_go_below_dest_under_their_last_name() {
        let sub = places(&["boot/sub", "boot/vmlinuz"], "/x", DestIs::Directory).unwrap();
        let wanted =
            ["boot/sub -> sub", "boot/sub/vmlinuz -> sub/vmlinuz", "boot/vmlinuz -> vmlinuz"];
        assert_eq!(sub, wanted);
    }

    #[test]
    fn what_a_link_leads_to_goes_where_the_link_would() {
        let file = places(&["boot/latest"], "/x", DestIs::Directory).unwrap();
        assert_eq!(file, ["boot/vmlinuz -> latest"]);
        let dir = places(&["boot/deep/link"], "/x", DestIs::Directory).unwrap();
        assert_eq!(dir, ["boot/sub -> link", "boot/sub/vmlinuz -> link/vmlinuz"]);
        let error = places(&["boot/out"], "/x", DestIs::Missing).unwrap_err();
        let shown = "boot/out: boot/out is a symbolic link to ../../x, which leads out";
        assert!(error.contains(shown), "{error}");
    }

    #[test]
    fn one_file_or_link_replaces_a_dest_that_is_a_file() {
        for (source, dest, dir) in [("boot/vmlinuz", "/boot/k", "/boot"), ("boot/latest", "k", ".")]
        {
            let plan = planned(&[source], dest, DestIs::File).unwrap();
            assert_eq!(plan.dir, Path::new(dir));
            let places: Vec<_> = plan.entries().map(|i| plan.place(i).unwrap()).collect();
            assert_eq!(places, [TreePath::from_user(b"k").unwrap()]);
            assert_eq!(plan.replacement(), places.first());
        }
    }

    #[test]
    fn a_dest_that_cannot_hold_the_sources_is_refused() {
        for (sources, dest_is, why) in [
            (&["boot/vmlinuz", "etc/boot"][..], DestIs::File, "/x is a file; several sources"),
            (&["boot"], DestIs::File, "/x is a file and cannot be replaced by a directory"),
            (&["boot"], DestIs::Other, "/x is not a directory or regular file"),
        ] {
            let error = places(sources, "/x", dest_is).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }

    #[test]
    fn sources_in_each_others_way_are_named() {
        for (sources, why) in [
            (["boot", "etc/boot"], "boot and etc/boot would both be stored as /x/boot"),
            (["boot/vmlinuz", "boot/sub/vmlinuz"], "would both be stored as /x/vmlinuz"),
            (["boot", "boot/vmlinuz"], "boot/vmlinuz is inside boot"),
            (["boot/sub", "."], "boot/sub is inside ."),
        ] {
            let error = places(&sources, "/x", DestIs::Directory).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(places(&["etc", "etc"], "/x", DestIs::Directory).is_ok());
        let error = places(&["boot/latest", "boot/vmlinuz"], "/x", DestIs::Directory).unwrap_err();
        assert!(error.contains("boot/latest and boot/vmlinuz lead to the same files"), "{error}");
    }

    #[test]
    fn what_the_master_lacks_is_named_with_the_master() {
        let error = planned(&["boot/initrd"], "/x", DestIs::Missing).unwrap_err();
        assert_eq!(error.to_string(), "master does not serve boot/initrd");
        assert_eq!(error.exit_code(), 4);
    }

    #[test]
    fn names_of_temporary_files_are_refused() {
        let bad = entry(".xget-part-0123456789abcdef", Content::Directory);
        let listing = Listing::new(vec![entry(".", Content::Directory), bad]).unwrap();
        let manifest = Manifest::new(listing, Vec::new()).unwrap();
        let everything = [TreePath::root()];
        let plan = plan(&manifest, &everything, Path::new("/x"), DestIs::Missing, "master");
        assert!(matches!(plan, Err(Error::Peer { .. })));
    }

    #[test]
    fn all_chunks_that_touch_a_chosen_file_are_wanted() {
        let plan = planned(&["boot/vmlinuz"], "/x", DestIs::Missing).unwrap();
        assert_eq!(plan.wanted().runs(), "1-3");
        let link = planned(&["boot/latest"], "/x", DestIs::Missing).unwrap();
        assert_eq!(link.wanted().runs(), "1-3");
    }

    #[test]
    fn a_link_is_what_it_leads_to() {
        let dir = std::env::temp_dir().join(format!("xget-plan-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(".", dir.join("link")).unwrap();
        let found = DestIs::look(&dir.join("link"));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.unwrap(), DestIs::Directory);
        assert_eq!(DestIs::look(&dir).unwrap(), DestIs::Missing);
    }
}
