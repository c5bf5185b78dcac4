"""What http.sh needs beside a shell: a store with one large file, and clients that throw away what they get.

store DIR SIZE                                  makes a store; prints the digest of the file and where it is
measure KIND CLIENTS SECONDS PID:PORT:PATH...   measures each server in turn; prints a line of a table
"""

import hashlib
import json
import os
import selectors
import socket
import ssl
import sys
import time

CHUNK = 256 << 10


def put(store, data):
    digest = hashlib.sha256(data).hexdigest()
    folder = os.path.join(store, "blobs", "sha256")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, digest)
    with open(path, "wb") as file:
        file.write(data)
    return digest, path


def store(folder, size):
    kernel, _ = put(folder, b"MZ")
    large, path = put(folder, os.urandom(int(size)))
    manifest = {
        "arch": "x86_64",
        "cmdline": "",
        "image": "bench",
        "kernel": {"digest": "sha256:" + kernel, "efi_stub": True, "release": "6.12", "size": 2},
        "min_ram": 0,
        "packages": [],
        "schema": 1,
        "segments": [
            {"component": "large", "digest": "sha256:" + large, "size": int(size), "unpacked": int(size)}
        ],
    }
    version, _ = put(folder, json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode())
    version = "sha256:" + version
    entry = {"channels": {"latest": version}, "versions": [{"digest": version, "created": 0, "size": int(size)}]}
    with open(os.path.join(folder, "index.json"), "w") as file:
        json.dump({"images": {"bench": {"x86_64": entry}}}, file)
    print(large, path)


def processor(pid):
    """Seconds of processor time of a process and its children."""
    pids = [pid]
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                        pids.append(int(name))
            except OSError:
                pass
    total = 0
    for process in pids:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Client:
    """Fetches the same file again and again over one connection."""

    def __init__(self, kind, port, path):
        self.request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.plain = kind == "http"
        if not self.plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.socket.setblocking(False)
        self.head, self.left = b"", 0
        self.socket.send(self.request)

    def receive(self, buffer):
        """Takes what is there and returns how many bytes of the file it was."""
        try:
            if self.left == 0:
                data = self.socket.recv(4096)
                if not data:
                    sys.exit("a server closed a connection")
                self.head += data
                if b"\r\n\r\n" not in self.head:
                    return 0
                head, rest = self.head.split(b"\r\n\r\n", 1)
                if b" 200 " not in head:
                    sys.exit(head.decode())
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        self.left = int(line.split(b":")[1])
                self.head, got = b"", len(rest)
            elif self.plain:
                # Thrown away in the kernel: the client costs next to nothing.
                got = self.socket.recv_into(buffer, min(CHUNK, self.left), socket.MSG_TRUNC)
            else:
                got = self.socket.recv_into(buffer, min(CHUNK, self.left))
        except (BlockingIOError, ssl.SSLWantReadError):
            return 0
        self.left -= got
        if self.left == 0:
            self.socket.send(self.request)
        return got


def run(kind, count, seconds, server):
    pid, port, path = server.split(":", 2)
    clients = [Client(kind, int(port), path) for _ in range(count)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    buffer, total = bytearray(CHUNK), 0
    before, end = None, time.monotonic() + seconds + 0.5
    while (now := time.monotonic()) < end:
        # After a moment, so that connections and caches are there.
        if before is None and now > end - seconds:
            before, total = processor(int(pid)), 0
        for key, _ in selector.select(0.1):
            total += key.data.receive(buffer)
            # What was decrypted already makes no socket readable.
            while not key.data.plain and key.data.socket.pending():
                total += key.data.receive(buffer)
    used = processor(int(pid)) - before
    for client in clients:
        client.socket.close()
    return total / 1e6 / max(used, 0.01)


def measure(kind, count, seconds, *servers):
    # In turn, twice each, so that what else the computer does meets both.
    rates = [[run(kind, int(count), float(seconds) / 2, server) for server in servers] for _ in range(2)]
    ours, theirs = (sum(column) / 2 for column in zip(*rates))
    print(f"| {kind} | {count} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |", flush=True)


{"store": store, "measure": measure}[sys.argv[1]](*sys.argv[2:])
