#!/usr/bin/env python3
"""Makes what the benchmark builds: an OCI layout of a kernel, an init and 8 services, from Debian packages.

images.py OUT BIG_MIB KERNEL.deb INIT.deb PACKAGE.deb...

The files of the packages are dealt out to the services in order, so that all 8 have 210 MB between them. One more image,
`big`, has a single file of BIG_MIB that compresses to about a third. Every layer is gzip at level 6, as registries
hold them. The same packages give the same bytes.
"""

import gzip
import hashlib
import io
import json
import pathlib
import random
import subprocess
import sys
import tarfile

SERVICES = 8
UNPACKED = 210 * 1000 * 1000
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[subprocess.check_output(["uname", "-m"], text=True).strip()]

out = pathlib.Path(sys.argv[1])
big = int(sys.argv[2]) << 20
kernel, init, *packages = sys.argv[3:]
blobs = out / "blobs" / "sha256"
blobs.mkdir(parents=True)
manifests = []


def blob(data, media_type):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}


def members(package):
    """The files and links of a package: what lies in a service is of no interest, only how well it compresses."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        with tarfile.open(fileobj=tar.stdout, mode="r|") as files:
            for entry in files:
                if entry.isfile():
                    yield entry.name.removeprefix("./"), files.extractfile(entry).read()
    if tar.returncode:
        sys.exit(f"dpkg-deb cannot read {package}")


class Layer:
    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.GNU_FORMAT)
        self.size = 0

    def add(self, name, data, mode=0o755):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), mode
        self.tar.addfile(entry, io.BytesIO(data))
        self.size += len(data)

    def image(self, name, command, files=None):
        self.tar.close()
        data = files or self.bytes.getvalue()
        layer = blob(gzip.compress(data, 6, mtime=0), "layer.v1.tar+gzip")
        config = {
            "architecture": ARCH,
            "os": "linux",
            "config": {"Entrypoint": command},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [layer],
        }
        entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
        entry["platform"] = {"architecture": ARCH, "os": "linux"}
        entry["annotations"] = {"org.opencontainers.image.ref.name": f"registry.example/bench/{name}:1"}
        manifests.append(entry)
        print(f"{name} {self.size} {layer['size']}")


layer = Layer()
for name, data in members(kernel):
    if name.startswith("boot/vmlinuz"):
        layer.add("kernel", data)
empty = io.BytesIO()
tarfile.open(fileobj=empty, mode="w").close()
layer.add("kernel.tar", empty.getvalue(), 0o644)
layer.image("kernel", ["/kernel"])

layer = Layer()
for name, data in members(init):
    if name == "bin/busybox":
        layer.add("bin/busybox", data)
        layer.add("init", b"#!/bin/busybox sh\n")
layer.image("init", ["/init"])

pool = (member for package in packages for member in members(package))
left = UNPACKED
for number in range(1, SERVICES + 1):
    layer = Layer()
    share = left // (SERVICES + 1 - number)
    while layer.size < share:
        name, data = next(pool, (None, None))
        if name is None:
            sys.exit("the packages have less than 210 MB; name more in tests/bench/build.sh")
        # The last file of all is cut, so that the sum is the same for any packages.
        layer.add(name, data[: left - layer.size])
    left -= layer.size
    layer.image(f"service{number}", ["/bin/service"])

layer = Layer()
random.seed(1)
# Other noise every time: repetitions would be found.
data = b"".join(random.randbytes(1 << 20) + bytes(2 << 20) for _ in range(big // (3 << 20) + 1))
layer.add("data", data[:big], 0o644)
layer.image("big", ["/data"])

(out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
(out / "index.json").write_text(json.dumps(index))
