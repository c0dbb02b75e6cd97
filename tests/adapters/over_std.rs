//! The session over `ssh-io-std`.

use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use ssh_io_std::{Channel, Client, Error, Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind, ClientConfig, CloseReason,
    ExitStatus, OpenRequest, ServerConfig,
};

use crate::crowd::waits_until;
use crate::line::{Faults, Line};
use crate::session::{COMPLAINT, DATA, Ended, STATUS, Whole, configs, own, pieces};
use crate::sweep;
use crate::tally::{PATIENCE, STD, turn};

/// Lets everybody in, runs [`program`] for whoever asks, and tells of the end.
pub(crate) struct Serves {
    pub(crate) channels: Vec<ServerChannel>,
    pub(crate) closed: Sender<CloseReason>,
}

impl Handler for Serves {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let _ = request.reply(AuthVerdict::Accept);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channels.extend(request.accept(ChannelConfig::default()));
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let at = self.channels.iter().position(|channel| channel.id() == request.channel());
        let exec = matches!(request.kind(), ChannelRequestKind::Exec(_));
        let _ = request.reply(true);
        if let Some(at) = at.filter(|_| exec) {
            let channel = self.channels.swap_remove(at);
            // An error is the connection's end, of which more is told elsewhere.
            thread::spawn(move || program(&channel));
        }
    }

    fn channel_closed(&mut self, id: ssh_proto::ChannelId) {
        self.channels.retain(|channel| channel.id() != id);
    }

    fn closed(&mut self, reason: &CloseReason) {
        let _ = self.closed.send(reason.clone());
    }
}

/// Says what comes, a complaint, and the end.
fn program(mut channel: &ServerChannel) -> Result<(), Error> {
    let mut buffer = [0; 1000];
    while let n @ 1.. = channel.read(&mut buffer)? {
        channel.write_all(&buffer[..n])?;
    }
    channel.stderr().write_all(COMPLAINT)?;
    channel.exit(STATUS)
}

/// Sends the words, and reads what comes of it.
pub(crate) fn talk(mut channel: &Channel) -> Result<Whole, Error> {
    channel.exec("program")?;
    channel.write_all(DATA).map_err(own)?;
    hear_out(channel, Vec::new())
}

/// Sends them with a renewal of keys by each side behind what has come back.
fn talk_across_rekeys(
    mut channel: &Channel,
    client: &Client,
    server: &ServerConnection,
) -> Result<Whole, Error> {
    channel.exec("program")?;
    let renewals: [&dyn Fn(); 3] = [&|| client.rekey(), &|| server.rekey(), &|| ()];
    let mut stdout = Vec::new();
    for (piece, renew) in pieces().into_iter().zip(renewals) {
        channel.write_all(piece).map_err(own)?;
        let begin = stdout.len();
        stdout.resize(begin + piece.len(), 0);
        channel.read_exact(&mut stdout[begin..]).map_err(own)?;
        renew();
    }
    hear_out(channel, stdout)
}

fn hear_out(mut channel: &Channel, mut stdout: Vec<u8>) -> Result<Whole, Error> {
    channel.finish_input()?;
    let mut stderr = Vec::new();
    channel.read_to_end(&mut stdout).map_err(own)?;
    channel.stderr().read_to_end(&mut stderr).map_err(own)?;
    Ok((stdout, stderr, channel.wait()?))
}

type Waiter = thread::JoinHandle<Result<Option<ExitStatus>, Error>>;

fn client(client: &Client, server: &ServerConnection, waiter: &mut Option<Waiter>) -> Result<Whole, Error> {
    client.auth_password("me", "x")?;
    let channel = client.open_session()?;
    let other = channel.clone();
    *waiter = Some(thread::spawn(move || other.wait()));
    talk_across_rekeys(&channel, client, server)
}

fn session(configs: &(Arc<ClientConfig>, Arc<ServerConfig>), faults: [Faults; 2]) -> Ended {
    let (line, ours, theirs) = Line::pair(faults);
    let (sender, closed) = channel();
    let handler = Serves { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(configs.1.clone(), theirs, handler).unwrap();
    let builder = Client::with_config(configs.0.clone()).host_keys(HostKeys::DangerousAcceptAny);
    let (mut waiter, mut after, mut rekeys) = (None, None, [0; 2]);
    let result = match builder.connect_over("test", 22, ours) {
        Err(error) => {
            // There is no handle to ask again: the error stands for itself.
            after = Some(match &error {
                Error::Io(error) => Error::Io(error.kind().into()),
                Error::Closed(reason) => Error::Closed(reason.clone()),
                error => panic!("{error}"),
            });
            Err(error)
        }
        Ok(connection) => {
            let result = client(&connection, &server, &mut waiter);
            if result.is_err() {
                after = connection.open_session().err();
            }
            rekeys[0] = connection.rekeys();
            connection.close();
            result
        }
    };
    let waiter = waiter.map(|waiter| waiter.join().unwrap());
    let reason = closed.recv_timeout(PATIENCE).unwrap();
    server.join(PATIENCE);
    assert!(server.is_finished());
    rekeys[1] = server.rekeys();
    drop(server);
    // Threads drop their last handles a moment behind their end.
    waits_until("the end of both ends", || Arc::strong_count(&line) == 1);
    let (carried, calls, unread) = (line.carried(), line.calls(), line.unread());
    Ended { client: result, waiter, after, rekeys, server: reason, carried, calls, unread }
}

/// Runs sessions, some at a time; a panic when one does not come back.
fn run_beside(workers: usize, sessions: Vec<[Faults; 2]>) -> Vec<Ended> {
    let (count, configs) = (sessions.len(), configs());
    let todo = Arc::new(Mutex::new(sessions.into_iter().enumerate()));
    let (sender, done) = channel();
    for _ in 0..workers {
        let (todo, configs, sender) = (Arc::clone(&todo), configs.clone(), sender.clone());
        thread::spawn(move || {
            loop {
                let next = todo.lock().unwrap().next();
                let Some((at, faults)) = next else { return };
                let _ = sender.send((at, session(&configs, faults)));
            }
        });
    }
    drop(sender);
    let mut ended: Vec<Option<Ended>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let left = || ended.iter().position(Option::is_none);
        let Ok((at, result)) = done.recv_timeout(PATIENCE) else {
            panic!("a session hangs or panicked, perhaps {:?} of {count}", left());
        };
        ended[at] = Some(result);
    }
    ended.into_iter().flatten().collect()
}

fn run(sessions: Vec<[Faults; 2]>) -> Vec<Ended> {
    run_beside(4, sessions)
}

#[test]
fn ad_04_ad_05_a_line_cut_at_every_byte() {
    let _turn = turn();
    sweep::every_cut(STD, run);
}

#[test]
fn ad_06_nuisances() {
    let _turn = turn();
    sweep::every_nuisance(STD, run);
}

#[test]
fn ad_06_failures() {
    let _turn = turn();
    // Behind a failed write each waits a while for what may still be read. Threads have no other time than that of
    // the world, and how long they wait is not for an embedder to say, so that many of them wait at once.
    sweep::every_failure(STD, |sessions| run_beside(64, sessions));
}
