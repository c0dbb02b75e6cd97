//! That the tokens of this crate are what they are said to be.
//!
//! Nobody else can make one because its field is private. No example that fails to compile shows that: it fails
//! for the modules on the way, which are private too. So this reads the sources.

use std::fs;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// A token: where it stands, how it is declared, and where it is made, how often.
struct Token {
    name: &'static str,
    file: &'static str,
    declared: &'static str,
    made: &'static [(&'static str, usize)],
}

const TOKENS: [Token; 6] = [
    Token {
        name: "SignatureVerified",
        file: "kex/proof.rs",
        declared: "#[derive(Debug)]\npub(crate) struct SignatureVerified(pub(super) ());",
        made: &[("kex/exchange.rs", 1)],
    },
    Token {
        name: "HostKeyAccepted",
        file: "kex/proof.rs",
        declared: "#[derive(Debug)]\npub(crate) struct HostKeyAccepted(pub(super) ());",
        // By the embedder, and as the one accepted before.
        made: &[("kex/mod.rs", 2)],
    },
    Token {
        name: "ReplySigned",
        file: "kex/proof.rs",
        declared: "#[derive(Debug)]\npub(crate) struct ReplySigned(pub(super) ());",
        made: &[("kex/mod.rs", 1)],
    },
    Token {
        name: "MacVerified",
        file: "transport/incoming.rs",
        declared: "\nstruct MacVerified(());",
        made: &[("transport/incoming.rs", 1)],
    },
    Token {
        name: "ServiceSender",
        file: "transport/outgoing.rs",
        declared: "\npub(crate) struct ServiceSender<'a>(&'a mut Outgoing);",
        made: &[("transport/outgoing.rs", 1)],
    },
    Token {
        name: "Authenticated",
        file: "auth/mod.rs",
        declared: "#[derive(Debug)]\npub(crate) struct Authenticated(());",
        made: &[("auth/client.rs", 1), ("auth/server.rs", 1)],
    },
];

/// The sources of the crate without comments, by their paths.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).expect("the sources are there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("within").to_str().expect("a plain name");
                let text = fs::read_to_string(&path).expect("readable");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push((name.replace('\\', "/"), code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.retain(|(name, _)| name != "tokens.rs");
    found
}

#[test]
fn tokens_are_private_and_made_where_they_are_earned() {
    let sources = sources();
    assert!(sources.len() > 50, "{}", sources.len());
    for Token { name, file, declared, made } in TOKENS {
        let (_, home) = sources.iter().find(|source| source.0 == file).expect(file);
        assert!(home.contains(declared), "{name} is declared otherwise in {file}");
        let mut found = Vec::new();
        for (path, code) in &sources {
            // A tuple of one unit, or of the borrowed machine; by its field; or by its name as a function.
            let ways = [
                format!("{name}(())"),
                format!("{name}(self)"),
                format!("{name} {{ 0"),
                format!("map({name})"),
            ];
            let times = ways.iter().map(|way| code.matches(way.as_str()).count()).sum::<usize>();
            let declared = code.matches(&format!("struct {name}(());")).count();
            if times > declared {
                found.push((path.as_str(), times - declared));
            }
            for made_by in ["Clone for", "Default for", "Copy for", "From<"] {
                let by_trait =
                    code.lines().any(|line| line.contains(made_by) && line.ends_with(&format!(" {name} {{")));
                assert!(!by_trait, "{name} is made by a trait in {path}");
            }
        }
        found.sort_unstable();
        assert_eq!(found, made, "{name}");
    }
}
