"""Prints how many bytes the initrd has that a report tells of."""

import json
import sys

report = json.load(sys.stdin)
if isinstance(report, list):
    # `kiln image fetch` tells of each architecture.
    report = report[0]
if "initrd" in report:
    print(report["initrd"])
else:
    print(sum(part["size"] for part in report["components"] if part["compression"]))
