#!/usr/bin/env bash
# Builds the benchmark and its peers, measures everything, and prints one
# table as Markdown. What is compared with what is told in src/main.rs.
#
# --quick      does little work, once: to see that everything works
# --runs N     takes each number N times (default: 5)
# --only TEXT  only what has this in its title, such as `handshake`
#
# Needs ssh, sshd and ssh-keygen; keys are thrown away behind it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

for tool in cargo ssh ssh-keygen /usr/sbin/sshd; do
    command -v "$tool" >/dev/null || {
        echo "bench: $tool is missing" >&2
        exit 1
    }
done
# sshd started as root insists on this directory; it is gone after a reboot.
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p /run/sshd
    chmod 0755 /run/sshd
fi

export CARGO_TARGET_DIR=$PWD/target
cargo build --release --locked --quiet
exec "$CARGO_TARGET_DIR/release/ssh-bench" table "$@"
