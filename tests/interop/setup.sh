#!/usr/bin/env bash
# Installs the real SSH implementations that the interop test talks to:
# OpenSSH and dropbear from Debian, paramiko and asyncssh from PyPI.
#
# SSH_INTEROP_DIR names the directory for the Python environment and the
# run's files (default: target/interop in the repository). Does nothing when
# everything is in place; exits non-zero when anything cannot be installed.
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${SSH_INTEROP_DIR:-$root/target/interop}
requirements=$root/tests/interop/requirements.txt

fail() {
    echo "interop setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        fail "'$*' needs root, and there is no sudo"
    fi
}

# Debian packages, each with the files that show it is there.
packages=()
need() {
    local package=$1 file
    shift
    for file in "$@"; do
        if ! compgen -G "$file" >/dev/null; then
            packages+=("$package")
            return
        fi
    done
}
need openssh-client /usr/bin/ssh /usr/bin/ssh-keygen
need openssh-server /usr/sbin/sshd
need openssh-sftp-server /usr/lib/openssh/sftp-server
need dropbear-bin /usr/sbin/dropbear /usr/bin/dbclient /usr/bin/dropbearconvert
need libnss-wrapper '/usr/lib/*/libnss_wrapper.so'
need python3 /usr/bin/python3
command -v cc >/dev/null || packages+=(gcc libc6-dev) # Rust links with it.
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "no apt-get to install ${packages[*]} with"
    echo "interop setup: installing ${packages[*]}"
    log=$(mktemp)
    # Starting a system-wide sshd or dropbear is no business of a test:
    # policy-rc.d stops that for the time of the installation, and goes also
    # when that is interrupted.
    policy=/usr/sbin/policy-rc.d
    install() (
        if [ ! -e $policy ]; then
            trap 'as_root rm -f $policy' EXIT
            trap 'exit 1' HUP INT TERM
            printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null || exit
            as_root chmod 755 $policy || exit
        fi
        as_root apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
                --no-install-recommends -o Dpkg::Options::=--force-confold "${packages[@]}"
    )
    installed=yes
    install >"$log" 2>&1 </dev/null || installed=
    if [ -z "$installed" ]; then
        tail -n 40 "$log" >&2
        fail "apt-get could not install ${packages[*]}"
    fi
    rm -f "$log"
fi

# sshd started as root insists on this directory; it is gone after a reboot.
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p /run/sshd
    chmod 0755 /run/sshd
fi

# The Python environment is made anew whenever the requirements change.
venv=$dir/venv
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    echo "interop setup: making the Python environment in $venv"
    mkdir -p "$dir"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv" || fail "python3 -m venv failed"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" ||
        fail "pip could not install $(grep '^[a-z]' "$requirements" | paste -sd ' ')"
    cp "$requirements" "$venv/requirements.txt"
fi

echo "interop setup: $(/usr/bin/ssh -V 2>&1 | cut -d, -f1)"
echo "interop setup: $(/usr/bin/dbclient -V 2>&1 | head -n 1)"
"$venv/bin/python" - <<'PYTHON' || fail "the Python environment in $venv does not work; remove it"
import asyncssh
import paramiko

for module in (paramiko, asyncssh):
    print(f"interop setup: {module.__name__} {module.__version__}")
PYTHON
