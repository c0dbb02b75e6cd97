"""An SSH server made of paramiko that runs commands through /bin/sh."""

import os
import signal
import socket
import subprocess
import threading

import common
import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_REQUEST,
)


def handle_request(channel, message):
    """Answer a channel request, and only then start what it asked for."""
    paramiko.Channel._handle_request(channel, message)
    command = channel.transport.commands.pop(channel.get_id(), None)
    if command is not None:
        threading.Thread(target=run, args=(channel, command), daemon=True).start()


class Transport(paramiko.Transport):
    """A transport that remembers commands until their request is answered."""

    _channel_handler_table = {
        **paramiko.Transport._channel_handler_table,
        MSG_CHANNEL_REQUEST: handle_request,
    }

    def __init__(self, sock):
        super().__init__(sock)
        self.commands = {}


class Server(paramiko.ServerInterface):
    """One user, who has a password and some keys."""

    def __init__(self, args, transport):
        self.args = args
        self.transport = transport
        with open(args.authorized_keys, encoding="ascii") as file:
            self.keys = {line.split()[1] for line in file if line.strip()}

    def get_allowed_auths(self, username):
        return "publickey,password"

    def check_auth_password(self, username, password):
        right = (self.args.user, self.args.password)
        return AUTH_SUCCESSFUL if (username, password) == right else AUTH_FAILED

    def check_auth_publickey(self, username, key):
        known = username == self.args.user and key.get_base64() in self.keys
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        if kind == "session":
            return OPEN_SUCCEEDED
        return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_env_request(self, channel, name, value):
        return True

    def check_channel_exec_request(self, channel, command):
        self.transport.commands[channel.get_id()] = command
        return True


def pump_in(channel, pipe):
    """Feed the process until the client ends its input."""
    try:
        while data := channel.recv(common.CHUNK):
            pipe.write(data)
    except OSError:
        # The process no longer reads: drop the rest, but keep the window open.
        while channel.recv(common.CHUNK):
            pass
    finally:
        try:
            pipe.close()
        except OSError:
            pass


def pump_out(pipe, send):
    """Send one of the process's outputs until its end."""
    try:
        while data := os.read(pipe.fileno(), common.CHUNK):
            send(data)
    except OSError:
        # The channel is gone; the process gets SIGPIPE.
        pipe.close()


def send_exit_signal(channel, number):
    """Report a death by signal, for which paramiko has no call."""
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(signal.Signals(number).name.removeprefix("SIG"))
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    channel.transport._send_user_message(message)


def run(channel, command):
    """Run one command and report how it ended."""
    process = subprocess.Popen(
        [b"/bin/sh", b"-c", command],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    threading.Thread(
        target=pump_in, args=(channel, process.stdin), daemon=True
    ).start()
    outputs = [
        threading.Thread(target=pump_out, args=pair)
        for pair in (
            (process.stdout, channel.sendall),
            (process.stderr, channel.sendall_stderr),
        )
    ]
    for thread in outputs:
        thread.start()
    for thread in outputs:
        thread.join()
    code = process.wait()
    channel.shutdown_write()
    if code < 0:
        send_exit_signal(channel, -code)
    else:
        channel.send_exit_status(code)
    channel.close()


def serve(sock, args):
    """Serve one connection."""
    transport = Transport(sock)
    options = transport.get_security_options()
    options.kex = args.kex or options.kex
    options.ciphers = args.ciphers or options.ciphers
    options.digests = args.macs or options.digests
    options.key_types = args.host_key_algs or options.key_types
    if args.rekey_bytes:
        transport.packetizer.REKEY_BYTES = args.rekey_bytes
    for path in args.host_key:
        transport.add_server_key(paramiko.PKey.from_path(path))
    transport.start_server(server=Server(args, transport), event=threading.Event())


def main():
    """Listen until killed."""
    args = common.server_arguments()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    common.announce(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        serve(sock, args)


if __name__ == "__main__":
    main()
