use std::io::{PipeReader, Read};

use super::*;

fn pipe() -> (PipeReader, StartPipe) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, StartPipe::new(File::from(std::os::fd::OwnedFd::from(writer))))
}

fn warn(pipe: &StartPipe, text: &str) {
    pipe.note(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
}

/// What is said until the pipe is closed.
fn heard(mut reader: PipeReader) -> Vec<Message> {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line was begun only");
    text.lines().map(Message::parse).collect()
}

fn note(level: Level, text: &str) -> Message {
    Message::Note(level, text.to_owned())
}

#[test]
fn lines_are_messages() {
    for (line, message) in [
        ("running", Message::Running),
        ("failed slot 0:8:0: no such function", Message::Failed("slot 0:8:0: no such function".to_owned())),
        ("failed running", Message::Failed("running".to_owned())),
        ("failed ", Message::Failed(String::new())),
        ("warn a b", note(Level::Warn, "a b")),
        ("info opening 2 functions (1 s so far)", note(Level::Info, "opening 2 functions (1 s so far)")),
        ("error running", note(Level::Error, "running")),
    ] {
        assert_eq!((Message::parse(line), message.to_string()), (message, line.to_owned()));
    }
    for line in ["running away", "what is this", "", "warning: x"] {
        assert_eq!(Message::parse(line), Message::Failed(line.to_owned()));
    }
}

#[test]
fn warnings_and_progress_are_said_until_the_guest_runs() {
    let (reader, pipe) = pipe();
    warn(&pipe, "one\ntwo");
    for (level, target) in [(Level::Info, "vmm"), (Level::Info, progress::TARGET), (Level::Debug, "vmm")] {
        pipe.note(&Record::builder().level(level).target(target).args(format_args!("{target}")).build());
    }
    pipe.say_running().unwrap();
    warn(&pipe, "later");
    pipe.say_failed(&"later");
    let expected =
        [note(Level::Warn, "one"), note(Level::Warn, "two"), note(Level::Info, "progress"), Message::Running];
    assert_eq!(heard(reader), expected);
}

#[test]
fn of_many_warnings_the_first_are_said_and_the_end_is_not_lost() {
    let (reader, pipe) = pipe();
    let text = "x".repeat(99);
    (0..10_000).for_each(|_| warn(&pipe, &text));
    pipe.say_failed(&"why\nnot");
    let heard = heard(reader);
    let (notes, end) = heard.split_at(heard.len() - 2);
    assert_eq!(end, [Message::Failed("why".to_owned()), Message::Failed("not".to_owned())]);
    assert_eq!((notes.len(), notes.last()), (MOST_NOTED / 99 + 1, Some(&note(Level::Warn, MORE))));
}

#[test]
fn who_reads_nothing_keeps_nobody_waiting() {
    let (mut reader, pipe) = pipe();
    let mut full = pipe.0.lock().pipe.as_ref().unwrap().try_clone().unwrap();
    let mut filled = 0;
    while takes_more(&full).unwrap() {
        filled += full.write(&[b'\n'; PIECE]).unwrap();
    }
    warn(&pipe, "lost");
    // The reader is there, though it reads nothing yet.
    pipe.say_running().unwrap();
    drop(full);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), filled);
}

#[test]
fn a_line_that_finds_no_room_for_its_end_is_the_last() {
    let (reader, pipe) = pipe();
    let mut full = pipe.0.lock().pipe.as_ref().unwrap().try_clone().unwrap();
    pipe.say_failed(&"y".repeat(1 << 20));
    assert!(pipe.0.lock().pipe.is_none());
    assert!(!takes_more(&full).unwrap());
    drop(reader);
    assert_eq!(full.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_message_may_be_longer_than_a_piece() {
    let (reader, pipe) = pipe();
    let long = "z".repeat(3 * PIECE);
    pipe.say_failed(&long);
    assert_eq!(heard(reader), [Message::Failed(long)]);
}

#[test]
fn who_is_gone_is_noticed_when_the_guest_is_to_run() {
    let (reader, pipe) = pipe();
    drop(reader);
    warn(&pipe, "to nobody");
    assert_eq!(pipe.say_running().unwrap_err().kind(), ErrorKind::BrokenPipe);
}
