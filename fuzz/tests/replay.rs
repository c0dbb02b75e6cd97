//! Every input that once broke a law, again.

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target);
    let files = fs::read_dir(&folder).expect("the folder is part of the repository");
    for file in files.map(|entry| entry.expect("a file").path()) {
        println!("{}", file.display());
        run(&fs::read(file).expect("a file"));
    }
}

#[test]
fn l8_the_regressions_of_the_decoders_are_gone() {
    replay("messages", ssh_fuzz::run_messages);
}

#[test]
fn the_regressions_of_the_client_are_gone() {
    replay("client", ssh_fuzz::run_client);
}

#[test]
fn the_regressions_of_the_server_are_gone() {
    replay("server", ssh_fuzz::run_server);
}
