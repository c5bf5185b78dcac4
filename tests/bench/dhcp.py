"""Drives perfdhcp for dhcp.sh: `dhcp.py NAME NAMESPACE-PID SERVER-PID SECONDS rate|avalanche`."""

import os
import re
import subprocess
import sys

name, space, server, seconds, what = sys.argv[1:]
seconds = float(seconds)
base = [10]


def run(*arguments):
    """Runs perfdhcp and returns what it printed. Each run has clients of its own, so that no lease is renewed."""
    base[0] += 1
    mac = "mac=02:%02x:%02x:00:00:00" % divmod(base[0], 256)
    room = "LD_PRELOAD=" + os.environ["ROOM"]
    command = ["nsenter", f"--target={space}", "--net", "--", "env", room, "perfdhcp", "-4", "-l", "wire1", "-b", mac,
               *arguments, "10.80.0.1"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def trial(rate):
    """Returns the share of exchanges without an answer, and how many there were."""
    out = run("-R", "1000000", "-r", str(rate), "-p", str(int(seconds)), "-W", "1000000")
    sent = [int(n) for n in re.findall(r"sent packets: (\d+)", out)]
    received = [int(n) for n in re.findall(r"received packets: (\d+)", out)]
    if len(sent) < 2 or not sent[0] or not sent[1]:
        return 1.0, 0
    # What perfdhcp itself did not manage to send does not count for the server.
    return 1 - received[1] / sent[0], received[1] / seconds


def most():
    """Returns the highest rate with at most 1 in 100 exchanges lost, as it was reached."""
    low, high, reached = 0, None, 0.0
    rate = 250
    while high is None or high - low > max(50, low // 16):
        lost, done = trial(rate)
        print(f"{name}: {rate} a second: {done:.0f} done, {lost:.1%} lost", file=sys.stderr)
        if lost <= 0.01 and done >= rate * 0.9:
            low, reached = rate, max(reached, done)
        else:
            high = rate
        rate = low * 2 if high is None else (low + high) // 2
        if rate < 20:
            break
    return reached


def delays(out):
    """Returns the delays of both exchanges in milliseconds, sorted, from the timestamps at the end of a report."""
    parts = []
    for line in out.splitlines():
        if line.startswith("***Timestamps for packets"):
            parts.append([])
        match = re.match(r"sent / received: ([0-9.]+) / ([0-9.]+)$", line.strip())
        if match and parts:
            parts[-1].append((float(match[2]) - float(match[1])) * 1000)
    return [sorted(part) for part in parts] + [[], []]


def used():
    """Returns the processor time of the server so far, in seconds."""
    fields = open(f"/proc/{server}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


if __name__ == "__main__":
    if what == "avalanche":
        out = run("-R", "1000", "--scenario", "avalanche", "-x", "t")
        offers, acks = delays(out)[:2]
        again = re.search(r"Requests resent: (\d+)", out)
        took = re.search(r"It took (\S+) to provision", out)
        print(f"1 000 machines at once: {len(acks)} have addresses after {took and took[1]}, "
              f"{again and again[1]} asked twice; OFFER p50 {quantile(offers, 0.5):.1f} ms, "
              f"p99 {quantile(offers, 0.99):.1f} ms, ACK p99 {quantile(acks, 0.99):.1f} ms")
    else:
        reached = most()
        before = used()
        half = str(max(1, int(reached / 2)))
        out = run("-R", "1000000", "-r", half, "-p", str(int(seconds)), "-W", "1000000", "-x", "t")
        offers, acks = delays(out)[:2]
        each = (used() - before) / max(1, len(acks)) * 1e6
        told = [f"{quantile(d, 0.5):.2f}, {quantile(d, 0.99):.2f}" for d in (offers, acks)]
        print(f"| {name} | {reached:.0f} | {told[0]} | {told[1]} | {each:.0f} |")
