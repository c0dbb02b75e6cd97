#!/usr/bin/env bash
# Runs all tests: installs the peers of the interop test where they are
# missing, tests every package, and prints how many combinations of
# algorithms ran with each peer. Fails when a peer was left out.
#
# SSH_INTEROP_DIR names the directory for the Python environment and the
# run's files (default: target/interop in the repository).
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export SSH_INTEROP_DIR=${SSH_INTEROP_DIR:-$root/target/interop}
mkdir -p "$SSH_INTEROP_DIR"
SSH_INTEROP_DIR=$(cd "$SSH_INTEROP_DIR" && pwd)
summary=$SSH_INTEROP_DIR/summary.txt

command -v cargo >/dev/null || {
    echo "tests: cargo is missing; install Rust 1.88 or later" >&2
    exit 1
}

tests/interop/setup.sh

# What runs that were killed have left.
rm -f "$summary"
for dir in "$SSH_INTEROP_DIR"/run-*; do
    pid=${dir##*/run-}
    if [ -d "$dir" ] && [ ! -d "/proc/${pid%-*}" ]; then rm -rf "$dir"; fi
done

cargo test --workspace --locked
cargo test --package ssh-proto --locked --features rsa,keys,raw

if [ ! -s "$summary" ]; then
    echo "tests: the interop test left no summary" >&2
    exit 1
fi
echo
echo "interop: combinations per peer and direction"
missing=
for peer in openssh dropbear paramiko asyncssh; do
    for role in client server; do
        count=$(awk -v peer=$peer -v role=$role '$1 == peer && $2 == role { n += $3 } END { print n + 0 }' "$summary")
        if [ $role = client ]; then
            direction="$peer client -> our server"
        else
            direction="our client -> $peer server"
        fi
        printf '  %-32s %4d\n' "$direction" "$count"
        if [ "$count" -eq 0 ]; then missing+=" $peer/$role"; fi
    done
done
if [ -n "$missing" ]; then
    echo "tests: no interop combination ran for:$missing" >&2
    exit 1
fi
