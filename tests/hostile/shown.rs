//! What a peer says, as it comes into a log.

use ssh_proto::raw::auth::UserauthBanner;
use ssh_proto::raw::channel::{ChannelOpen, ChannelOpenFailure};
use ssh_proto::wire::PutSsh;
use ssh_proto::{
    ApiMisuse, AuthVerdict, ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent, Name,
    ServerEvent,
};
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Pair, Scene, hand, null_configs_with};

use crate::stage::{none_request, probe_request, serviced};

/// What clears a screen, sets a clipboard, breaks a line, turns a text around, hides a letter.
const EVIL: &str = "\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\r\n\u{9b}\u{202e}x\u{200b}\u{2066}\u{feff}";

/// Of that, what a user name may have.
const USER: &str = "\u{202e}toor\u{200b}";

#[track_caller]
fn assert_harmless(shown: &str) {
    let hidden = |c: char| {
        let format = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || format || c == '\u{feff}'
    };
    assert!(!shown.chars().any(hidden), "{}", shown.escape_debug());
}

/// Nothing of it does anything to a terminal, however it is written there. Says what was told.
#[track_caller]
fn assert_told_harmlessly(scene: &mut Scene) -> Event {
    let mut events = scene.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    let event = events.remove(0);
    assert_harmless(&format!("{event:?}"));
    assert!(format!("{event:?}").contains("\\u{202e}"), "it is in there: {event:?}");
    event
}

fn assert_name(name: &Name, expected: &str) {
    assert_eq!(name.as_str(), expected);
    assert_harmless(&name.to_string());
}

fn string(text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_string(text.as_bytes());
    data
}

#[test]
fn tm_04_no_name_of_a_user_gets_into_a_log_as_it_came() {
    let mut scene = serviced(Scene::server());
    scene.forget();
    scene.say(&probe_request(USER, 3));
    let Event::Server(ServerEvent::Probe(probe)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_name(probe.user(), USER);
    scene.as_server().reply_probe(probe, true).expect("the question is open");
    scene.say(&none_request(USER));
    let Event::Server(ServerEvent::Auth(request)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_name(request.user(), USER);
    scene.as_server().reply_auth(request, AuthVerdict::Accept).expect("the question is open");
    let Event::Server(ServerEvent::Authenticated(who)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_name(&who.user, USER);
}

#[test]
fn tm_04_no_name_of_an_open_gets_into_a_log_as_it_came() {
    let mut scene = Scene::server().authenticated();
    let mut open = |kind: &str, data: &[u8]| {
        scene.tell(&ChannelOpen { kind: kind.as_bytes(), sender: 7, window: 9, max_packet: 99, data });
        match assert_told_harmlessly(&mut scene) {
            Event::Server(ServerEvent::Open(request)) => request.kind().clone(),
            other => panic!("{other:?}"),
        }
    };
    let port = [0, 0, 0, 80];
    let fields = [string(EVIL), port.to_vec(), string(EVIL), port.to_vec()].concat();
    let ChannelKind::DirectTcpip { host, originator, .. } = open("direct-tcpip", &fields) else { panic!() };
    assert_name(&host, EVIL);
    assert_name(&originator, EVIL);
    let other = open(EVIL, b"");
    assert_name(&other.name(), EVIL);
    assert_harmless(&format!("{other:?}"));
}

#[test]
fn tm_04_no_name_of_a_request_gets_into_a_log_as_it_came() {
    let mut scene = Scene::server().authenticated();
    scene.say(&hand::global(EVIL, true));
    let Event::Server(ServerEvent::Global(request)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_name(&request.kind().name, EVIL);
    drop(request);
    scene.open_session(100);
    let pty = [string(EVIL), vec![0; 16], string("")].concat();
    for (name, data) in
        [("pty-req", pty), ("signal", string(EVIL)), ("subsystem", string(EVIL)), (EVIL, Vec::new())]
    {
        scene.say(&hand::request(0, name, false, &data));
        let event = assert_told_harmlessly(&mut scene);
        let Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) = event else { panic!() };
        match request.kind() {
            ChannelRequestKind::Pty { term: name, .. }
            | ChannelRequestKind::Subsystem(name)
            | ChannelRequestKind::Signal(name)
            | ChannelRequestKind::Other { name, .. } => assert_name(name, EVIL),
            other => panic!("{other:?}"),
        }
        assert_harmless(&request.kind().name().to_string());
    }
}

#[test]
fn tm_04_no_text_for_people_gets_into_a_log_as_it_came() {
    let mut scene = serviced(Scene::client());
    scene.forget();
    scene.tell(&UserauthBanner { message: EVIL.as_bytes(), language: b"" });
    let Event::Client(ClientEvent::Banner(text)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_harmless(&text.to_string());
    let mut scene = Scene::client().authenticated();
    let opened = scene.as_client().open_channel(&ChannelKind::Session, ChannelConfig::default());
    opened.expect("there is room");
    scene.settle();
    let description = EVIL.as_bytes();
    scene.tell(&ChannelOpenFailure { recipient: 0, code: 1, description, language: b"" });
    let Event::Client(ClientEvent::OpenFailed(_, why)) = assert_told_harmlessly(&mut scene) else { panic!() };
    assert_harmless(&why.description.to_string());
    scene.open_session(100);
    let signal = [string(EVIL), vec![0], string(EVIL), string("")].concat();
    scene.say(&hand::request(0, "exit-signal", false, &signal));
    assert_told_harmlessly(&mut scene);
    scene.say(&encoded(&ssh_proto::raw::transport::Disconnect {
        code: 2,
        description: EVIL.as_bytes(),
        language: b"",
    }));
    let event = assert_told_harmlessly(&mut scene);
    assert_harmless(&event.closed().expect("the end").to_string());
}

/// What fits a packet of a client that is not logged in, whatever is allowed besides.
#[test]
fn a_banner_is_refused_here_when_no_client_could_take_it() {
    const MOST: usize = 32 * 1024;
    let (client, server) = null_configs_with(|limits| limits.banner_bytes = 1 << 20, |_| {});
    let mut pair = Pair::new(client, server, 1);
    assert_eq!(pair.server.conn.banner(&"x".repeat(MOST + 1)), Err(ApiMisuse::BannerNotPossible));
    pair.server.conn.banner(&"x".repeat(MOST)).unwrap();
    pair.login();
    let banner = pair.client.trace.iter().find(|event| event.contains("Banner")).expect("it came");
    assert!(banner.contains(&"x".repeat(1000)), "{}", banner.len());
}
