//! Files that are rotated, pipes that nobody reads, disks that are full.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn ok() -> Entry {
    entry(Reporter::Source, Outcome::new(Reason::Ok))
}

fn lines_of(path: &std::path::Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    text.lines().count()
}

#[test]
fn a_rotated_file_is_followed_by_itself_and_at_once_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let log = AccessLog::start(&Destination::File(at("log")), Format::Json).unwrap();
    log.write(ok());
    assert!(log.flush(LIMIT));
    std::fs::rename(at("log"), at("log.1")).unwrap();
    log.reopen();
    let began = Instant::now();
    while !at("log").exists() {
        assert!(began.elapsed() < LIMIT, "an idle log is not opened anew");
        std::thread::sleep(Duration::from_millis(5));
    }
    log.write(ok());
    assert!(log.flush(LIMIT));
    assert_eq!((lines_of(&at("log.1")), lines_of(&at("log"))), (1, 1));
    // Without being asked: by the first line after a second.
    std::fs::rename(at("log"), at("log.2")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    log.write(ok());
    assert!(log.flush(LIMIT));
    assert_eq!((lines_of(&at("log.2")), lines_of(&at("log"))), (1, 1));
    // A path that cannot be opened keeps the file there is.
    std::fs::rename(directory.path(), directory.path().with_extension("away")).unwrap();
    let away = directory.path().with_extension("away");
    log.reopen();
    log.write(ok());
    assert!(log.flush(LIMIT));
    assert_eq!(lines_of(&away.join("log")), 2);
    assert_eq!((log.written(), log.dropped()), (4, 0));
    std::fs::remove_dir_all(&away).unwrap();
}

#[test]
fn a_copied_and_truncated_file_goes_on_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = AccessLog::start(&Destination::File(path.clone()), Format::Json).unwrap();
    for _ in 0..10 {
        log.write(ok());
    }
    assert!(log.flush(LIMIT));
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    log.write(ok());
    assert!(log.flush(LIMIT));
    assert_eq!(lines_of(&path), 1);
}

#[test]
fn a_fifo_without_a_reader_is_an_error_and_not_a_wait() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let began = Instant::now();
    let error = AccessLog::start(&Destination::File(path), Format::Json).unwrap_err();
    assert!(began.elapsed() < LIMIT);
    assert!(error.to_string().contains("FIFO"), "{error}");
}

#[test]
fn a_full_pipe_costs_lines_that_the_log_itself_tells_of_and_no_connection_any_time() {
    const QUEUE: usize = 100;
    let (mut reader, writer) = io::pipe().unwrap();
    let log = AccessLog::to_output(Output::of(Box::new(writer)), Format::Json, QUEUE).unwrap();
    // A pipe takes 64 KiB, the queue a hundred lines: most of these find no room.
    let began = Instant::now();
    for _ in 0..2000 {
        log.write(ok());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let lost = log.dropped();
    assert!(lost > 1000, "{lost}");
    assert!(!log.flush(Duration::from_millis(20)), "nobody has read");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert!(log.flush(LIMIT));
    log.write(ok());
    assert!(log.flush(LIMIT));
    let written = log.written();
    assert_eq!((log.dropped(), written), (lost, 2001 - lost));
    drop(log);
    let text = reading.join().unwrap();
    let mut told = 0;
    let mut connections = 0;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        match line["dropped"].as_u64() {
            Some(dropped) => told += dropped,
            None => connections += 1,
        }
    }
    assert_eq!((told, connections), (lost, written));
}

/// Takes as many bytes as there is room for, in its turn.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(VecDeque<usize>, Vec<u8>)>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (room, written) = &mut *self.0.lock().unwrap();
        let Some(room) = room.front_mut() else {
            written.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        let taken = bytes.len().min(*room);
        *room -= taken;
        written.extend_from_slice(&bytes[..taken]);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_was_full_costs_the_lines_of_that_time_and_spoils_one() {
    let disk = Disk::default();
    disk.0.lock().unwrap().0.push_back(1000);
    let log = AccessLog::to_output(Output::of(Box::new(disk.clone())), Format::Json, 64).unwrap();
    for _ in 0..3 {
        log.write(ok());
        assert!(log.flush(LIMIT));
    }
    assert_eq!((log.written(), log.dropped()), (1, 2));
    disk.0.lock().unwrap().0.clear();
    log.write(ok());
    assert!(log.flush(LIMIT));
    assert_eq!((log.written(), log.dropped()), (2, 2));
    let bytes = disk.0.lock().unwrap().1.clone();
    let text = String::from_utf8(bytes).unwrap();
    let valid: Vec<_> = text
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .collect();
    assert_eq!(valid.iter().filter(|line| line.is_err()).count(), 1, "{text}");
    let told = valid.iter().flatten().find_map(|line| line["dropped"].as_u64());
    assert_eq!(told, Some(2), "{text}");
    assert!(text.ends_with('\n'));
}
