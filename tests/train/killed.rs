//! Runs in processes of their own that are killed, interrupted, or have no room: they go on as if nothing had been.
//!
//! A process is this test binary again, told by an environment variable what to do.

use super::model::{Net, bits, log, train, trainer, unfinished, until, unwatched};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    ops::ControlFlow,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tenfold::{
    TensorFile,
    nn::Save,
    train::{Event, Terminal},
};

const FOLDER: &str = "TENFOLD_TEST_FOLDER";
const TASK: &str = "TENFOLD_TEST_TASK";
const WIDTH: usize = 8;

/// Wide enough for a checkpoint of some hundred kilobytes.
const WIDE: usize = 64;

/// What the processes do; nothing in a plain run of the tests.
#[test]
fn process() {
    let (Some(folder), Ok(task)) = (env::var_os(FOLDER), env::var(TASK)) else { return };
    let folder = Path::new(&folder);
    let trainer = trainer().folder(folder).resume(true);
    let slow = |step: Duration| {
        let mut terminal = Terminal::new().unwrap();
        move |event: &Event<'_>| {
            if let Event::Step(taken) = event {
                say(&format!("step {}", taken.step));
                sleep(step);
            }
            terminal.watch(event)
        }
    };
    let ready = |_: &Event<'_>| {
        say("ready");
        ControlFlow::Continue(())
    };
    let trained = match task.as_str() {
        "plain" => train(&trainer, WIDTH, ready),
        "slow" => train(&trainer, WIDTH, slow(Duration::from_millis(20))),
        "stuck" => train(&trainer, WIDTH, slow(Duration::from_secs(60))),
        "wide" => train(&trainer, WIDE, ready),
        _ => unreachable!(),
    };
    match trained {
        Ok((net, report)) => {
            Save::new().write(&net, folder.join("weights.safetensors")).unwrap();
            say(&format!("report {report}"));
        }
        Err(error) => say(&format!("error {error}")),
    }
}

fn say(line: &str) {
    // The parent may have gone on already.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn command(program: &mut Command, task: &str, folder: &Path) -> Child {
    program
        .args(["killed::process", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn start(task: &str, folder: &Path) -> Child {
    command(&mut Command::new(env::current_exe().unwrap()), task, folder)
}

/// The first line that begins so. Reads no further than that.
fn wait_for(lines: &mut impl BufRead, start: &str) -> Option<String> {
    lines.lines().map_while(Result::ok).find(|line| line.starts_with(start))
}

/// Lets a process end by itself; what it said of the run.
fn finish(task: &str, folder: &Path) -> String {
    let mut child = start(task, folder);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text.lines().rfind(|line| line.starts_with("report ") || line.starts_with("error ")).unwrap().to_string()
}

/// Both folders have the same run: weights, optimiser, log, and where it is.
#[track_caller]
fn assert_same_run(a: &Path, b: &Path) {
    for file in ["weights.safetensors", "best.safetensors"] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{file}");
    }
    assert_eq!(log(a), log(b));
    let tensors = |folder: &Path| {
        let file = TensorFile::open(folder.join("last.safetensors")).unwrap();
        let one = |name: &str| match file.dtype(name).unwrap() {
            tenfold::DType::I64 => file.get::<i64, ndarray::IxDyn>(name).unwrap().to_vec().unwrap(),
            _ => {
                let numbers = file.get::<f64, ndarray::IxDyn>(name).unwrap().to_vec().unwrap();
                numbers.into_iter().map(|x| x.to_bits() as i64).collect()
            }
        };
        let all: Vec<(String, Vec<i64>)> = file.names().map(|name| (name.to_string(), one(name))).collect();
        all
    };
    assert_eq!(tensors(a), tensors(b));
}

#[test]
fn killed_at_a_hundred_moments_it_is_the_run_that_was_never_killed() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    assert!(finish("plain", &whole).starts_with("report finished after 40 steps"));
    assert_eq!(log(&whole).iter().filter(|line| line["event"] == "step").count(), 40);

    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut inside, mut runs) = (0, 0, 0);
    while kills < 100 {
        runs += 1;
        let folder = place.path().join(format!("run-{runs}"));
        loop {
            if kills >= 100 {
                finish("plain", &folder);
                break;
            }
            let mut child = start("plain", &folder);
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            // Now and then while it starts, else at some moment of its steps.
            if rng.random_range(0..10) > 0 {
                wait_for(&mut lines, "ready");
            }
            sleep(Duration::from_micros(rng.random_range(0..80_000)));
            // No error where it has ended by itself.
            let _ = child.kill();
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "killed, not failed");
            kills += 1;
            inside += unfinished(&folder);
        }
        assert_same_run(&whole, &folder);
        assert_eq!(unfinished(&folder), 0);
    }
    println!("{kills} kills in {runs} runs, {inside} of them while saving");
    assert!(inside > 0, "a checkpoint is written after each step, so some kills fall inside");
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_step_and_saves() {
    let place = tempfile::tempdir().unwrap();
    let (whole, broken) = (place.path().join("whole"), place.path().join("broken"));
    finish("plain", &whole);

    let mut child = start("slow", &broken);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, "step 4").unwrap();
    interrupt(&child);
    let report = wait_for(&mut lines, "report ").unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(report.starts_with("report interrupted after "), "{report}");
    assert!(said.contains("finishing the step and saving; once more ends at once"), "{said}");
    assert!(said.contains("last.safetensors holds everything up to step "), "{said}");
    assert!(said.contains("run the same again, with resume, to go on from there"), "{said}");
    assert!(broken.join("curves.svg").is_file());
    assert!(log(&broken).len() < log(&whole).len());

    assert!(finish("plain", &broken).starts_with("report finished after 40 steps"));
    assert_same_run(&whole, &broken);
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_at_once_and_leaves_the_checkpoint() {
    let place = tempfile::tempdir().unwrap();
    let (whole, broken) = (place.path().join("whole"), place.path().join("broken"));
    finish("plain", &whole);
    train(&trainer().folder(&broken), WIDTH, until(3)).unwrap();
    let before = fs::read(broken.join("last.safetensors")).unwrap();

    let mut child = start("stuck", &broken);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, "step 4").unwrap();
    let start = Instant::now();
    interrupt(&child);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut said, "finishing the step").unwrap();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(30), "it did not wait for the step");
    assert!(fs::read(broken.join("last.safetensors")).unwrap() == before);

    finish("plain", &broken);
    assert_same_run(&whole, &broken);
}

/// A limit on the size of files stands for a disk that is full: writing fails in the middle of the file, for root too.
#[cfg(unix)]
#[test]
fn without_room_the_old_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, _) = train(&trainer(), WIDE, unwatched).unwrap();
    train(&trainer().folder(folder.path()), WIDE, until(3)).unwrap();
    let last = folder.path().join("last.safetensors");
    let before = fs::read(&last).unwrap();
    assert!(before.len() > 80_000);

    // 64 blocks of 512 or 1024 bytes. The signal that ends a process beyond the limit is ignored: the write fails instead.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' 25; ulimit -f 64; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    let mut child = command(&mut shell, "wide", folder.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let error = wait_for(&mut lines, "error ").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(error.starts_with("error Trainer: checkpoint after step 4: TensorFile::save: "), "{error}");
    assert!(error.contains("File too large") && error.ends_with(&format!("{}, of step 3", last.display())), "{error}");
    assert!(fs::read(&last).unwrap() == before);
    assert_eq!(unfinished(folder.path()), 0);

    let (net, _) = train(&trainer().folder(folder.path()).resume(true), WIDE, unwatched).unwrap();
    assert!(bits(&net) == bits(&whole));
}

/// What the tests above rely on: a model that has not moved is not what they compare.
#[test]
fn the_run_trains_everything() {
    let (net, report) = train(&trainer(), WIDTH, unwatched).unwrap();
    let (new, old) = (bits(&net), bits(&Net::new(WIDTH, 1)));
    let same = new.iter().zip(&old).filter(|(a, b)| a == b).count();
    // The frozen layer alone.
    assert_eq!(same, 4 * WIDTH + WIDTH);
    assert!(report.evaluation.unwrap().scores.get("accuracy").unwrap() > 0.6);
}
