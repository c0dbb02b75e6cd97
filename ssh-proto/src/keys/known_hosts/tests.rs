use proptest::prelude::*;

use super::*;
use crate::keys::{MAX_LINE, MAX_LINES, PublicKeyLineError, parse_public_key_line};

const PLAIN: &[u8] = include_bytes!("../testdata/known_hosts");
const HASHED: &[u8] = include_bytes!("../testdata/known_hosts_hashed");

fn key(line: &str) -> PublicKey {
    parse_public_key_line(line.as_bytes()).unwrap().0
}

fn ed25519() -> PublicKey {
    key(include_str!("../testdata/ed25519.pub"))
}

fn other_ed25519() -> PublicKey {
    key(include_str!("../testdata/ed25519_aes256_ctr.pub"))
}

fn ecdsa() -> PublicKey {
    key(include_str!("../testdata/ecdsa256.pub"))
}

fn rsa() -> PublicKey {
    key(include_str!("../testdata/rsa2048.pub"))
}

/// Parses lines in which `ED`, `EC` and `RSA` stand for the keys.
fn hosts(text: &str) -> KnownHosts {
    let text = text
        .replace("ED2", &other_ed25519().to_line())
        .replace("ED", &ed25519().to_line())
        .replace("EC", &ecdsa().to_line())
        .replace("RSA", &rsa().to_line());
    KnownHosts::parse(text.as_bytes())
}

fn is_known(patterns: &str, host: &str, port: u16) -> bool {
    hosts(&format!("{patterns} ED")).check(host, port, &ed25519()) == HostStatus::Known
}

#[test]
fn files_of_ssh_keygen_are_understood_plain_and_hashed() {
    for file in [PLAIN, HASHED] {
        let file = KnownHosts::parse(file);
        assert_eq!(file.skipped(), []);
        for (host, port, known) in [
            ("example.com", 22, ed25519()),
            ("EXAMPLE.com", 22, ed25519()),
            ("example.com", 2222, ecdsa()),
            ("::1", 22, rsa()),
            ("127.0.0.1", 0, rsa()),
        ] {
            assert_eq!(file.check(host, port, &known), HostStatus::Known, "{host} {port}");
            assert_eq!(file.key_types(host, port), [known.key_type()]);
        }
        for (host, port) in [("example.com", 2223), ("example.co", 22), ("::1", 2222)] {
            assert_eq!(file.check(host, port, &ed25519()), HostStatus::Unknown, "{host} {port}");
            assert!(file.key_types(host, port).is_empty());
        }
    }
}

#[test]
fn another_key_of_the_same_type_is_a_change_and_tells_the_line() {
    let file = hosts("a ED\n\na RSA\nb EC\n");
    assert_eq!(
        file.check("a", 22, &other_ed25519()),
        HostStatus::Changed { known: [RecordedKey { line: 1, key: ed25519() }].into() }
    );
    assert_eq!(file.check("a", 22, &ecdsa()), HostStatus::Unknown);
    assert_eq!(file.key_types("a", 22), ["ssh-ed25519", "ssh-rsa"]);
    // One of several keys of a type is enough.
    let file = hosts("a ED\na ED2");
    assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Known);
    assert_eq!(file.key_types("a", 22), ["ssh-ed25519"]);
}

#[test]
fn patterns_are_those_of_ssh_config() {
    for (patterns, host, port, known) in [
        ("*", "a", 22, true),
        ("*", "a", 2222, true),
        ("*.example.com", "a.example.com", 22, true),
        ("*.example.com", "a.b.example.com", 22, true),
        ("*.example.com", "example.com", 22, false),
        ("*.example.com", "a.example.com", 2222, false),
        ("[*.example.com]:2222", "a.example.com", 2222, true),
        ("[*.example.com]:*", "a.example.com", 2223, true),
        ("h?st", "host", 22, true),
        ("h?st", "hst", 22, false),
        ("a,b", "b", 22, true),
        ("a,b", "a,b", 22, false),
        ("a,b", "c", 22, false),
        ("*,!b", "a", 22, true),
        ("*,!b", "b", 22, false),
        ("!b,*", "b", 22, false),
        ("!*.example.com,*", "x.example.com", 22, false),
        ("!b", "a", 22, false),
        ("Host", "hOST", 22, true),
        ("[host]:22", "host", 22, false),
        ("[host]:2222", "host", 2222, true),
        ("[host]:2222", "host", 22, false),
        ("host", "host", 2222, false),
        ("a*b*c", "axxbyyc", 22, true),
        ("a*b*c", "axxbyy", 22, false),
        ("**a", "a", 22, true),
        ("a?*", "a", 22, false),
        ("", "", 22, false),
        ("a,,b", "b", 22, true),
    ] {
        assert_eq!(is_known(patterns, host, port), known, "{patterns} {host} {port}");
    }
}

#[test]
fn a_pattern_of_stars_takes_no_time() {
    let patterns = "*a".repeat(512);
    assert!(!is_known(&patterns, &"a".repeat(500), 22));
    assert!(is_known(&patterns, &"a".repeat(512), 22));
    // Too long to match, and what is too long to negate must not match either.
    assert!(!is_known(&format!("!{},*", "a".repeat(MAX_PATTERN + 1)), "a", 22));
}

#[test]
fn a_revocation_whose_hosts_can_never_match_is_listed() {
    let long = "b".repeat(MAX_PATTERN + 1);
    for patterns in [&format!("a,{long}")[..], &format!("a,!{long}"), &long, "!a", "!*,!b", ",", "!", ",,!a"]
    {
        let file = hosts(&format!("a ED\n@revoked {patterns} ED"));
        let expected = SkippedLine { line: 2, reason: SkipReason::BadHosts };
        assert_eq!(file.skipped(), [expected], "{patterns}");
    }
    let longest = "b".repeat(MAX_PATTERN);
    let file = hosts(&format!("a ED\n@revoked !{longest},{longest},a ED"));
    assert_eq!((file.skipped(), file.check("a", 22, &ed25519())), (&[][..], HostStatus::Revoked));
}

#[test]
fn a_revocation_of_a_key_that_is_not_whole_is_listed() {
    let malformed = SkipReason::BadKey(PublicKeyLineError::BadKey(KeyError::Malformed));
    for key in [ed25519(), ecdsa(), rsa()] {
        let blob = key.as_blob();
        for end in [4 + key.key_type().len(), blob.len() - 20, blob.len() - 1] {
            let cut = PublicKey::from_blob(&blob[..end]).unwrap();
            let file = KnownHosts::parse(format!("@revoked * {}", cut.to_line()).as_bytes());
            let expected = SkippedLine { line: 1, reason: malformed };
            assert_eq!(file.skipped(), [expected], "{} {end}", key.key_type());
        }
        let file = KnownHosts::parse(format!("@revoked * {}", key.to_line()).as_bytes());
        assert_eq!(file.check("a", 22, &key), HostStatus::Revoked);
    }
}

#[test]
fn the_longest_name_is_known_again_by_its_line() {
    let host = "a".repeat(MAX_HOST);
    for port in [22, 65535] {
        let line = KnownHosts::line(&host, port, &ed25519(), LineFormat::Plain).unwrap();
        let file = KnownHosts::parse(line.as_bytes());
        assert_eq!(file.check(&host, port, &ed25519()), HostStatus::Known, "{port}");
    }
}

#[test]
fn a_name_with_brackets_is_no_other_hosts_name() {
    let file = hosts("[evil]:2222 ED\n* EC");
    for host in ["[evil]:2222", "[evil]", "evil]", "[evil"] {
        for key in [ed25519(), ecdsa()] {
            assert_eq!(file.check(host, 22, &key), HostStatus::Unknown, "{host}");
        }
        assert!(file.key_types(host, 22).is_empty(), "{host}");
    }
    assert_eq!(file.check("evil", 2222, &ed25519()), HostStatus::Known);
}

#[test]
fn files_are_joined_by_a_line_end_and_may_each_begin_with_a_byte_order_mark() {
    let parts = ["\u{feff}a ED a comment", "\u{feff}@revoked * ED"];
    let file = hosts(&parts.join("\n"));
    assert_eq!((file.skipped(), file.check("a", 22, &ed25519())), (&[][..], HostStatus::Revoked));
}

#[test]
fn a_carriage_return_hides_no_revocation_in_a_comment() {
    let file = hosts("a ED comment\r@revoked a ED\r\nb ED comment\r\n");
    let reason = SkipReason::BadKey(PublicKeyLineError::NotOneKey);
    assert_eq!(file.skipped(), [SkippedLine { line: 1, reason }]);
    assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown);
    assert_eq!(file.check("b", 22, &ed25519()), HostStatus::Known);
}

#[test]
fn a_revocation_counts_also_with_the_default_port_written_out() {
    let salt = LineFormat::Hashed { salt: [7; 20] };
    let hashed = KnownHosts::line("a", 2222, &ed25519(), salt).unwrap();
    let explicit = hash_name(&[7; 20], "[a]:22").finalize().into_bytes();
    let field = format!("|1|{}|{}", Base64::encode_string(&[7; 20]), Base64::encode_string(&explicit));
    for revoked in ["[a]:22", "[a]:*", "[*]:22", &field] {
        let file = hosts(&format!("a ED\n@revoked {revoked} ED"));
        for port in [0, 22] {
            assert_eq!(file.check("A", port, &ed25519()), HostStatus::Revoked, "{revoked}");
        }
    }
    // Not for another host or port; and no other line has two names.
    let file = KnownHosts::parse(format!("@revoked {hashed}").as_bytes());
    assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown);
    assert_eq!(hosts("a ED\n@revoked [b]:22,[a]:23 ED").check("a", 22, &ed25519()), HostStatus::Known);
}

#[test]
fn kx_23_a_revocation_wins_wherever_it_stands() {
    for file in ["a ED\n@revoked a ED", "@revoked a ED\na ED", "a ED\n@revoked * ED", "@revoked\ta\tED"] {
        assert_eq!(hosts(file).check("a", 22, &ed25519()), HostStatus::Revoked, "{file}");
    }
    assert_eq!(hosts("[a]:2222 ED\n@revoked * ED").check("a", 2222, &ed25519()), HostStatus::Revoked);
    let salt = LineFormat::Hashed { salt: [7; 20] };
    let hashed = KnownHosts::line("a", 22, &ed25519(), salt).unwrap();
    let file = KnownHosts::parse(format!("@revoked {hashed}").as_bytes());
    assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Revoked);
    // For its hosts and its key only; and a revoked key is no key of the host.
    let file = hosts("a,b ED\n@revoked a ED");
    assert_eq!(file.check("b", 22, &ed25519()), HostStatus::Known);
    let file = hosts("@revoked a ED");
    assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Unknown);
    assert!(file.key_types("a", 22).is_empty());
}

#[test]
fn kx_23_a_certificate_authority_is_not_a_host_key() {
    let file = hosts("@cert-authority * ED");
    assert_eq!(file.skipped(), []);
    assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown);
    assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Unknown);
    assert!(file.key_types("a", 22).is_empty());
}

#[test]
fn kx_23_markers_are_exact_and_single() {
    for line in [
        "@revoked @cert-authority a ED",
        "@cert-authority @revoked a ED",
        "@revoked @revoked a ED",
        "@Revoked a ED",
        "@revoked\u{b}a ED",
        "@revoked\u{c} a ED",
        "@revoked\u{a0}a ED",
        "@revokeda ED",
        "@revoked,a ED",
        "@ revoked a ED",
        "@",
    ] {
        let file = hosts(line);
        assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown, "{line:?}");
        assert_eq!(file.skipped(), [SkippedLine { line: 1, reason: SkipReason::BadMarker }], "{line:?}");
    }
    // Elsewhere in a line the word is no marker.
    assert!(is_known("a,@revoked", "a", 22));
    assert_eq!(hosts("a ED @revoked").check("a", 22, &ed25519()), HostStatus::Known);
}

#[test]
fn kx_23_only_space_and_tab_separate() {
    for blank in [" ", "\t", " \t \t"] {
        let file = hosts(&format!("{blank}a{blank}ED{blank}comment{blank}\r\n"));
        assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Known, "{blank:?}");
    }
    for odd in ["\u{b}", "\u{c}", "\r", "\0", "\u{1c}", "\u{85}", "\u{a0}", "\u{2003}", "\u{2028}"] {
        let file = hosts(&format!("a{odd}b ED\nc,d{odd} ED"));
        assert_eq!(file.skipped().len(), 2, "{odd:?}");
        assert!(file.skipped().iter().all(|line| line.reason == SkipReason::BadHosts), "{odd:?}");
    }
}

#[test]
fn bad_lines_are_listed_and_the_others_used() {
    let file = hosts(
        "a ED\n# a comment\n\nb\nb ssh-rsa\nb ssh-rsa ****\n|1|x|y ED\n|2|x|y ED\n|1| ED\n|1|AAAA|AAAA ED\nc ED",
    );
    assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Known);
    assert_eq!(file.check("c", 22, &ed25519()), HostStatus::Known);
    let not_one_key = SkipReason::BadKey(PublicKeyLineError::NotOneKey);
    let expected = [
        (4, not_one_key),
        (5, not_one_key),
        (6, SkipReason::BadKey(PublicKeyLineError::BadBase64)),
        (7, SkipReason::BadHosts),
        (8, SkipReason::BadHosts),
        (9, SkipReason::BadHosts),
        (10, SkipReason::BadHosts),
    ];
    assert_eq!(file.skipped(), expected.map(|(line, reason)| SkippedLine { line, reason }));
}

#[test]
fn caps_hold() {
    let file = KnownHosts::parse(&[b'\n'; MAX_LINES]);
    assert!(!file.is_truncated());
    let file = KnownHosts::parse(&[b'\n'; MAX_LINES + 1]);
    assert!(file.is_truncated());
    let long = hosts(&format!("a{} ED\nb ED", ",a".repeat(MAX_LINE / 2)));
    assert_eq!(long.skipped(), [SkippedLine { line: 1, reason: SkipReason::TooLong }]);
    assert_eq!(long.check("b", 22, &ed25519()), HostStatus::Known);
    assert!(!is_known("*", &"a".repeat(MAX_HOST + 1), 22));
    assert!(!is_known("*", "", 22));
}

#[test]
fn the_line_of_a_hashed_name_is_the_one_ssh_keygen_finds() {
    // The first entry of ../testdata/known_hosts_hashed.
    let text = core::str::from_utf8(HASHED).unwrap();
    let line = text.lines().nth(1).unwrap();
    let salt = decode_20(line.split('|').nth(2).unwrap()).unwrap();
    let ours = KnownHosts::line("Example.com", 22, &ed25519(), LineFormat::Hashed { salt });
    assert_eq!(ours.as_deref(), Ok(line));
}

#[test]
fn names_that_could_forge_a_line_are_refused() {
    for host in [
        "",
        "a b",
        "a\tb",
        "a\nb",
        "a\r",
        "a\0",
        "a,b",
        "*",
        "a?",
        "[a]:23",
        "a]",
        "|1|a|b",
        "@revoked",
        "#a",
        "!a",
        "b\u{fc}cher.example",
        "a\u{7f}",
        "a\u{2028}b",
    ] {
        for port in [22, 2222] {
            for format in [LineFormat::Plain, LineFormat::Hashed { salt: [1; 20] }] {
                assert_eq!(KnownHosts::line(host, port, &rsa(), format), Err(HostNameRefused), "{host:?}");
            }
        }
    }
    for host in ["a", "a.example", "::1", "fe80::1%eth0", "user@a", "a_b-c"] {
        assert!(KnownHosts::line(host, 22, &rsa(), LineFormat::Plain).is_ok(), "{host:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data: Vec<u8>, host: String, port: u16) {
        let file = KnownHosts::parse(&data);
        let _ = file.check(&host, port, &ed25519());
        let _ = file.key_types(&host, port);
    }

    #[test]
    fn arbitrary_fields_never_panic(marker in "(@revoked |@cert-authority |@)?", field in "[ -~]{0,40}") {
        let file = hosts(&format!("{marker}{field} ED"));
        let _ = file.check("a", 22, &ed25519());
    }

    #[test]
    fn a_written_line_is_known_again(host: String, printable in "[!-~]{1,80}", port: u16, salt: [u8; 20]) {
        for host in [host, printable] {
            for format in [LineFormat::Plain, LineFormat::Hashed { salt }] {
                let Ok(line) = KnownHosts::line(&host, port, &rsa(), format) else { continue };
                let file = KnownHosts::parse(line.as_bytes());
                prop_assert!(file.skipped().is_empty());
                prop_assert_eq!(file.check(&host, port, &rsa()), HostStatus::Known);
                prop_assert_eq!(file.check("elsewhere.example", 22, &rsa()), HostStatus::Unknown);
            }
        }
    }

    #[test]
    fn patterns_match_as_their_slow_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
        fn slow(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], []) => true,
                ([b'*', tail @ ..], _) => (0..=name.len()).any(|skip| slow(tail, &name[skip..])),
                ([b'?', tail @ ..], [_, rest @ ..]) => slow(tail, rest),
                ([a, tail @ ..], [b, rest @ ..]) if a == b => slow(tail, rest),
                _ => false,
            }
        }
        let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
        prop_assert_eq!(matches_pattern(pattern, name), slow(pattern, name));
    }
}
