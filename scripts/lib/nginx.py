"""nginx with its stream module, out of Debian's packages: unpacked under target/, never installed. A peer to measure beside."""

import platform
import shutil
import subprocess
import time
from pathlib import Path

from stack import Failed, Process

PACKAGES = ("nginx", "libnginx-mod-stream")


def fetched(folder: Path, *packages: str) -> Path:
    """Where the packages lie unpacked, of which the first has a program of its name."""
    root = folder / "root"
    if (root / "usr" / "sbin" / packages[0]).exists():
        return root
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Failed(f"no apt-get or dpkg-deb on this {platform.system()}")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"apt-get download {' '.join(packages)}: {done.stderr.strip()[-500:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    return root


class Nginx:
    """Passes the bytes of one port on to another, with the settings that nginx comes with."""

    def __init__(self, folder: Path, listen: int, upstream: str, workers: int, cpus: str | None):
        root = fetched(folder, *PACKAGES)
        program = root / "usr" / "sbin" / "nginx"
        said = subprocess.run([program, "-v"], capture_output=True, text=True)
        if said.returncode:
            raise Failed(f"nginx does not run here: {said.stderr.strip()[-300:]}")
        self.version = said.stderr.strip().rpartition("/")[2]
        self.address = f"127.0.0.1:{listen}"
        settings = folder / "nginx.conf"
        settings.write_text(
            f"load_module {root}/usr/lib/nginx/modules/ngx_stream_module.so;\n"
            f"daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\nerror_log stderr warn;\n"
            "events { worker_connections 1024; }\n"
            f"stream {{ server {{ listen {self.address}; proxy_pass {upstream}; }} }}\n"
        )
        self.process = Process("nginx", [program, "-p", folder, "-c", settings], folder / "nginx.log", cpus)
        deadline = time.monotonic() + 10
        while len(self.process.family()) <= workers:
            if self.process.child.poll() is not None or time.monotonic() > deadline:
                self.process.stop()
                raise Failed(f"nginx does not start: {self.process.text().strip()[-500:]}")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
