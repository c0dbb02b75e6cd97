#!/usr/bin/env bash
# Runs the tests of the workspace: installs the peers of the interop test where
# they are missing, tests every package with both crypto providers, and prints
# how many combinations of algorithms ran with each peer. Fails when a peer was
# left out. What each provider does without the other, and the fuzz targets with
# their regressions, are left to .ci/run.
#
# SSH_INTEROP_DIR names the directory for the Python environment and the
# run's files (default: target/interop in the repository).
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export SSH_INTEROP_DIR=${SSH_INTEROP_DIR:-$root/target/interop}
mkdir -p "$SSH_INTEROP_DIR"
SSH_INTEROP_DIR=$(cd "$SSH_INTEROP_DIR" && pwd)
summary=$SSH_INTEROP_DIR/summary

command -v cargo >/dev/null || {
    echo "tests: cargo is missing; install Rust 1.88 or later" >&2
    exit 1
}

tests/interop/setup.sh

# What earlier runs have left.
rm -rf "$summary"
for dir in "$SSH_INTEROP_DIR"/run-*; do
    pid=${dir##*/run-}
    if [ -d "$dir" ] && [ ! -d "/proc/${pid%-*}" ]; then rm -rf "$dir"; fi
done

cargo test --workspace --locked --no-fail-fast

echo
echo "interop: combinations of algorithms that passed"
missing=
count() {
    local peer=$1 role=$2 ours=$3 what=$4 n=0
    # Each file is a line PEER ROLE OURS COUNT.
    if [ -s "$summary/$peer-$role-$ours" ]; then read -r _ _ _ n <"$summary/$peer-$role-$ours"; fi
    printf '  %-42s %4d\n' "$what" "$n"
    if [ "$n" -eq 0 ]; then missing+=" $what,"; fi
}
for peer in openssh dropbear paramiko asyncssh; do
    for ours in ssh-io-std ssh-io-tokio; do
        count $peer server $ours "$ours client -> $peer server"
    done
    for ours in ssh-io-std ssh-io-tokio; do
        count $peer client $ours "$peer client -> $ours server"
    done
done
if [ -n "$missing" ]; then
    echo "tests: no combination of algorithms ran for:${missing%,}" >&2
    exit 1
fi
