//! Listens on the control socket, on the event loop.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use log::debug;

use super::answer::{Answer, Answers, ConnectionId};
use super::connection::{Connection, Interest};
use super::protocol::{Command, Id, Refusal, RefusalKind};
use super::socket_file::SocketFile;

/// Clients at once.
pub const MOST_CLIENTS: usize = 16;

/// Gets each request with where its answer goes, on the event loop: it must not wait.
pub type RequestSink = Box<dyn Fn(Command, Answer) + Send>;

/// Listens on a control socket. Dropped with the event loop, which ends all connections.
pub struct Server {
    socket: SocketFile,
    sink: RequestSink,
    answers: Arc<Answers>,
    clients: Vec<Client>,
    next: ConnectionId,
    /// Given up for a moment when there is no descriptor left for a client, to turn it away with.
    spare: Option<File>,
}

struct Client {
    connection: Connection,
    watched: Interest,
}

impl Server {
    /// Nothing is heard before it is in an event loop.
    pub fn new(socket: SocketFile, sink: RequestSink) -> std::io::Result<Server> {
        let answers = Answers::new()?;
        Ok(Server { socket, sink, answers, clients: Vec::new(), next: 0, spare: spare() })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let stream = match self.socket.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    // It would be reported as waiting for ever.
                    self.spare = None;
                    drop(self.socket.listener().accept());
                    self.spare = spare();
                }
                if error.kind() != ErrorKind::WouldBlock {
                    debug!("control socket: accept: {error}");
                }
                return;
            }
        };
        if let Err(error) = stream.set_nonblocking(true) {
            return debug!("control socket: {error}");
        }
        let id = self.next;
        self.next += 1;
        let mut connection = Connection::new(id, stream);
        if self.clients.len() >= MOST_CLIENTS {
            let what = format!("{MOST_CLIENTS} clients are connected already");
            connection.refuse(Refusal::new(RefusalKind::TooManyClients, what));
            // What the socket takes at once is all that it gets.
            return connection.write(|_, _| {});
        }
        self.clients.push(Client { connection, watched: Interest::default() });
        let fd = self.clients.last().map(|client| client.connection.fd());
        if let Some(fd) = fd
            && let Err(error) = ops.add(Events::new_raw(fd, EventSet::empty()))
        {
            debug!("control socket: {error}");
            self.clients.pop();
            return;
        }
        self.serve(self.clients.len() - 1, ops, |connection, request| connection.write(request));
    }

    /// Lets something happen to a client, and then waits for what it needs next.
    fn serve(
        &mut self,
        index: usize,
        ops: &mut EventOps<'_>,
        happens: impl FnOnce(&mut Connection, &mut dyn FnMut(Option<Id>, Command)),
    ) {
        let Server { sink, answers, clients, .. } = self;
        let Some(Client { connection, watched }) = clients.get_mut(index) else { return };
        let id = connection.id;
        let mut request = |request: Option<Id>, command| {
            sink(command, Answer::new(answers.clone(), id, request));
        };
        happens(connection, &mut request);
        connection.write(&mut request);
        let fd = connection.fd();
        if connection.is_done() {
            let _ = ops.remove(Events::empty_raw(fd));
            clients.swap_remove(index);
            return;
        }
        let interest = connection.interest();
        if interest != *watched {
            *watched = interest;
            if let Err(error) = ops.modify(Events::new_raw(fd, event_set(interest))) {
                debug!("control socket: {error}");
            }
        }
    }

    fn answer(&mut self, ops: &mut EventOps<'_>) {
        for (id, line) in self.answers.fetch() {
            // Those of clients that are gone go nowhere.
            if let Some(index) = self.clients.iter().position(|client| client.connection.id == id) {
                self.serve(index, ops, |connection, request| connection.answer(line, request));
            }
        }
    }

    fn client(&mut self, fd: RawFd, events: EventSet, ops: &mut EventOps<'_>) {
        let Some(index) = self.clients.iter().position(|client| client.connection.fd() == fd) else { return };
        self.serve(index, ops, |connection, request| {
            if events.contains(EventSet::IN) {
                connection.read(request);
            }
            if events.intersects(EventSet::ERROR | EventSet::HANG_UP) {
                connection.hang_up();
            }
        });
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn event_set(interest: Interest) -> EventSet {
    let mut set = EventSet::empty();
    set.set(EventSet::IN, interest.read);
    set.set(EventSet::OUT, interest.write);
    set
}

impl MutEventSubscriber for Server {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.socket.listener().as_raw_fd() {
            self.accept(ops);
        } else if events.fd() == self.answers.fd() {
            self.answer(ops);
        } else {
            self.client(events.fd(), events.event_set(), ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [self.socket.listener().as_raw_fd(), self.answers.fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                log::error!("control socket: {error}");
            }
        }
    }
}
