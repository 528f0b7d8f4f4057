"""Second kernels: each boots, mounts the volume at /share, does one job on its serial line, and ends."""

import gzip
import lzma
import os
import shutil
import subprocess
import time

from place import BOOT, Unable, VM, busybox, kill, run, unpacked

# What init does in every guest. The serial line is for the job alone: the kernel's messages go elsewhere.
INIT = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
{prepare}
busybox stty -F /dev/ttyS0 raw -echo
if {mount}; then . /job; else busybox echo guest: cannot mount the volume; fi </dev/ttyS0 >/dev/ttyS0 2>&1
busybox poweroff -f
"""

# What a guest needs of its kernel; the rest follows.
MODULES = ("virtio_pci", "virtiofs", "9pnet_virtio", "9p")


class Guest:
    """A second kernel that does one job."""

    # Whether the guest can map a file as shared memory: without, WAL is refused to all guests.
    maps = True

    @classmethod
    def profile(cls, name):
        """The profile that imitates it."""
        return name

    def __init__(self, base, volume, binary, job, *, stdin=subprocess.DEVNULL, stdout=None):
        self.base = base
        self.root = base / "guest"
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("bin", "dev", "proc", "tmp", "share"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(busybox(), self.root / "bin/busybox")
        shutil.copy(binary, self.root / "bin/walbanger")
        (self.root / "job").write_text(job)
        (self.root / "init").write_text(INIT.format(prepare=self.prepare(), mount=self.mounting(volume)))
        (self.root / "init").chmod(0o755)
        self.out = (base / "guest.out").open("w+", errors="replace")
        self.messages = (base / "guest.log").open("w+", errors="replace")
        self.helpers = []
        # In a session of its own, so that all of its processes can be ended with it.
        self.process = subprocess.Popen(
            self.command(volume), stdin=stdin, stdout=stdout or self.out, stderr=self.messages,
            start_new_session=True, env={**os.environ, "TMPDIR": str(base)})

    def prepare(self):
        return ":"

    def said(self):
        self.out.flush()
        self.out.seek(0)
        return self.out.read().replace("\r", "")

    def wait_for(self, text):
        end = time.monotonic() + BOOT
        while text not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                self.messages.seek(0)
                said = (self.said() + self.messages.read())[-300:]
                raise Unable(f"the second kernel did not come to '{text}': {said}")
            time.sleep(0.05)

    def end(self, patience):
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        return self.said()

    def kill(self):
        for process in (self.process, *self.helpers):
            kill(process)


class Uml(Guest):
    """User-mode Linux, an ordinary process, which reaches the host's directory through its hostfs."""

    @staticmethod
    def needs():
        busybox()
        unpacked("usr/bin/linux.uml", "user-mode-linux")

    def mounting(self, volume):
        return f"busybox mount -t hostfs none /share -o {volume}"

    def command(self, _volume):
        kernel = unpacked("usr/bin/linux.uml", "user-mode-linux")
        return [str(kernel), "mem=384M", "rootfstype=hostfs", f"rootflags={self.root}", "rw", "init=/init",
                "con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1", "quiet"]


class Qemu(Guest):
    """An emulated machine with a kernel of Debian; how it reaches the volume is up to the subclasses."""

    @staticmethod
    def needs():
        busybox()
        if not shutil.which("qemu-system-x86_64"):
            raise Unable("there is no qemu-system-x86_64 (Debian: apt-get install qemu-system-x86)")
        kernel()

    def prepare(self):
        modules = self.root / "modules"
        modules.mkdir()
        lines = []
        for name, module in in_order(MODULES).items():
            (modules / f"{name}.ko").write_bytes(module)
            lines.append(f"busybox insmod /modules/{name}.ko")
        return "\n".join(lines)

    def command(self, volume):
        initramfs = self.base / "initramfs"
        with initramfs.open("wb") as archive:
            names = "\n".join(str(path.relative_to(self.root)) for path in self.root.rglob("*"))
            subprocess.run([str(busybox()), "cpio", "-o", "-H", "newc"], input=names.encode(), stdout=archive,
                           stderr=subprocess.DEVNULL, cwd=self.root, check=True)
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "512M", "-display",
                "none", "-nodefaults", "-no-reboot", "-kernel", str(kernel()), "-initrd", str(initramfs),
                "-append", "console=ttyS1 quiet panic=-1 rdinit=/init",
                "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line",
                "-serial", f"file:{self.base / 'console'}", *self.share(volume)]


def qemu_9p(cache):
    """An emulated machine that reaches the volume over 9p."""
    class Guest9p(Qemu):
        maps = cache != "none"

        @classmethod
        def profile(cls, name):
            kernel()
            old = any((VM / "lib/modules").glob("6.1.*"))
            return f"{name}-6.1" if cache == "mmap" and old else name

        def mounting(self, _volume):
            return ("busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,"
                    f"cache={cache} share /share")

        def share(self, volume):
            return ("-fsdev", f"local,id=share,path={volume},security_model=none,multidevs=remap",
                    "-device", "virtio-9p-pci,fsdev=share,mount_tag=share")
    return Guest9p


def qemu_virtiofs(cache):
    """An emulated machine that reaches the volume over virtiofs, with the daemon that comes with QEMU."""
    class GuestVirtiofs(Qemu):
        maps = cache != "none"

        @staticmethod
        def needs():
            Qemu.needs()
            virtiofsd()

        def mounting(self, _volume):
            return "busybox mount -t virtiofs share /share"

        def share(self, volume):
            socket = self.base / "virtiofs.sock"
            self.helpers.append(subprocess.Popen(
                [virtiofsd(), f"--socket-path={socket}", "-o", f"source={volume}", "-o", f"cache={cache}",
                 "-o", "no_posix_lock"],
                stdin=subprocess.DEVNULL, stdout=self.messages, stderr=self.messages, start_new_session=True))
            end = time.monotonic() + BOOT
            while not socket.exists():
                if self.helpers[-1].poll() is not None or time.monotonic() > end:
                    raise Unable("virtiofsd did not start")
                time.sleep(0.05)
            return ("-object", "memory-backend-memfd,id=memory,size=512M,share=on",
                    "-numa", "node,memdev=memory", "-chardev", f"socket,id=fs,path={socket}",
                    "-device", "vhost-user-fs-pci,chardev=fs,tag=share")
    return GuestVirtiofs


def virtiofsd():
    known = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
    for path in known:
        if os.access(path, os.X_OK):
            return path
    raise Unable(f"there is no virtiofsd at {' or '.join(known)} (Debian 12: in qemu-system-common)")


def kernel():
    """A kernel with 9p and virtiofs, unpacked: an emulated processor would take long to do that."""
    image = VM / "vmlinux"
    if not image.is_file():
        package = next((word for line in run(["apt-cache", "depends", "linux-image-amd64"]).splitlines()
                        for word in line.split() if word.startswith("linux-image-")
                        and word != "linux-image-amd64"), None)
        if package is None:
            raise Unable("apt knows no linux-image-amd64; the kernel of the guest is a package of Debian")
        packed = unpacked("boot/vmlinuz-*", package).read_bytes()
        image.write_bytes(payload(packed))
    return image


def payload(packed):
    """The ELF image inside a bzImage."""
    for magic, unpack in ((b"\xfd7zXZ\x00", lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress),
                          (b"\x1f\x8b\x08", gzip.decompress)):
        at = packed.find(magic)
        if at >= 0:
            image = unpack(packed[at:])
            if image.startswith(b"\x7fELF"):
                return image
    raise Unable("the kernel's image is packed in a way that is not known here")


def in_order(names):
    """These modules with all that they need, in an order in which they can be inserted."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in (VM / "lib/modules").rglob("*.ko*")}
    ordered = {}

    def add(name):
        # What is not a module is built in.
        if name in ordered or name not in files:
            return
        module = plain(files[name])
        at = module.find(b"\0depends=") + len(b"\0depends=")
        for needed in module[at:module.index(b"\0", at)].decode().replace("-", "_").split(","):
            add(needed)
        ordered[name] = module

    for name in names:
        add(name)
    return ordered


def plain(module):
    """A module as insmod of busybox takes it."""
    return lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()


BOUNDARIES = {
    "uml-hostfs": Uml,
    "qemu-9p-none": qemu_9p("none"), "qemu-9p-mmap": qemu_9p("mmap"), "qemu-9p-loose": qemu_9p("loose"),
    "virtiofsd-never": qemu_virtiofs("none"), "virtiofsd-auto": qemu_virtiofs("auto"),
    "virtiofsd-always": qemu_virtiofs("always"),
}
