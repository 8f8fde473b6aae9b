//! The log of a run: a line of JSON for each step and each evaluation.

use super::record::Record;
use crate::{
    error::{ErrorKind, Result},
    tensor::Origin,
};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The log while the run writes it. It is locked: two runs in one folder would spoil each other's files.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    /// The bytes written; what is behind them is a line that was written in part.
    len: u64,
}

impl Log {
    /// Opens or makes the log, and locks it until it is dropped or the process ends, however that may be.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let origin = Origin::file("Trainer", &path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| origin.io(e))?;
        // Some file systems have no locks; the run goes on without one.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let message = "another run is writing here; wait for its end, or name another folder";
            return Err(origin.error(ErrorKind::Io, message));
        }
        let len = file.metadata().map_err(|e| origin.io(e))?.len();
        Ok(Self { file, path, len })
    }

    /// Cuts off what was written after a checkpoint that was made when the log had `len` bytes, and goes on from there.
    ///
    /// A log that is shorter, because somebody cut or removed it, goes on behind its last whole line.
    pub(super) fn truncate(&mut self, len: u64) -> Result<()> {
        let origin = Origin::file("Trainer", &self.path);
        let mut kept = len.min(self.len);
        if kept < len {
            let mut bytes = Vec::new();
            self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes)).map_err(|e| origin.io(e))?;
            kept = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at as u64 + 1);
        }
        self.file.set_len(kept).and_then(|()| self.file.seek(SeekFrom::Start(kept))).map_err(|e| origin.io(e))?;
        self.len = kept;
        Ok(())
    }

    /// Adds a line, in one write.
    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        let origin = Origin::file("Trainer", &self.path);
        let mut line = serde_json::to_vec(record).map_err(|e| origin.format(format!("a line of the log: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| origin.io(e))?;
        self.len += line.len() as u64;
        Ok(())
    }

    /// The bytes written, which lie on the disk when this returns: a checkpoint that names them may be written.
    pub(super) fn synced(&self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Origin::file("Trainer", &self.path).io(e))?;
        Ok(self.len)
    }
}

impl Drop for Log {
    /// Unlocks by name. Closing alone does so only once no copy of the descriptor is open, and a child that another thread starts at this
    /// moment has one until it executes its program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Reads the log of a run, `log.jsonl` in its folder. A last line that is not whole, because the run is writing it or was killed in it,
/// is left out.
///
/// ```
/// use tenfold::train::{Record, read_log};
///
/// let path = std::env::temp_dir().join("tenfold-log.jsonl");
/// let line = r#"{"event":"evaluation","step":40,"epoch":2,"scores":{"accuracy":0.9},"best":true,"seconds":1.5}"#;
/// std::fs::write(&path, format!("{line}\n{{\"event\":\"st")).unwrap();
/// let [Record::Evaluation(evaluation)] = &read_log(&path)?[..] else { panic!("one evaluation") };
/// assert_eq!(evaluation.scores.get("accuracy"), Some(0.9));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Io`] where it cannot be read, [`ErrorKind::Format`] with the number of a line that is no record.
pub fn read_log(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let origin = Origin::file("read_log", path.as_ref());
    let mut lines = BufReader::new(File::open(path.as_ref()).map_err(|e| origin.io(e))?);
    let mut records = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).map_err(|e| origin.io(e))?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let record = serde_json::from_slice(&line)
            .map_err(|e| origin.format(format!("line {number} is no record of a run: {e}")).with_source(e))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Evaluation, Scores};
    use std::fs;

    fn record(step: u64) -> Record {
        Record::Evaluation(Evaluation { step, epoch: 1, scores: Scores::new(), best: false, seconds: 0.0 })
    }

    #[test]
    fn lines_after_a_checkpoint_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(path.clone()).unwrap();
        let mut lens = vec![0];
        for step in 1..=3 {
            log.add(&record(step)).unwrap();
            lens.push(log.synced().unwrap());
        }
        assert!(Log::open(path.clone()).is_err_and(|e| e.message().contains("another run")));
        let inherited = log.file.try_clone().unwrap();
        drop(log);
        drop(Log::open(path.clone()).unwrap());
        drop(inherited);
        fs::write(&path, [fs::read(&path).unwrap(), b"{\"event\"".to_vec()].concat()).unwrap();
        assert_eq!(read_log(&path).unwrap(), [record(1), record(2), record(3)]);
        // To the second line; to a length that it does not have, which leaves whole lines.
        for (len, kept) in [(lens[2], vec![record(1), record(2)]), (lens[3], vec![record(1), record(2)]), (0, vec![])] {
            let mut log = Log::open(path.clone()).unwrap();
            log.truncate(len).unwrap();
            assert_eq!(read_log(&path).unwrap(), kept);
            log.add(&record(9)).unwrap();
            assert_eq!(read_log(&path).unwrap(), [kept, vec![record(9)]].concat());
            log.truncate(lens[2]).unwrap();
        }
        fs::write(&path, "{}\n").unwrap();
        assert!(read_log(&path).unwrap_err().to_string().contains("line 1 is no record of a run"));
    }
}
