"""What the four Python peers share: their arguments and exit codes."""

import argparse
import sys

CODE_AUTH_FAILED = 254
CODE_OTHER_FAILURE = 255
CHUNK = 32768


def names(text):
    """Split a comma-separated list of algorithm names."""
    return text.split(",")


def _add_algorithms(parser):
    parser.add_argument("--kex", type=names)
    parser.add_argument("--ciphers", type=names)
    parser.add_argument("--macs", type=names)
    parser.add_argument("--host-key-algs", type=names)
    parser.add_argument("--rekey-bytes", type=int)


def server_arguments():
    """Parse the command line of a server."""
    parser = argparse.ArgumentParser()
    _add_algorithms(parser)
    parser.add_argument("--host-key", action="append", required=True)
    parser.add_argument("--authorized-keys", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    return parser.parse_args()


def client_arguments():
    """Parse the command line of a client."""
    parser = argparse.ArgumentParser()
    _add_algorithms(parser)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", help="private key file")
    parser.add_argument("--key-alg", help="signature algorithm for --key")
    parser.add_argument("--password")
    parser.add_argument(
        "--known-host", required=True, help="file with the expected public key"
    )
    parser.add_argument("--stdin", default="/dev/null")
    parser.add_argument("--stdout", required=True)
    parser.add_argument("--stderr", required=True)
    parser.add_argument("command")
    return parser.parse_args()


def announce(port):
    """Tell the fixture where this server listens."""
    print(f"listening {port}", flush=True)


def fail(code, message):
    """End the process with one line on stderr."""
    print(" ".join(str(message).split()), file=sys.stderr, flush=True)
    sys.exit(code)
