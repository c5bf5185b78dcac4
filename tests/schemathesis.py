"""What tests/schemathesis.sh needs besides schemathesis itself.

As a program it fills a server with things of every noun that can be had without machines and prints a token, or passes
connections on, each from another address of this host. As a module it is what schemathesis loads: it lets most requests name what is there.
"""

import http.client
import json
import random
import socket
import sys
import threading

# How many there are of each: enough that some are left when others were removed.
MANY = 30
# Webhooks are at most 32.
FEW = 16


def named(letter, count=MANY):
    return [f"{letter}{number}" for number in range(1, count + 1)]


# By the path up to the key, the longest first: what can stand there.
THERE = [
    ("/api/v1/discovery/rules/{key}", {"key": named("r")}),
    ("/api/v1/discovery/expected/{key}", {"key": named("e")}),
    ("/api/v1/machines/{key}", {"key": named("m")}),
    ("/api/v1/groups/{key}", {"key": named("g")}),
    ("/api/v1/tokens/{name}", {"name": named("t")}),
    ("/api/v1/users/{name}", {"name": named("u", FEW)}),
    ("/api/v1/webhooks/{name}", {"name": named("w", FEW)}),
    (
        "/api/v1/secrets/{kind}/{owner}/{name}",
        {"kind": ["machine"], "owner": named("m"), "name": ["password"]},
    ),
]


class Here(http.client.HTTPConnection):
    """The unix socket of a server."""

    def __init__(self, path):
        super().__init__("kiln")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def fill(path):
    """Adds what THERE names to the server behind a socket, and returns a token that may do everything."""
    server = Here(path)

    def send(method, path, body):
        server.request(method, path, json.dumps(body), {"content-type": "application/json"})
        answer = server.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    macs = lambda number: [f"52:54:00:00:01:{number:02x}"]
    files = {
        "machines": [
            {"name": name, "macs": macs(number), "labels": {"rack": "r1"}}
            for number, name in enumerate(named("m"))
        ],
        "groups": [{"name": name, "selector": "rack=r1"} for name in named("g")],
        "discovery-rules": [
            {"name": name, "selector": "vendor=qemu", "action": "hold"} for name in named("r")
        ],
    }
    send("POST", "/api/v1/apply", {"files": files})
    expected = [{"name": name, "serial": f"S-{name}", "labels": {}} for name in named("e")]
    send("POST", "/api/v1/discovery/expected", {"machines": expected})
    for name in named("t"):
        send("POST", "/api/v1/tokens", {"name": name, "scopes": ["read"]})
    for name in named("u", FEW):
        send("POST", "/api/v1/users", {"name": name, "password": "long enough", "scopes": ["read"]})
    for name in named("w", FEW):
        send("POST", "/api/v1/webhooks", {"name": name, "url": "https://127.0.0.1:9/"})
    for name in named("m"):
        send("PUT", f"/api/v1/secrets/machine/{name}/password", {"value": "x"})
    return send("POST", "/api/v1/tokens", {"name": "schemathesis", "scopes": ["admin"]})["token"]


def pass_on(port, to):
    """Passes connections on from addresses that differ: of one that fails too often nobody is let in any more."""
    chance = random.Random(1)
    listener = socket.create_server(("127.0.0.1", port))

    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    while True:
        client, _ = listener.accept()
        own = f"127.{chance.randrange(1, 255)}.{chance.randrange(255)}.{chance.randrange(1, 255)}"
        try:
            server = socket.create_connection(("127.0.0.1", to), source_address=(own, 0))
        except OSError:
            client.close()
            continue
        for pair in [(client, server), (server, client)]:
            threading.Thread(target=copy, args=pair, daemon=True).start()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fill", path]:
            print(fill(path))
        case ["pass-on", port, to]:
            pass_on(int(port), int(to))
        case _:
            sys.exit("usage: schemathesis.py fill SOCKET | pass-on PORT TO")
else:
    import schemathesis

    CHANCE = random.Random(1)

    @schemathesis.hook
    def before_call(context, case, kwargs):
        """Lets three of four requests name something that is there."""
        phase = getattr(getattr(case.meta, "phase", None), "name", None)
        if getattr(phase, "value", phase) == "stateful" or CHANCE.random() < 0.25:
            return
        for prefix, keys in THERE:
            if case.operation.path.startswith(prefix):
                for key, values in keys.items():
                    case.path_parameters[key] = CHANCE.choice(values)
                return
