//! Models by their names on a hub, downloaded from one that the test plays itself: `cargo test --features hub --test hub`.
//!
//! Where the hub is and where downloads are kept is said by the environment, which belongs to a process: each case asks a process of its own.
#![cfg(feature = "hub")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};
use tenfold::hub;

/// Nothing listens here.
const NOBODY: &str = "http://127.0.0.1:1";

/// A hub of one model, `owner/model`, for as many requests as there are in a download of it; its address.
fn hub_of(files: &'static [(&'static str, &'static str)], requests: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || (0..requests).for_each(|_| answer(&mut listener.accept().unwrap().0, files)));
    address
}

fn answer(stream: &mut TcpStream, files: &[(&str, &str)]) {
    let head: Vec<String> = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map(|line| line.unwrap().to_ascii_lowercase())
        .take_while(|line| !line.is_empty())
        .collect();
    let path = head[0].split(' ').nth(1).unwrap();
    let (body, more) = match path.strip_prefix("/owner/model/resolve/main/") {
        None => {
            assert_eq!(path, "/api/models/owner/model/revision/main");
            let siblings: Vec<_> = files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
            (serde_json::json!({ "siblings": siblings, "sha": "abc" }).to_string(), String::new())
        }
        Some(name) => {
            let text = files.iter().find(|file| file.0 == name).unwrap().1;
            let part = if head.contains(&"range: bytes=0-0".to_string()) { &text[..1] } else { text };
            let range = format!("bytes 0-{}/{}", part.len() - 1, text.len());
            (part.to_string(), format!("content-range: {range}\r\netag: {name}\r\nx-repo-commit: abc\r\n"))
        }
    };
    let status = if more.is_empty() { "200 OK" } else { "206 Partial Content" };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n{body}").unwrap();
}

/// What `locate` says of `owner/model` in a process with downloads in `home` and a hub at `endpoint`.
fn locate(home: &Path, endpoint: &str) -> Result<PathBuf, String> {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "asked_in_a_process_of_its_own", "--nocapture"])
        .envs([("HF_HOME", home.as_os_str()), ("HF_ENDPOINT", endpoint.as_ref())])
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let line = |what: &str| said.lines().find_map(|line| line.strip_prefix(what)).map(str::to_string);
    match line("found ") {
        Some(path) => Ok(path.into()),
        None => Err(line("error ").unwrap_or_else(|| panic!("{said}"))),
    }
}

#[test]
#[ignore = "the other cases start it"]
fn asked_in_a_process_of_its_own() {
    match hub::locate("owner/model", &hub::IMAGE_MODEL) {
        Ok(path) => println!("\nfound {}", path.display()),
        Err(error) => println!("\nerror {:?} {}", error.kind(), error.message()),
    }
}

#[test]
fn files_are_downloaded_once() {
    let home = tempfile::tempdir().unwrap();
    // One request for the list, two for each file.
    let files = &[("config.json", "{\"a\": 1}"), ("README.md", "no"), ("model.safetensors", "weights")];
    let folder = locate(home.path(), &hub_of(files, 5)).unwrap();
    assert!(folder.starts_with(home.path()), "{}", folder.display());
    assert_eq!(std::fs::read_to_string(folder.join("config.json")).unwrap(), "{\"a\": 1}");
    assert_eq!(std::fs::read_to_string(folder.join("model.safetensors")).unwrap(), "weights");
    assert!(!folder.join("README.md").exists());
    assert_eq!(locate(home.path(), NOBODY).unwrap(), folder);
}

#[test]
fn weights_in_several_files() {
    let home = tempfile::tempdir().unwrap();
    let files = &[("model.safetensors.index.json", "{}"), ("model-00001-of-00001.safetensors", "weights")];
    let folder = locate(home.path(), &hub_of(files, 5)).unwrap();
    assert!(folder.join("model-00001-of-00001.safetensors").exists());
    assert_eq!(locate(home.path(), NOBODY).unwrap(), folder);
}

#[test]
fn what_cannot_be_had_is_an_error_that_helps() {
    let home = tempfile::tempdir().unwrap();
    let error = locate(home.path(), NOBODY).unwrap_err();
    assert!(error.starts_with("Io "), "{error}");
    assert!(error.contains("put model.safetensors, config.json of https://"), "{error}");
    let error = locate(home.path(), &hub_of(&[("pytorch_model.bin", "x")], 1)).unwrap_err();
    assert_eq!(error, "Value owner/model has no model.safetensors; it has pytorch_model.bin");
}
