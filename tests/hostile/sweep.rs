//! Damaged packets under the right keys: every byte of every packet of a session flipped, every prefix, every
//! four bytes set to the largest number.

use ssh_proto::raw::{State, number};
use ssh_proto::{MemoryUsage, Side};
use ssh_tests::{Scene, either, hand};

/// One step of the recorded session.
#[derive(Clone, Copy)]
enum Step {
    /// The peer's KEXINIT.
    KexInit,
    /// Its share.
    Method,
    /// Its NEWKEYS.
    NewKeys,
    /// A message of its own making.
    Say(fn(&Scene) -> Vec<u8>),
    /// The embedder does something.
    Act(fn(&mut Scene)),
}

/// A damage to a payload.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

fn service(side: Side) -> Vec<u8> {
    let number = if side == Side::Client { number::SERVICE_ACCEPT } else { number::SERVICE_REQUEST };
    [&[number][..], b"\0\0\0\x0cssh-userauth"].concat()
}

fn extensions() -> Vec<u8> {
    let mut payload = Vec::new();
    let pairs = [("server-sig-algs", ssh_tests::null::NAME), ("ping@openssh.com", "0")];
    ssh_proto::raw::transport::ExtInfo::encode_pairs(&pairs, &mut payload);
    payload
}

/// Handshake, login, a session with requests and data, new keys, the end.
fn session(side: Side) -> Vec<Step> {
    use Step::{Act, KexInit, Method, NewKeys, Say};
    let mut steps = vec![KexInit, Method];
    if side == Side::Client {
        steps.push(Act(Scene::accept_host_key));
    }
    steps.extend([NewKeys, Say(|_| extensions()), Say(|scene| service(scene.side()))]);
    match side {
        Side::Client => steps.extend([
            Act(|scene| {
                let probe = ssh_proto::Credential::PublicKey { key: ssh_tests::null_key(3), probe: true };
                scene.as_client().authenticate("user", probe).expect("idle");
            }),
            Say(|_| [&[number::USERAUTH_BANNER][..], b"\0\0\0\x05hello\0\0\0\0"].concat()),
            Say(|_| {
                let key = ssh_tests::null::public_key(3);
                let algorithm = ssh_tests::null::NAME.as_bytes();
                hand::encode(&ssh_proto::raw::auth::UserauthPkOk { algorithm, key: key.as_blob() })
            }),
            Say(|_| [&[number::USERAUTH_FAILURE][..], b"\0\0\0\x08password\x01"].concat()),
            Act(|scene| scene.as_client().authenticate("user", ssh_proto::Credential::None).expect("idle")),
            Say(|_| hand::bare(number::USERAUTH_SUCCESS)),
            Act(|scene| {
                let kind = ssh_proto::ChannelKind::Session;
                let config = ssh_proto::ChannelConfig::default();
                let conn = scene.as_client();
                let id = conn.open_channel(&kind, config).expect("there is room");
                let exec = ssh_proto::ChannelRequestKind::exec("true");
                conn.channel(id).expect("known").request(&exec, true).expect("there is room");
            }),
            Say(|_| hand::confirmation(0, 7, 1 << 20, 32768)),
            Say(|_| [&[number::CHANNEL_SUCCESS][..], &[0; 4]].concat()),
            Say(|_| hand::exit_signal(0)),
        ]),
        Side::Server => steps.extend([
            Say(|scene| crate::stage::signed_request(&scene.puppet.session_id, "user", (3, 3))),
            Act(|scene| scene.answer_auth(ssh_proto::AuthVerdict::Accept)),
            Say(|_| hand::open(7, 1 << 20, 32768)),
            Act(|scene| {
                let request = scene.take(|event| match event {
                    ssh_tests::scene::Event::Server(ssh_proto::ServerEvent::Open(request)) => Ok(request),
                    event => Err(event),
                });
                let config = ssh_proto::ChannelConfig::default();
                scene.as_server().accept_channel(request, config).expect("there is room");
            }),
            Say(|_| hand::request(0, "env", false, b"\0\0\0\x04LANG\0\0\0\x01C")),
            Say(|_| hand::request(0, "exec", true, b"\0\0\0\x04true")),
        ]),
    }
    steps.extend([
        Say(|_| hand::data(0, b"some data")),
        Say(|_| hand::extended(0, 1, b"more data")),
        Say(|_| hand::adjust(0, 4096)),
        Say(|_| hand::global("keepalive@openssh.com", true)),
        Say(|_| hand::ping(8)),
        Say(|_| hand::ignore(8)),
        Say(|_| hand::debug()),
        KexInit,
        Method,
        NewKeys,
        Say(|_| hand::eof(0)),
        Say(|_| hand::close(0)),
        Say(|_| hand::disconnect(11, b"bye")),
    ]);
    steps
}

/// What the connection may hold at the very most in such a session.
fn assert_bounded(held: MemoryUsage, context: &str) {
    let queues = held.output + held.outbox + held.owed + held.events + held.parked;
    assert!(queues <= 64 * 1024, "{context}: {held:?}");
    assert!(held.granted <= 24 << 20 && held.channels <= 32, "{context}: {held:?}");
}

/// Replays the session with step `damaged` changed by `damage`; gives how far it came and the payload as it
/// was before.
fn replay(side: Side, damaged: usize, damage: Damage<'_>, context: &str) -> Vec<u8> {
    let mut scene = Scene::of(side);
    scene.hello();
    let mut original = Vec::new();
    for (at, step) in session(side).into_iter().enumerate() {
        // Behind the damage the peer goes on as if nothing was; it cannot read the answers any more.
        scene.puppet.deaf |= at >= damaged;
        let mut payload = match step {
            Step::Act(_) if at > damaged => break,
            Step::Act(act) => {
                act(&mut scene);
                scene.settle();
                continue;
            }
            Step::Say(make) => make(&scene),
            Step::KexInit => {
                scene.puppet.our_init = scene.puppet.offer().payload();
                scene.puppet.our_init.clone()
            }
            Step::Method | Step::NewKeys if at > damaged => break,
            Step::Method if side == Side::Client => scene.puppet.reply(),
            Step::Method => scene.puppet.init(),
            Step::NewKeys if at < damaged => {
                scene.new_keys();
                continue;
            }
            Step::NewKeys => hand::bare(number::NEWKEYS),
        };
        if at == damaged {
            original.clone_from(&payload);
            damage(&mut payload);
        }
        scene.say(&payload);
        assert_bounded(scene.memory(), context);
        if scene.is_over() {
            break;
        }
    }
    let ends = scene.events.iter().filter(|event| event.closed().is_some()).count();
    assert!(ends <= 1, "{context}");
    assert_eq!(ends == 1, scene.state() == State::Closing, "{context}");
    assert_eq!(ends == 1, either!(&scene.subject, conn => conn.is_closed()), "{context}");
    original
}

/// Damages every packet of the session in every way, and says how often that was.
fn sweep(side: Side) -> usize {
    let mut damages = 0;
    for at in 0..session(side).len() {
        if matches!(session(side)[at], Step::Act(_)) {
            continue;
        }
        let payload = replay(side, at, &|_| {}, "undamaged");
        let mut damage = |what: &str, position: usize, damage: Damage<'_>| {
            damages += 1;
            replay(side, at, damage, &format!("{side:?}, step {at}, {what} at {position}"));
        };
        for position in 0..payload.len() {
            for bits in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                damage("flip", position, &|payload| payload[position] ^= bits);
            }
            damage("cut", position, &|payload| payload.truncate(position));
        }
        for position in 0..payload.len().saturating_sub(3) {
            for word in [0u32, 0xff, 0x7fff_ffff, u32::MAX] {
                let word = word.to_be_bytes();
                damage("word", position, &|payload| payload[position..position + 4].copy_from_slice(&word));
            }
        }
        damage("longer", payload.len(), &|payload| payload.resize(payload.len() + 1000, 0));
    }
    damages
}

#[test]
fn pk_08_no_damaged_packet_of_a_server_hurts_a_client() {
    assert_eq!(sweep(Side::Client), 18_397);
}

#[test]
fn pk_08_no_damaged_packet_of_a_client_hurts_a_server() {
    assert_eq!(sweep(Side::Server), 15_972);
}

#[test]
fn the_session_that_is_damaged_is_a_good_one() {
    for side in [Side::Client, Side::Server] {
        let steps = session(side).len();
        let mut scene = Scene::of(side);
        scene.hello();
        for step in session(side) {
            assert!(!scene.is_over(), "{side:?}: {:?}", scene.events);
            match step {
                Step::KexInit => scene.kexinit(|_| {}),
                Step::Method => scene.method(),
                Step::NewKeys => scene.new_keys(),
                Step::Say(make) => {
                    let payload = make(&scene);
                    scene.say(&payload);
                }
                Step::Act(act) => {
                    act(&mut scene);
                    scene.settle();
                }
            }
        }
        let reason = scene.closed();
        assert!(matches!(reason, ssh_proto::CloseReason::PeerDisconnected { .. }), "{steps}: {reason:?}");
    }
}
