//! Clients of all kinds against a server on an event loop of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Client, ClientError};
use super::connection::{Connection, MOST_OPEN};
use super::protocol::{Command, Id, Listing, Outcome, Refusal, RefusalKind};
use super::server::MOST_CLIENTS;
use super::*;
use crate::event_loop::EventLoop;

struct Serving {
    folder: TempDir,
    requests: Receiver<(Command, Answer)>,
    // Dropped last: answers that nobody gave are given when the requests go.
    _events: EventLoop,
}

fn serve() -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let (sender, requests): (Sender<(Command, Answer)>, _) = channel();
    let sink = move |command, answer| drop(sender.send((command, answer)));
    let socket = SocketFile::make(&folder.path().join("c")).unwrap();
    let events = EventLoop::start(Arc::default()).unwrap();
    events.subscribe(Box::new(Server::new(socket, Box::new(sink)).unwrap())).unwrap();
    Serving { folder, requests, _events: events }
}

impl Serving {
    fn path(&self) -> PathBuf {
        self.folder.path().join("c")
    }

    fn stream(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        BufReader::new(stream)
    }

    fn next(&self) -> (Command, Answer) {
        self.requests.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

fn hear(stream: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

fn say(stream: &mut BufReader<UnixStream>, text: &str) {
    stream.get_mut().write_all(text.as_bytes()).unwrap();
}

fn empty() -> Result<Outcome, Refusal> {
    Ok(Outcome::List(Listing::default()))
}

#[test]
fn answers_reach_who_asked_in_any_order() {
    let serving = serve();
    let (mut first, mut second) = (serving.stream(), serving.stream());
    assert_eq!(hear(&mut first)["protocol"], 1);
    assert_eq!(hear(&mut second)["protocol"], 1);
    say(&mut first, "{\"id\":1,\"command\":\"list\"}\n\n  {\"id\":2,\"command\":\"status\"}\nnonsense\n");
    assert_eq!(hear(&mut first)["error"]["kind"], "syntax");
    let (one, two) = (serving.next(), serving.next());
    assert_eq!((&one.0, &two.0), (&Command::List {}, &Command::Status {}));
    say(&mut second, "{\"id\":\"x\",\"command\":\"list\"}\n");
    let three = serving.next();
    three.1.give(&empty());
    two.1.give(&Err(Refusal::new(RefusalKind::Busy, "no")));
    one.1.give(&empty());
    assert_eq!(hear(&mut second), json!({"id": "x", "result": {"functions": [], "ports": []}}));
    assert_eq!(hear(&mut first), json!({"id": 2, "error": {"kind": "busy", "message": "no"}}));
    assert_eq!(hear(&mut first)["id"], 1);
}

#[test]
fn a_client_that_says_no_more_still_gets_its_answers() {
    let serving = serve();
    let mut stream = serving.stream();
    say(&mut stream, "{\"command\":\"list\"}\n");
    stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let (_, answer) = serving.next();
    answer.give(&empty());
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.lines().count(), 2, "{all}");
}

#[test]
fn requests_that_nobody_answers_are_answered() {
    let serving = serve();
    let mut stream = serving.stream();
    hear(&mut stream);
    say(&mut stream, "{\"id\":5,\"command\":\"list\"}\n");
    drop(serving.next());
    assert_eq!(hear(&mut stream)["error"]["kind"], "ended");
}

#[test]
fn who_sends_too_much_waits_and_others_do_not() {
    let serving = serve();
    let mut greedy = serving.stream();
    hear(&mut greedy);
    say(&mut greedy, &"{\"command\":\"list\"}\n".repeat(MOST_OPEN + 3));
    let open: Vec<_> = (0..MOST_OPEN).map(|_| serving.next()).collect();
    // The others wait in the socket; another client does not.
    let mut other = serving.stream();
    hear(&mut other);
    say(&mut other, "{\"command\":\"status\"}\n");
    let (command, answer) = serving.next();
    assert_eq!(command, Command::Status {});
    answer.give(&empty());
    hear(&mut other);
    open.into_iter().for_each(|(_, answer)| answer.give(&empty()));
    (0..3).for_each(|_| serving.next().1.give(&empty()));
    (0..MOST_OPEN + 3).for_each(|_| assert!(hear(&mut greedy)["result"].is_object()));
}

#[test]
fn a_line_without_end_and_a_client_too_many_are_turned_away() {
    let serving = serve();
    let mut endless = serving.stream();
    hear(&mut endless);
    // The server may close before all of it is sent.
    let _ = endless.get_mut().write_all(&vec![b'x'; 70 << 10]);
    assert_eq!(hear(&mut endless)["error"]["kind"], "too-long");

    let mut clients: Vec<_> = (0..MOST_CLIENTS).map(|_| serving.stream()).collect();
    clients.iter_mut().for_each(|client| drop(hear(client)));
    let mut surplus = serving.stream();
    hear(&mut surplus);
    assert_eq!(hear(&mut surplus)["error"]["kind"], "too-many-clients");
    // Until one has gone.
    clients.clear();
    let mut again = serving.stream();
    while hear(&mut again).get("protocol").is_none() || !hear_list(&serving, &mut again) {
        again = serving.stream();
    }
}

/// Whether a client is served; one too many is not.
fn hear_list(serving: &Serving, stream: &mut BufReader<UnixStream>) -> bool {
    let _ = stream.get_mut().write_all(b"{\"command\":\"list\"}\n");
    if let Ok((_, answer)) = serving.requests.recv_timeout(Duration::from_millis(50)) {
        answer.give(&empty());
    }
    hear(stream).get("result").is_some()
}

#[test]
fn the_client_says_what_it_was_told() {
    let serving = serve();
    let path = serving.path();
    let asking = std::thread::spawn(move || {
        let mut client = Client::connect(&path).unwrap();
        let list = client.ask(&json!({"command": "list"}), Duration::ZERO).unwrap();
        let refused = client.ask(&json!({"command": "status"}), Duration::ZERO).unwrap_err();
        (list, refused)
    });
    serving.next().1.give(&empty());
    serving.next().1.give(&Err(Refusal::new(RefusalKind::Busy, "not now")));
    let (list, refused) = asking.join().unwrap();
    assert_eq!(list["functions"], json!([]));
    assert_eq!(refused.to_string(), "not now");
    drop(serving);
    let gone = Client::connect(std::path::Path::new("/no/such/socket"));
    assert!(matches!(gone, Err(ClientError::Connect { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a client sends, in whatever pieces: nothing panics, it hears lines of JSON only, and what is kept for it
    /// stays small.
    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec(piece(), 0..40)) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut connection = Connection::new(0, ours);
        let (mut open, mut heard) = (0, Vec::new());
        let mut client = &theirs;
        for piece in &pieces {
            let _ = client.write(piece);
            connection.read(|_: Option<Id>, _| open += 1);
            prop_assert!(open <= MOST_OPEN);
            if open > 0 && piece.len() % 3 == 0 {
                let mut more = 0;
                connection.answer("{}\n".to_owned(), |_, _| more += 1);
                open = open + more - 1;
            }
            connection.write(|_, _| open += 1);
            let _ = client.read_to_end(&mut heard);
        }
        let heard = String::from_utf8(heard).unwrap();
        for line in heard.lines() {
            prop_assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![
        Just("{\"command\":\"list\"}\n"),
        Just("{\"id\":1,\"command\":\"remove\",\"slots\":[\"1:0:0\"]}\n"),
        Just("{\"command\":"),
        Just("\n"),
        Just("\u{1f980}{[\"\\u0000"),
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        request.prop_map(|text| text.as_bytes().to_vec()),
        (1..5000usize).prop_map(|count| vec![b'['; count]),
        (60_000..70_000usize).prop_map(|count| vec![b'7'; count]),
    ]
}
