//! Ctrl-C.
//!
//! It is taken over whatever it did before: started in the background by a script, a process ignores it, and a run should still end well.
//! The signals of a lost terminal and of an end that is asked for keep their meaning, so `nohup` does what it is for; a run that they
//! end goes on from its checkpoint, as after any kill.

use crate::error::{Error, ErrorKind, Result};
use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// How many listen now.
static LISTENING: AtomicUsize = AtomicUsize::new(0);

/// How often it was pressed since somebody listens.
static PRESSED: AtomicUsize = AtomicUsize::new(0);

/// While one of these is there, the first Ctrl-C is noted and the second ends the process; while there is none, the first does.
pub(super) struct Interrupt(());

impl Interrupt {
    pub(super) fn listen() -> Result<Self> {
        static HANDLER: OnceLock<Result<(), String>> = OnceLock::new();
        // A process has one handler, once and for all.
        HANDLER
            .get_or_init(|| ctrlc::set_handler(pressed).map_err(|e| e.to_string()))
            .clone()
            .map_err(|e| Error::new(ErrorKind::Unsupported, "Terminal::new", format!("Ctrl-C cannot be heard: {e}")))?;
        if LISTENING.fetch_add(1, Ordering::SeqCst) == 0 {
            PRESSED.store(0, Ordering::SeqCst);
        }
        Ok(Self(()))
    }

    pub(super) fn pressed(&self) -> bool {
        PRESSED.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        LISTENING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn pressed() {
    if LISTENING.load(Ordering::SeqCst) == 0 || PRESSED.fetch_add(1, Ordering::SeqCst) > 0 {
        // As a shell says it: 128 and the number of the signal.
        std::process::exit(130);
    }
    eprintln!("\nfinishing the step and saving; once more ends at once");
}
