//! What every file format needs: errors that say where, and files that are written whole or not at all.

use crate::error::{Error, ErrorKind, Result};
use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The operation at work and the file it works on, to be named in its errors; a stream has no path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) operation: &'static str,
    pub(crate) path: Option<&'a Path>,
}

impl<'a> Origin<'a> {
    pub(crate) fn stream(operation: &'static str) -> Self {
        Self { operation, path: None }
    }

    pub(crate) fn file(operation: &'static str, path: &'a Path) -> Self {
        Self { operation, path: Some(path) }
    }

    pub(crate) fn error(&self, kind: ErrorKind, message: impl std::fmt::Display) -> Error {
        match self.path {
            Some(path) => Error::new(kind, self.operation, format!("{}: {message}", path.display())),
            None => Error::new(kind, self.operation, message.to_string()),
        }
    }

    /// The bytes are not what their format says.
    pub(crate) fn format(&self, message: impl std::fmt::Display) -> Error {
        self.error(ErrorKind::Format, message)
    }

    /// The operating system, or a reader or writer that was handed in, refused.
    pub(crate) fn io(&self, source: io::Error) -> Error {
        match self.path {
            Some(path) => Error::io(self.operation, path, source),
            None => Error::new(ErrorKind::Io, self.operation, source.to_string()).with_source(source),
        }
    }

    /// Room for `more` elements, or an error where there is none: a failed reservation must not abort the program.
    pub(crate) fn reserve<T>(&self, vector: &mut Vec<T>, more: usize) -> Result<()> {
        vector.try_reserve(more).map_err(|e| {
            self.error(ErrorKind::Memory, format!("there is no memory for {more} more elements")).with_source(e)
        })
    }
}

/// The first few names, quoted, and how many more there are.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let names: Vec<String> = names.take(SHOWN).map(|name| format!("{name:?}")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}

/// The first few of many things that are wrong, and how many more there are.
pub(crate) fn first_few(offences: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = offences.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    offences[..offences.len().min(SHOWN)].join("; ") + &more
}

/// Writes a file so that its path holds either all of it or what it held before, even if the power fails.
///
/// `write` fills a temporary file beside `path`, which is flushed, synchronised to the disk and renamed to `path`. Whatever
/// fails on the way, the temporary file goes and `path` stays as it was. A symbolic link is followed, and a file that is
/// replaced keeps its permissions.
///
/// # Errors
/// What `write` returns; [`ErrorKind::Io`] with the path where the operating system refuses, or where `path` is something else
/// than a regular file.
pub(crate) fn write_atomically(
    operation: &'static str,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    Staged::write(operation, path, write)?.place()
}

/// A file that lies whole on the disk beside its place. It goes when dropped.
pub(crate) struct Staged<'a> {
    origin: Origin<'a>,
    /// Where its path leads.
    target: PathBuf,
    temporary: Temporary,
}

impl<'a> Staged<'a> {
    /// The first part of [`write_atomically`]: all but the rename.
    pub(crate) fn write(
        operation: &'static str,
        path: &'a Path,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<Self> {
        let origin = Origin::file(operation, path);
        let target = followed(path).map_err(|e| origin.io(e))?;
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(origin.error(ErrorKind::Io, "is there already and is not a regular file; name a file"));
        }
        let (Some(name), Some(directory)) = (target.file_name(), directory_of(&target)) else {
            return Err(origin.error(ErrorKind::Io, "does not end in a file's name"));
        };
        let (file, temporary) = Temporary::create(directory, name).map_err(|e| origin.io(e))?;
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        let finish = || {
            writer.flush()?;
            if let Some(existing) = existing {
                writer.get_ref().set_permissions(existing.permissions())?;
            }
            // Windows renames only closed files, and this one is closed with the writer.
            writer.get_ref().sync_all()
        };
        finish().map_err(|e| origin.io(e))?;
        Ok(Self { origin, target, temporary })
    }

    /// Moves it into its place.
    pub(crate) fn place(self) -> Result<()> {
        let Self { origin, target, temporary } = self;
        temporary.rename(&target).map_err(|e| origin.io(e))?;
        synchronise(&target);
        Ok(())
    }

    /// Removes the file that is in its place, if there is one.
    fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.origin.io(e)),
            _ => {
                synchronise(&self.target);
                Ok(())
            }
        }
    }
}

/// Moves files into their places, and with them the one that says what they are, without which they are not read.
///
/// The old one of it goes first and the new one comes last: killed on the way, this leaves files that nothing describes, and never
/// new ones that an old description seems to fit. What can fail for want of room or permission has been done when files are staged.
pub(crate) fn place_described(files: Vec<Staged<'_>>, description: Staged<'_>) -> Result<()> {
    description.clear()?;
    files.into_iter().try_for_each(Staged::place)?;
    description.place()
}

/// The directory that a path's file lies in.
fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Lets a change of names in a file's directory reach the disk. Not every file system lets a directory be synchronised, and files are
/// complete either way, so a refusal is no failure.
fn synchronise(path: &Path) {
    if let Some(directory) = directory_of(path).and_then(|directory| File::open(directory).ok()) {
        let _ = directory.sync_all();
    }
}

/// Where a path leads through symbolic links, be there a file or not: a rename would replace a link instead of what it points to.
fn followed(path: &Path) -> io::Result<PathBuf> {
    // As many as Linux follows.
    const LINKS: usize = 40;
    let mut target = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&target) else { return Ok(target) };
        target = target.parent().map_or_else(|| next.clone(), |parent| parent.join(&next));
    }
    // The system's own words for links that lead in a circle.
    fs::canonicalize(path)
}

/// Removes what processes left that were killed while they wrote `path`. Nobody else may be writing it, or a file whose temporary files are
/// called the same.
pub(crate) fn remove_abandoned(path: &Path) -> io::Result<()> {
    let (Some(name), Some(directory)) = (path.file_name(), directory_of(path)) else { return Ok(()) };
    let start = temporary_start(name);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let held = entry.file_name();
        if held.as_encoded_bytes().starts_with(start.as_bytes()) && held.as_encoded_bytes().ends_with(b".tmp") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the temporary files of a name begin with. Of a long name its first characters, or theirs would be longer than file systems allow.
fn temporary_start(name: &OsStr) -> String {
    const KEPT: usize = 40;
    let kept: String = name.to_string_lossy().chars().take(KEPT).collect();
    format!(".{kept}.")
}

/// A file that goes when dropped, unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn create(directory: &Path, name: &OsStr) -> io::Result<(File, Self)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let start = temporary_start(name);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{start}{}-{number}.tmp", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Self(Some(path)))),
                // Left by a process of the same number that was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.0 {
            fs::rename(path, target)?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        write_atomically("test", &path, |w| w.write_all(b"first").map_err(|e| Error::io("test", &path, e))).unwrap();
        let failed = write_atomically("test", &path, |w| {
            w.write_all(&[0; 100_000]).map_err(|e| Error::io("test", &path, e))?;
            Err(Error::format("test", "stop"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "test: stop");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let panicked = std::panic::catch_unwind(|| write_atomically("test", &path, |_| panic!("stop")));
        assert!(panicked.is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_description_is_never_that_of_other_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (tensors, more, text) = (path("a.bin"), path("b.bin"), path("a.json"));
        fn stage<'a>(path: &'a Path, content: &str) -> Staged<'a> {
            Staged::write("test", path, |w| w.write_all(content.as_bytes()).map_err(|e| Error::io("test", path, e)))
                .unwrap()
        }
        let stage_all = |content| (vec![stage(&tensors, content), stage(&more, content)], stage(&text, content));
        let held = || [&tensors, &more, &text].map(|path| fs::read_to_string(path).ok());
        let [old, new] = ["old", "new"].map(|content| Some(content.to_string()));
        for content in ["old", "new", "old"] {
            let (files, description) = stage_all(content);
            place_described(files, description).unwrap();
            assert_eq!(held(), [content; 3].map(|content| Some(content.to_string())));
        }
        // Nothing has changed until all are written.
        drop(stage_all("new"));
        assert_eq!(held(), [&old; 3].map(Clone::clone));
        // Stopped after the first.
        let (files, description) = stage_all("new");
        fs::remove_file(&more).unwrap();
        fs::create_dir(&more).unwrap();
        let error = place_described(files, description).unwrap_err();
        assert!(error.to_string().contains("b.bin"), "{error}");
        assert_eq!(held(), [new, None, None]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn what_killed_processes_left_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        for name in ["a.bin", ".a.bin.12-0.tmp", ".a.bin.13-4.tmp", ".b.bin.12-0.tmp", ".a.bin.keep"] {
            fs::write(directory.path().join(name), b"x").unwrap();
        }
        remove_abandoned(&path).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".a.bin.keep", ".b.bin.12-0.tmp", "a.bin"]);
    }

    #[test]
    fn names_as_long_as_a_file_system_takes() {
        let directory = tempfile::tempdir().unwrap();
        // 255 bytes, of which characters take one or several.
        for name in ["a".repeat(255), "\u{fc}".repeat(127), "\u{1f9ee}".repeat(63)] {
            let path = directory.path().join(&name);
            for content in [b"first", b"again"] {
                write_atomically("test", &path, |w| w.write_all(content).map_err(|e| Error::io("test", &path, e)))
                    .unwrap();
                assert_eq!(fs::read(&path).unwrap(), content);
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "no temporary file stays");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_permissions_kept() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a.bin"), directory.path().join("link"));
        fs::write(&path, b"first").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_atomically("test", &link, |w| w.write_all(b"second").map_err(|e| Error::io("test", &link, e))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
