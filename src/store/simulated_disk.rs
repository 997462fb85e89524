//! A disk for tests that forgets what was not synced: every sector, length and directory entry on its own.
//!
//! What a program sees while it runs is everything it did. A power cut keeps what was synced, and of the rest each
//! sector that was written, each change of a file's length and each change of the directory, or not, by the draw; now
//! and then a sector half.

use std::collections::BTreeMap;
use std::io;

use super::plan::{FileId, Files, Step};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Sector(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone)]
enum Entry {
    Link(String, usize),
    Unlink(String),
}

#[derive(Clone, Default)]
pub struct SimulatedDisk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    entries: Vec<Entry>,
    /// Bytes that may still be reserved.
    pub space: Option<usize>,
    /// The step at which the power is cut: it is carried out and not synced.
    pub steps: u64,
}

impl File {
    fn apply(bytes: &mut Vec<u8>, change: &Change, cut: Option<usize>) {
        match change {
            Change::Sector(offset, data) => {
                let data = &data[..cut.unwrap_or(data.len()).min(data.len())];
                if bytes.len() < offset + data.len() {
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Length(len) => bytes.resize(*len, 0),
        }
    }

    fn change(&mut self, change: Change) {
        File::apply(&mut self.now, &change, None);
        self.since.push(change);
    }

    fn write(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = (SECTOR - offset % SECTOR).min(bytes.len());
            self.change(Change::Sector(offset, bytes[..len].to_vec()));
            (offset, bytes) = (offset + len, &bytes[len..]);
        }
    }
}

impl SimulatedDisk {
    /// Whether these bytes are anywhere in a file.
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.names.values().any(|file| memchr::memmem::find(&self.files[*file].now, needle).is_some())
    }

    /// Whether another one has the same files.
    pub fn same_files(&self, other: &SimulatedDisk) -> bool {
        let files = |disk: &SimulatedDisk| {
            let named = disk.names.iter().map(|(name, file)| (name.clone(), disk.files[*file].now.clone()));
            named.collect::<BTreeMap<_, _>>()
        };
        files(self) == files(other)
    }

    /// How many files there are.
    pub fn files_len(&self) -> usize {
        self.names.len()
    }

    /// The power is cut and comes back.
    pub fn cut_power(&mut self, draw: &mut fastrand::Rng) {
        // Sometimes nothing of it was kept, sometimes all, mostly some.
        let kept = [0.0, 0.05, 0.5, 0.95, 1.0][draw.usize(..5)];
        for file in &mut self.files {
            let mut bytes = file.synced.clone();
            for change in &file.since {
                if draw.f64() < kept {
                    File::apply(&mut bytes, change, (draw.u8(..16) == 0).then(|| draw.usize(..SECTOR)));
                }
            }
            *file = File { now: bytes.clone(), synced: bytes, since: Vec::new() };
        }
        for entry in std::mem::take(&mut self.entries) {
            if draw.f64() < kept {
                match entry {
                    Entry::Link(name, file) => _ = self.synced_names.insert(name, file),
                    Entry::Unlink(name) => _ = self.synced_names.remove(&name),
                }
            }
        }
        self.names = self.synced_names.clone();
    }

    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub fn content(&mut self, name: &str) -> &mut Vec<u8> {
        let file = self.names[name];
        &mut self.files[file].now
    }

    /// Puts a file there, synced.
    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.push(File { now: bytes.clone(), synced: bytes, since: Vec::new() });
        self.names.insert(name.into(), self.files.len() - 1);
        self.synced_names = self.names.clone();
    }

    pub fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    fn file(&mut self, file: FileId) -> io::Result<&mut File> {
        let number = *self.names.get(&file.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[number])
    }
}

impl Files for SimulatedDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file)?.now.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = &self.file(file)?.now;
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        self.steps += 1;
        match step {
            Step::Create { file } => {
                let name = file.to_string();
                match self.names.get(&name) {
                    Some(&number) => self.files[number].change(Change::Length(0)),
                    None => {
                        self.files.push(File::default());
                        self.names.insert(name.clone(), self.files.len() - 1);
                        self.entries.push(Entry::Link(name, self.files.len() - 1));
                    }
                }
            }
            Step::Allocate { file, offset, length } => {
                if let Some(space) = &mut self.space {
                    *space = space.checked_sub(*length as usize).ok_or(io::ErrorKind::StorageFull)?;
                }
                let file = self.file(*file)?;
                if file.now.len() < (offset + length) as usize {
                    file.change(Change::Length((offset + length) as usize));
                }
            }
            Step::Write { file, offset, buffers } => {
                let file = self.file(*file)?;
                let mut offset = *offset as usize;
                for buffer in buffers {
                    file.write(offset, buffer);
                    offset += buffer.len();
                }
            }
            Step::SyncData { file } => {
                let file = self.file(*file)?;
                file.synced = file.now.clone();
                file.since.clear();
            }
            Step::SyncDirectory => {
                self.entries.clear();
                self.synced_names = self.names.clone();
            }
            Step::Truncate { file, length } => self.file(*file)?.change(Change::Length(*length as usize)),
            Step::PunchHole { file, offset, length } => {
                self.file(*file)?.write(*offset as usize, &vec![0; *length as usize]);
            }
            Step::Rename { from, to } => {
                let number = self.names.remove(&from.to_string()).ok_or(io::ErrorKind::NotFound)?;
                self.names.insert(to.to_string(), number);
                self.entries.push(Entry::Link(to.to_string(), number));
                self.entries.push(Entry::Unlink(from.to_string()));
            }
            Step::Remove { file } => {
                let name = file.to_string();
                if self.names.remove(&name).is_some() {
                    self.entries.push(Entry::Unlink(name));
                }
            }
        }
        Ok(())
    }
}
