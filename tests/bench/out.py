"""Prints how many bytes the initrd has that a report tells of."""

import json
import sys

report = json.load(sys.stdin)
if "initrd" in report:
    print(report["initrd"])
else:
    print(sum(part["size"] for part in report["components"] if part["compression"]))
