//! A log file, and its rotation: behind the line that makes it too long it gets a name with the time in it, and a new one
//! begins. Names, lines and their order are the reference's, the carriage returns in what it says of itself included.
//!
//! What the reference does not do: when the file cannot be put aside it goes on with it (there, the server ends), and
//! the number of files holds after a reopening too.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::Rotation;
use super::line::{Form, file_stamp};
use super::output::Output;
use super::queue::Gauge;
use crate::broker::Level;
use crate::wire::error_text::quote;

/// Who may read a log.
const MODE: u32 = 0o640;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    output: Output<File>,
    /// Its length as far as rotation is concerned.
    len: u64,
    /// Longer than this, it is put aside.
    limit: u64,
}

impl LogFile {
    /// Opens a file, or makes it.
    pub fn open(path: &Path, rotation: Rotation, gauge: &Arc<Gauge>) -> io::Result<LogFile> {
        let file = open(path)?;
        let len = file.metadata()?.len();
        let output = Output::new(file, gauge.clone());
        Ok(LogFile { path: path.to_owned(), rotation, output, len, limit: limit(rotation) })
    }

    /// To be called first of all: what is too long already is put aside.
    pub fn begin(&mut self, form: &mut Form) {
        if self.len > self.limit {
            self.line(form, SystemTime::now(), Level::Info, "Rotating logfile...");
        }
    }

    /// Opens the file anew, which somebody has moved away.
    pub fn reopen(&mut self, form: &mut Form) -> io::Result<()> {
        self.output.flush();
        let file = open(&self.path)?;
        self.len = file.metadata()?.len();
        self.limit = limit(self.rotation);
        self.output.replace(file);
        self.begin(form);
        Ok(())
    }

    /// Adds a line.
    pub fn line(&mut self, form: &mut Form, at: SystemTime, level: Level, text: &str) {
        self.add(form, at, level, text, "\n");
        if self.len > self.limit {
            self.rotate(form);
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Goes by another rule from here on; [`LogFile::begin`] must follow.
    pub fn change_rotation(&mut self, rotation: Rotation) {
        (self.rotation, self.limit) = (rotation, limit(rotation));
    }

    /// Whether lines get through, as far as is known.
    pub fn is_working(&self) -> bool {
        self.output.is_working()
    }

    /// Writes what is collected.
    pub fn flush(&mut self) {
        self.output.flush();
    }

    fn add(&mut self, form: &mut Form, at: SystemTime, level: Level, text: &str, end: &str) {
        let to = self.output.collect();
        let before = to.len();
        form.write(to, at, level, text);
        to.extend_from_slice(end.as_bytes());
        self.len += (to.len() - before) as u64;
        self.output.added();
    }

    /// A line about the file itself.
    fn say(&mut self, form: &mut Form, level: Level, text: &str) {
        self.add(form, SystemTime::now(), level, text, "\r\n");
    }

    fn rotate(&mut self, form: &mut Form) {
        self.output.flush();
        let backup = self.unused_name();
        match self.put_aside(&backup) {
            Ok((file, is_aside)) => {
                self.output.replace(file);
                (self.len, self.limit) = (0, limit(self.rotation));
                if is_aside {
                    let name = quote(backup.as_os_str().as_encoded_bytes());
                    self.say(form, Level::Info, &format!("Rotated log, backup saved as {name}"));
                }
                let len = self.len;
                self.remove_oldest(form);
                self.len = len;
            }
            Err(error) => {
                self.limit = self.limit.saturating_mul(2);
                let text = format!(
                    "Unable to rotate the logfile ({error}), will attempt next rotation at size {}",
                    self.limit
                );
                self.say(form, Level::Error, &text);
            }
        }
    }

    fn unused_name(&self) -> PathBuf {
        loop {
            let mut name = self.path.clone().into_os_string();
            name.push(".");
            name.push(file_stamp(SystemTime::now()));
            let name = PathBuf::from(name);
            if fs::symlink_metadata(&name).is_err() {
                return name;
            }
        }
    }

    /// Renames the file and opens a new one; either both or nothing. If somebody else has moved it away, there is
    /// only the new one: `false`.
    fn put_aside(&self, backup: &Path) -> io::Result<(File, bool)> {
        match fs::rename(&self.path, backup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((open(&self.path)?, false)),
            renamed => renamed?,
        }
        match open(&self.path) {
            Ok(file) => Ok((file, true)),
            Err(error) => {
                let _ = fs::rename(backup, &self.path);
                Err(error)
            }
        }
    }

    /// Removes the oldest files, down to what is to be kept.
    fn remove_oldest(&mut self, form: &mut Form) {
        let Some(files_max) = self.rotation.files_max else { return };
        let kept = files_max.get() as usize - 1;
        let directory = match self.path.parent() {
            Some(directory) if directory != Path::new("") => directory.to_owned(),
            _ => PathBuf::from("."),
        };
        let names = match names_aside(&directory, self.path.file_name().unwrap_or_default()) {
            Ok(names) => names,
            Err(error) => {
                let directory = quote(directory.as_os_str().as_encoded_bytes());
                let text = format!(
                    "Unable to read directory {directory} for log purge ({error}), will attempt next rotation"
                );
                return self.say(form, Level::Error, &text);
            }
        };
        for name in names.iter().take(names.len().saturating_sub(kept)) {
            let shown = quote(name.as_encoded_bytes());
            match fs::remove_file(directory.join(name)) {
                Ok(()) => self.say(form, Level::Info, &format!("Purged log file {shown}")),
                Err(error) => {
                    let text = format!(
                        "Unable to remove backup log file {shown} ({error}), will attempt next rotation"
                    );
                    return self.say(form, Level::Error, &text);
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

fn limit(rotation: Rotation) -> u64 {
    rotation.size_limit.map_or(u64::MAX, std::num::NonZeroU64::get)
}

/// The files that `base` was put aside as, oldest first.
fn names_aside(directory: &Path, base: &OsStr) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.as_encoded_bytes().strip_prefix(base.as_encoded_bytes());
        if stamp.and_then(|rest| rest.strip_prefix(b".")).is_some_and(is_stamp)
            && !entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether this is the time in the name of a file that was put aside: nobody else's files are removed.
fn is_stamp(text: &[u8]) -> bool {
    const WIDTHS: [usize; 7] = [4, 2, 2, 2, 2, 2, 9];
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    parts.len() == WIDTHS.len()
        && parts
            .iter()
            .zip(WIDTHS)
            .all(|(part, width)| part.len() == width && part.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::super::LogSettings;
    use super::*;

    struct Scene {
        directory: tempfile::TempDir,
        form: Form,
        file: LogFile,
    }

    fn scene(size_limit: u64, files_max: u32, before: &str) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        if !before.is_empty() {
            fs::write(&path, before).unwrap();
        }
        let rotation =
            Rotation { size_limit: NonZeroU64::new(size_limit), files_max: NonZeroU32::new(files_max) };
        let mut form = Form::new(&LogSettings { without_time: true, ..LogSettings::default() }, false);
        let mut file = LogFile::open(&path, rotation, &Arc::default()).unwrap();
        file.begin(&mut form);
        Scene { directory, form, file }
    }

    impl Scene {
        fn line(&mut self, text: &str) {
            self.file.line(&mut self.form, SystemTime::now(), Level::Info, text);
        }

        /// The names of the files, and what stands in all of them, oldest first.
        fn files(&mut self) -> (Vec<String>, String) {
            self.file.flush();
            let mut names: Vec<String> = fs::read_dir(self.directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_by_key(|name| (name == "log", name.clone()));
            let texts =
                names.iter().map(|name| fs::read_to_string(self.directory.path().join(name)).unwrap());
            let text = texts.collect();
            (names, text)
        }
    }

    #[test]
    fn a_file_is_put_aside_behind_the_line_that_makes_it_too_long() {
        let mut scene = scene(100, 0, "");
        for i in 0..20 {
            scene.line(&format!("line {i} {}", "x".repeat(60)));
        }
        let (names, text) = scene.files();
        assert!(names.len() > 5 && names.iter().all(|name| name == "log" || is_stamp(&name.as_bytes()[4..])));
        let numbers = text.lines().filter_map(|line| line.split_once("] line ")?.1.split(' ').next());
        assert_eq!(numbers.collect::<Vec<_>>(), (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
        let first = scene.directory.path().join(&names[0]);
        let line = format!("[INF] Rotated log, backup saved as \"{}\"\r\n", first.display());
        assert!(text.contains(&line), "{text}");
    }

    #[test]
    fn the_oldest_are_removed_and_nobody_elses() {
        let mut scene = scene(1, 3, "");
        let others = ["log.1", "log.bak", "log.2026.01.02.03.04.05", "logs.2026.01.02.03.04.05.000000000"];
        for name in others {
            fs::write(scene.directory.path().join(name), "kept\n").unwrap();
        }
        for i in 0..10 {
            scene.line(&format!("line {i}"));
        }
        let (names, text) = scene.files();
        assert!(others.iter().all(|other| names.iter().any(|name| name == other)));
        assert_eq!(names.len(), others.len() + 3);
        assert!(text.contains("line 9") && text.contains("line 8") && !text.contains("line 7"), "{text}");
        assert!(text.contains("[INF] Purged log file \"log.20"), "{text}");
    }

    #[test]
    fn what_is_too_long_already_is_put_aside_at_once() {
        let mut scene = scene(400, 0, &format!("{}\n", "x".repeat(500)));
        scene.line("first");
        let (names, text) = scene.files();
        assert_eq!(names.len(), 2);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("[INF] Rotating logfile..."), "{text}");
        assert!(lines[2].contains("[INF] Rotated log, backup saved as"), "{text}");
        assert!(lines[3].ends_with("[INF] first"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on() {
        let mut scene = scene(50, 0, "");
        let path = scene.directory.path().join("log");
        // As if its directory had been removed.
        scene.file.path = scene.directory.path().join("gone").join("log");
        scene.line(&"x".repeat(60));
        scene.line("second");
        scene.file.flush();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("[ERR] Unable to rotate the logfile (No such file"), "{text}");
        assert!(text.contains("will attempt next rotation at size 100\r\n"), "{text}");
        assert!(text.contains("[INF] second\n"), "{text}");
    }

    #[test]
    fn a_reopened_file_is_a_new_one_with_the_same_rules() {
        let mut scene = scene(100, 2, "");
        scene.line("before");
        let moved = scene.directory.path().join("moved");
        fs::rename(scene.directory.path().join("log"), &moved).unwrap();
        scene.file.reopen(&mut scene.form).unwrap();
        for _ in 0..5 {
            scene.line(&"x".repeat(100));
        }
        let (names, _) = scene.files();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(fs::read_to_string(moved).unwrap().ends_with("before\n"));
    }
}
