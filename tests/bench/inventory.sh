#!/bin/sh
# How long `kiln serve` takes from its start until its socket answers, and the memory that it then has, with no machine,
# 10 000 and 100 000 in a file of SQLite, and how long it takes to apply and to list 10 000; docs/benchmarks.md quotes it. `./dev bench`
# runs it, as root. Each number is the median of KILN_BENCH_ROUNDS runs. Memory is told twice: all that is mapped, which has pages of the
# program's file in it that the kernel takes back when it likes, and what is the server's own.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
rounds=${KILN_BENCH_ROUNDS:-5}
work=$(mktemp -d "${KILN_BENCH_CACHE:-/var/tmp}/inventory.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/loaders"
echo none >"$work/loaders/undionly.kpxe"
cat >"$work/kiln.toml" <<EOF
[server]
data-dir = "$work/kiln"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[loaders]
dir = "$work/loaders"
[http]
port = 18080
[tftp]
port = 10069
[[subnet]]
network = "127.0.0.0/8"
interface = "lo"
address = "127.0.0.1"
dhcp = "off"
EOF
python3 - "$kiln" "$work" "$rounds" <<'EOF'
import http.client, json, os, socket, sqlite3, statistics, subprocess, sys, time

kiln, work, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
path = work + "/kiln.sock"

def start():
    """Starts the server once; returns the milliseconds until it answers, its memory in MiB, and its own of that."""
    before = time.monotonic()
    server = subprocess.Popen([kiln, "serve", "--config", work + "/kiln.toml"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(b"GET /api/v1/images HTTP/1.0\r\n\r\n")
                if s.recv(12).endswith(b"200"):
                    break
        except OSError:
            pass
        if server.poll() is not None:
            sys.exit("the server ended")
        time.sleep(0.001)
    took = (time.monotonic() - before) * 1000
    time.sleep(1)
    memory = {}
    for line in open(f"/proc/{server.pid}/status"):
        name, _, value = line.partition(":")
        memory[name] = value
    server.terminate()
    server.wait()
    return took, *(int(memory[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))

def fill(count):
    """Writes machines as an operator would describe them, up to this number."""
    database = sqlite3.connect(work + "/kiln/inventory.db")
    (there,) = database.execute("SELECT count(*) FROM machines").fetchone()
    for number in range(there, count):
        mac = "02:00:00:%02x:%02x:%02x" % (number >> 16, number >> 8 & 255, number & 255)
        address = "10.%d.%d.%d" % (number >> 16, number >> 8 & 255, number & 255)
        spec = {"name": f"node-{number}", "macs": [mac], "uuid": "4c4c4544-0000-1000-8000-%012x" % number,
                "image": "web:stable", "address": address, "cmdline": "console=ttyS0",
                "labels": {"rack": str(number // 40), "role": "worker"}}
        row = database.execute("INSERT INTO machines (name, address, spec) VALUES (?, ?, ?)",
                               (spec["name"], address, json.dumps(spec)))
        database.execute("INSERT INTO machine_macs VALUES (?, ?)", (mac, row.lastrowid))
    database.commit()
    database.close()

class Socket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

def empty():
    """Forgets every machine."""
    for end in ("", "-wal", "-shm"):
        if os.path.exists(work + "/kiln/inventory.db" + end):
            os.unlink(work + "/kiln/inventory.db" + end)

def apply():
    """Applies 10 000 machines to an empty inventory by the API, then the same, then all of them changed; in seconds."""
    empty()
    server = subprocess.Popen([kiln, "serve", "--config", work + "/kiln.toml"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(path):
        if server.poll() is not None:
            sys.exit("the server ended")
        time.sleep(0.01)
    machines = [{"name": f"node-{n}", "macs": ["02:00:00:00:%02x:%02x" % (n >> 8, n & 255)], "image": "web:stable",
                 "address": "10.1.%d.%d" % (n >> 8, n & 255), "labels": {"rack": str(n // 40), "role": "worker"}}
                for n in range(10_000)]
    took = []
    for cmdline in ("quiet", "quiet", "debug"):
        body = json.dumps({"source": "bench", "files": {"machines": [m | {"cmdline": cmdline} for m in machines]}})
        before = time.monotonic()
        connection = Socket("kiln")
        connection.request("POST", "/api/v1/apply", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(answer.read().decode())
        answer.read()
        took.append(time.monotonic() - before)
    before = time.monotonic()
    connection = Socket("kiln")
    connection.request("GET", "/api/v1/machines")
    body = connection.getresponse().read()
    took.append(time.monotonic() - before)
    if len(json.loads(body)) != len(machines):
        sys.exit("the list is not whole")
    server.terminate()
    server.wait()
    return took

runs = [apply() for _ in range(rounds)]
print("10 000 machines by the API, applied and then listed:")
for what, column in zip(("all new", "as they were", "all changed", "list"), zip(*runs)):
    print(f"{what:>14} {statistics.median(column) * 1000:>6.0f} ms")
empty()
start()
print(f"{'machines':>9} {'ready':>9} {'memory':>11} {'own':>11} {'for each':>12}")
bare = 0
for count in (0, 10_000, 100_000):
    fill(count)
    runs = [start() for _ in range(rounds)]
    ready, memory, own = (statistics.median(column) for column in zip(*runs))
    bare = bare or own
    each = f"{(own - bare) * 1024 / count:>6.2f} KiB" if count else ""
    print(f"{count:>9} {ready:>6.0f} ms {memory:>7.0f} MiB {own:>7.1f} MiB {each:>12}")
EOF
