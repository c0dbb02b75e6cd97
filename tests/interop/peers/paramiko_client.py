"""An SSH client made of paramiko that runs one command."""

import os
import signal
import socket
import sys
import threading

import common
import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_REQUEST


def handle_close(channel, message):
    """Answer the server's close on another thread.

    By itself paramiko answers on the thread that also has to go on with a key
    exchange, and waits there for that exchange (paramiko issue 822).
    """
    threading.Thread(
        target=paramiko.Channel._handle_close, args=(channel, message), daemon=True
    ).start()


def handle_request(channel, message):
    """Note an exit-signal, which paramiko itself passes over."""
    if message.get_text() == "exit-signal":
        message.get_boolean()
        channel.transport.exit_signal = message.get_text()
    message.rewind()
    message.get_int()  # The channel, which the dispatcher has read.
    paramiko.Channel._handle_request(channel, message)


class Transport(paramiko.Transport):
    """A transport that notices exit-signal, and closes during key exchanges."""

    _channel_handler_table = {
        **paramiko.Transport._channel_handler_table,
        MSG_CHANNEL_CLOSE: handle_close,
        MSG_CHANNEL_REQUEST: handle_request,
    }
    exit_signal = None


def connect(args):
    """Connect and check the host key."""
    sock = socket.create_connection(("127.0.0.1", args.port), timeout=30)
    transport = Transport(sock)
    options = transport.get_security_options()
    options.kex = args.kex or options.kex
    options.ciphers = args.ciphers or options.ciphers
    options.digests = args.macs or options.digests
    options.key_types = args.host_key_algs or options.key_types
    if args.rekey_bytes:
        transport.packetizer.REKEY_BYTES = args.rekey_bytes
    transport.start_client(timeout=30)
    with open(args.known_host, encoding="ascii") as file:
        expected = file.read().split()[1]
    if transport.get_remote_server_key().get_base64() != expected:
        common.fail(common.CODE_OTHER_FAILURE, "host key is not the expected one")
    return transport


def log_in(transport, args):
    """Authenticate by key or by password."""
    if args.key:
        if args.key_alg:
            transport._preferred_pubkeys = (args.key_alg,)
        left = transport.auth_publickey(args.user, paramiko.PKey.from_path(args.key))
    else:
        left = transport.auth_password(args.user, args.password, fallback=False)
    if left:
        common.fail(common.CODE_AUTH_FAILED, f"the server also wants {left}")


def pump_in(path, channel):
    """Send a file as the command's input."""
    try:
        with open(path, "rb") as file:
            while data := file.read(common.CHUNK):
                channel.sendall(data)
        channel.shutdown_write()
    except OSError:
        pass  # The command ended without reading it all.


def pump_out(receive, path):
    """Store one of the command's outputs."""
    with open(path, "wb") as file:
        while data := receive(common.CHUNK):
            file.write(data)


def run(transport, args):
    """Run the command and return its exit code."""
    channel = transport.open_session()
    channel.exec_command(args.command)
    threads = [
        threading.Thread(target=pump_out, args=(channel.recv, args.stdout)),
        threading.Thread(target=pump_out, args=(channel.recv_stderr, args.stderr)),
    ]
    threading.Thread(target=pump_in, args=(args.stdin, channel), daemon=True).start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = channel.recv_exit_status()
    channel.close()
    if transport.exit_signal:
        return 128 + signal.Signals["SIG" + transport.exit_signal]
    if status < 0:
        common.fail(common.CODE_OTHER_FAILURE, "the channel closed without a status")
    return status


def main():
    """Run one command over one connection."""
    args = common.client_arguments()
    try:
        transport = connect(args)
        log_in(transport, args)
        status = run(transport, args)
        transport.close()
    except paramiko.AuthenticationException as error:
        common.fail(common.CODE_AUTH_FAILED, error or "authentication failed")
    except (paramiko.SSHException, OSError, EOFError) as error:
        common.fail(common.CODE_OTHER_FAILURE, repr(error))
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
