"""Does many things in a directory and prints what came of each: the same on a view and behind it.

usage: probe.py DIRECTORY (as root). One line for each thing: its name, and the result or the errno.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
ROOT = sys.argv[1]
USER, GROUP, OTHER, TEAM = 65534, 65533, 777, 100
CAPS = bytes.fromhex("01000002" + "00040000" + "00" * 12)


def tell(name, act):
    try:
        result = act()
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(f"{name}: {result}", flush=True)


def as_user(act, uid=USER, gid=GROUP, groups=()):
    """What `act` comes to in a process of somebody else."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(list(groups))
        os.setgid(gid)
        os.setuid(uid)
        try:
            result = repr(act())
        except OSError as error:
            result = errno.errorcode[error.errno]
        os.write(write, result.encode())
        os._exit(0)
    os.close(write)
    result = os.read(read, 65536).decode()
    os.close(read)
    os.waitpid(child, 0)
    return result


def as_root(act):
    return act()


def as_staff(act):
    """The same for root in another group."""
    return as_user(act, 0, GROUP)


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def fresh(name, mode=0o644, data=b"x" * 100):
    if os.path.lexists(name):
        os.unlink(name)
    file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(file, data)
    os.close(file)
    os.chmod(name, mode)


def look(name):
    found = os.lstat(name)
    size = found.st_size if stat.S_ISREG(found.st_mode) else "-"
    return oct(found.st_mode), found.st_uid, found.st_gid, size, found.st_nlink


def content(name):
    with open(name, "rb") as file:
        return file.read(300)


def store(name):
    file = os.open(name, os.O_RDWR)
    with mmap.mmap(file, 100) as page:
        page[0] = 65
        page.flush()
    os.close(file)


def setid_bits():
    def copy():
        return os.copy_file_range(os.open("source", os.O_RDONLY), os.open("s", os.O_WRONLY), 50)

    fresh("source")
    changes = {
        "write": lambda: os.write(os.open("s", os.O_WRONLY), b"y"),
        "truncate": lambda: os.truncate("s", 10),
        "O_TRUNC": lambda: os.close(os.open("s", os.O_WRONLY | os.O_TRUNC)),
        "ftruncate": lambda: os.ftruncate(os.open("s", os.O_WRONLY), 5),
        "fallocate": lambda: os.posix_fallocate(os.open("s", os.O_WRONLY), 0, 5000),
        "copy_file_range": copy,
        "store": lambda: store("s"),
        "read": lambda: os.read(os.open("s", os.O_RDONLY), 3),
        "chown to nobody": lambda: os.chown("s", -1, -1),
    }
    for mode in (0o4777, 0o2777, 0o6777, 0o2767):
        for who in (as_root, as_staff, as_user):
            for name, change in changes.items():
                fresh("s", mode)
                result = who(change)
                tell(f"{oct(mode)} {who.__name__} {name}", lambda: (result, look("s")))
            fresh("s", mode)
            os.chown("s", USER, TEAM)
            os.chmod("s", mode)
            result = who(lambda: os.chown("s", -1, GROUP))
            tell(f"{oct(mode)} {who.__name__} chown", lambda: (result, look("s")))


def setid_while_open():
    def given():
        fresh("s", 0o666)
        first = os.open("s", os.O_RDWR)
        os.chmod("s", 0o4777)
        result = as_user(lambda: os.pwrite(os.open("s", os.O_RDWR), b"k", 3))
        return result, os.pread(first, 5, 0), look("s")

    def taken():
        fresh("s", 0o4777)
        first = os.open("s", os.O_RDWR)
        os.pwrite(first, b"a", 0)
        os.chmod("s", 0o666)
        second = os.open("s", os.O_RDWR)
        os.pwrite(second, b"b", 1)
        page = mmap.mmap(first, 100)
        page[2] = 65
        third = os.open("s", os.O_RDWR)
        os.pwrite(first, b"c", 3)
        page[4] = 66
        return [os.pread(file, 8, 0) for file in (first, second, third)], page[:8]

    tell("set-id bit given while open", given)
    tell("set-id bit taken while open", taken)


def capabilities():
    def after(change):
        fresh("c", 0o755)
        os.setxattr("c", "security.capability", CAPS)
        before = os.getxattr("c", "security.capability") == CAPS
        change()
        return before, os.listxattr("c")

    tell("capabilities and write", lambda: after(lambda: os.write(os.open("c", os.O_RDWR), b"z")))
    tell("capabilities and truncate", lambda: after(lambda: os.truncate("c", 3)))
    tell("capabilities and chown", lambda: after(lambda: os.chown("c", 3, 3)))
    tell("capabilities and read", lambda: after(lambda: content("c")))


def extended_attributes():
    fresh("x")
    tell("set trusted", lambda: os.setxattr("x", "trusted.t", b"1"))
    tell("set user", lambda: os.setxattr("x", "user.t", b"12345"))
    size = lambda: call(libc.getxattr(b"x", b"user.t", None, 0))
    tell("size of a value", size)
    tell("size of the names", lambda: call(libc.listxattr(b"x", None, 0)))
    small = ctypes.create_string_buffer(2)
    tell("too small for a value", lambda: call(libc.getxattr(b"x", b"user.t", small, 2)))
    tell("too small for the names", lambda: call(libc.listxattr(b"x", small, 2)))
    tell("names for root", lambda: sorted(os.listxattr("x")))
    tell("names for a user", lambda: as_user(lambda: os.listxattr("x")))
    tell("names for root of another group", lambda: as_staff(lambda: os.listxattr("x")))
    tell("trusted for a user", lambda: as_user(lambda: os.getxattr("x", "trusted.t")))
    tell("create", lambda: os.setxattr("x", "user.t", b"2", os.XATTR_CREATE))
    tell("replace", lambda: os.setxattr("x", "user.m", b"2", os.XATTR_REPLACE))
    tell("unknown namespace", lambda: os.setxattr("x", "foo.m", b"2"))
    tell("empty value", lambda: (os.setxattr("x", "user.e", b""), os.getxattr("x", "user.e")))
    tell("large value", lambda: os.setxattr("x", "user.b", b"k" * 5000))
    tell("long name", lambda: os.setxattr("x", "user." + "n" * 255, b"k"))
    os.symlink("x", "sx")
    tell("user on a symlink", lambda: os.setxattr("sx", "user.t", b"1", follow_symlinks=False))
    tell("remove", lambda: (os.removexattr("x", "user.t"), sorted(os.listxattr("x"))))


def acl(*entries):
    tags = {"u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32}
    packed = (struct.pack("<HHI", tags[tag], bits, who) for tag, who, bits in entries)
    return struct.pack("<I", 2) + b"".join(packed)


NOBODY = 0xFFFFFFFF
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def access_control_lists():
    u, g, m, o = ((lambda bits, tag=tag: (tag, NOBODY, bits)) for tag in "ugmo")
    fresh("a")
    tell("no ACL", lambda: os.getxattr("a", ACCESS))
    os.setxattr("a", ACCESS, acl(u(6), ("U", USER, 6), g(0), m(6), o(0)))
    tell("ACL and mode", lambda: look("a"))
    tell("an ACL lets in", lambda: as_user(lambda: os.read(os.open("a", os.O_RDWR), 3)))
    tell("an ACL keeps out", lambda: as_user(lambda: os.open("a", os.O_RDONLY), OTHER, 0))
    tell("access with an ACL", lambda: as_user(lambda: os.access("a", os.R_OK)))
    tell("chmod with an ACL", lambda: (os.chmod("a", 0o600), os.getxattr("a", ACCESS).hex()))
    tell("a default ACL on a file", lambda: os.setxattr("a", DEFAULT, acl(u(7), g(7), o(0))))
    tell("no ACL at all", lambda: os.setxattr("a", ACCESS, b"\2\0\0\0abc"))
    tell("an ACL by a stranger", lambda: as_user(lambda: os.setxattr("a", ACCESS, acl(u(7), g(5), o(5)))))
    os.mkdir("ad")
    os.chmod("ad", 0o777)
    os.setxattr("ad", DEFAULT, acl(u(7), ("U", USER, 7), g(7), m(7), o(0)))
    for umask in (0o022, 0o077):
        os.umask(umask)
        for who in (as_root, as_staff, as_user):
            name = f"ad/{umask}{who.__name__}"
            who(lambda: os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o666)))
            who(lambda: os.mkdir(name + "d", 0o777))
            who(lambda: os.mknod(name + "p", 0o666 | stat.S_IFIFO))
            for made in (name, name + "d", name + "p"):
                tell(f"inherited {made}", lambda: (look(made), os.getxattr(made, ACCESS).hex()))
        os.umask(0o022)
    for groups in ((), (TEAM,)):
        fresh("ag")
        os.chown("ag", USER, TEAM)
        os.chmod("ag", 0o2750)
        change = lambda: os.setxattr("ag", ACCESS, acl(u(7), g(5), o(5)))
        tell(f"setgid, ACL, groups {groups}", lambda: (as_user(change, groups=groups), look("ag")))


def new_files():
    os.mkdir("sg")
    os.chown("sg", 0, TEAM)
    os.chmod("sg", 0o2777)
    for groups in ((), (TEAM,)):
        kinds = {
            "f": lambda name: os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o2775)),
            "p": lambda name: os.mknod(name, 0o2775 | stat.S_IFIFO),
            "d": lambda name: os.mkdir(name, 0o755),
            "l": lambda name: os.symlink("f", name),
        }
        for kind, make in kinds.items():
            name = f"sg/{kind}{len(groups)}"
            tell(f"setgid {name}", lambda: (as_user(lambda: make(name), groups=groups), look(name)))
    tell("device by a user", lambda: as_user(lambda: os.mknod("sg/c", 0o666 | stat.S_IFCHR, 259)))
    os.symlink("made", "dangling")
    create = os.O_CREAT | os.O_RDWR
    tell("through a dangling link", lambda: (os.close(os.open("dangling", create, 0o600)), look("made")))
    tell("exclusive", lambda: os.open("made", create | os.O_EXCL))
    tell("a directory", lambda: os.open("sg", create))
    os.mkdir("st")
    os.chmod("st", 0o1777)
    fresh("st/f", 0o666)
    tell("sticky unlink", lambda: as_user(lambda: os.unlink("st/f")))
    tell("sticky rename", lambda: as_user(lambda: os.rename("st/f", "st/g")))
    fresh("team", 0o660)
    os.chown("team", 0, TEAM)
    tell("not in the group", lambda: as_user(lambda: os.open("team", os.O_RDWR)))
    tell("in the group", lambda: as_user(lambda: os.open("team", os.O_RDWR) > 0, groups=(TEAM,)))


def appending():
    def both():
        fresh("ap", data=b"abc")
        one, two = (os.open("ap", os.O_WRONLY | os.O_APPEND) for _ in range(2))
        for file, data in ((one, b"1"), (two, b"2"), (one, b"3")):
            os.write(file, data)
        os.pwrite(one, b"4", 0)
        return content("ap"), os.lseek(one, 0, os.SEEK_CUR)

    def begun():
        fresh("ap", data=b"abcdef")
        file = os.open("ap", os.O_WRONLY)
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
        os.write(file, b"1")
        fcntl.fcntl(file, fcntl.F_SETFL, 0)
        os.pwrite(file, b"Z", 0)
        return content("ap")

    def ended():
        fresh("ap", data=b"abcdef")
        file = os.open("ap", os.O_WRONLY | os.O_APPEND)
        fcntl.fcntl(file, fcntl.F_SETFL, 0)
        os.pwrite(file, b"Z", 0)
        return content("ap")

    tell("append", both)
    tell("append begun later", begun)
    tell("append ended later", ended)


def special_files():
    shutil.copy("/usr/bin/id", "id")
    os.chmod("id", 0o4755)
    run = lambda: subprocess.run([f"{ROOT}/id", "-u"], capture_output=True, text=True).stdout
    tell("a setuid program", lambda: as_user(run))
    tell("write a program", lambda: os.write(os.open("id", os.O_WRONLY), b"\x7f"))
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    tell("a device", lambda: (os.stat("null").st_rdev, os.write(os.open("null", os.O_RDWR), b"abc")))
    os.mknod("block", 0o600 | stat.S_IFBLK, os.makedev(0xABC, 0x12345))
    tell("a large device number", lambda: os.stat("block").st_rdev)
    os.mkfifo("fifo")
    tell("a FIFO", lambda: os.open("fifo", os.O_RDONLY | os.O_NONBLOCK) > 0)
    server, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
    server.bind("socket")
    server.listen()
    tell("a socket", lambda: (client.connect("socket"), look("socket")))
    os.mknod("plain", 0o4666 | stat.S_IFREG)
    tell("a file by mknod", lambda: look("plain"))
    flags = struct.Struct("I")
    ioctl = lambda: fcntl.ioctl(os.open("plain", os.O_RDONLY), 0x80086601, bytes(4))
    tell("inode flags", lambda: flags.unpack(ioctl()))
    tell("unknown ioctl", lambda: fcntl.ioctl(os.open("plain", os.O_RDONLY), 0x1234))


def times():
    fresh("t", 0o666)
    now, omit = (1 << 30) - 1, (1 << 30) - 2

    class Time(ctypes.Structure):
        _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    def change(name, atime, mtime, flags=0):
        pair = (Time * 2)(Time(*atime), Time(*mtime))
        call(libc.utimensat(-100, name.encode(), pair, flags))

    def seen(name):
        found = os.lstat(name)
        return found.st_atime_ns, found.st_mtime_ns

    for pair in ((0, 0), (1, 999999999), (-1, -1), (-1500000000, -999999999), (-2 * 10**9, 2**33 * 10**9 + 7)):
        tell(f"times {pair}", lambda: (os.utime("t", ns=pair), seen("t")))
    os.utime("t", ns=(5, 6))
    tell("omit atime", lambda: (change("t", (0, omit), (9, 8)), seen("t")))
    tell("omit mtime", lambda: (change("t", (3, 2), (0, omit)), seen("t")))
    tell("now", lambda: (change("t", (0, now), (7, 7)), seen("t")[0] > 10**18, seen("t")[1]))
    tell("no nanoseconds", lambda: change("t", (3, 10**9), (7, 7)))
    tell("by a stranger", lambda: as_user(lambda: change("t", (3, 2), (7, 7))))
    tell("now by a stranger", lambda: as_user(lambda: change("t", (0, now), (0, now))))
    os.symlink("t", "ts")
    tell("of a symlink", lambda: (change("ts", (3, 2), (7, 7), 0x100), seen("ts")))


def touched():
    fresh("k", 0o666, b"v" * 9000)
    file = os.open("k", os.O_RDWR)
    os.mkdir("kd")
    changes = {
        "chmod": lambda: os.chmod("k", 0o600),
        "write": lambda: os.write(file, b"x"),
        "empty write": lambda: os.write(file, b""),
        "truncate to another size": lambda: os.truncate("k", 8000),
        "fallocate": lambda: os.posix_fallocate(file, 0, 20000),
        "link": lambda: os.link("k", "k2"),
        "unlink": lambda: os.unlink("k2"),
        "setxattr": lambda: os.setxattr("k", "user.a", b"1"),
        "O_TRUNC": lambda: os.close(os.open("k", os.O_WRONLY | os.O_TRUNC)),
        "create in kd": lambda: os.close(os.open("kd/a", os.O_CREAT | os.O_RDWR)),
        "unlink in kd": lambda: os.unlink("kd/a"),
    }
    for name, change in changes.items():
        before = {path: os.stat(path) for path in ("k", "kd")}
        # Longer than the clock of the file system takes to go on.
        time.sleep(0.02)
        change()
        after = {path: os.stat(path) for path in ("k", "kd")}
        fields = [
            (path, field)
            for path in before
            for field in ("st_mtime_ns", "st_ctime_ns")
            if getattr(before[path], field) != getattr(after[path], field)
        ]
        tell(f"touched by {name}", lambda: fields)


def space():
    def allocate(mode, offset, length):
        fresh("fa", data=b"w" * 65536)
        file = os.open("fa", os.O_RDWR)
        call(libc.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length)))
        return os.fstat(file).st_size, os.pread(file, 1 << 20, 0).count(b"\0")

    for mode in (0, 1, 2, 3, 0x10, 0x11, 0x40, 0x80):
        for offset, length in ((4096, 8192), (100, 5000), (65536, 4096), (0, 0), (-1, 5)):
            tell(f"fallocate {mode:#x} {offset} {length}", lambda: allocate(mode, offset, length))
    file = os.open("sparse", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(file, 1 << 20)
    os.pwrite(file, b"d" * 4096, 65536)
    os.fsync(file)
    for offset in (0, 65536, 65537, 70000, 1 << 20, 1 << 21, -1):
        tell(f"data from {offset}", lambda: os.lseek(file, offset, os.SEEK_DATA))
        tell(f"hole from {offset}", lambda: os.lseek(file, offset, os.SEEK_HOLE))

    def copy(count, source, target, mode=os.O_WRONLY):
        fresh("c1", data=bytes(range(256)) * 40)
        fresh("c2", data=b"t" * 100)
        files = os.open("c1", os.O_RDONLY), os.open("c2", mode)
        return os.copy_file_range(*files, count, source, target), content("c2")

    tell("copy", lambda: copy(200, 10, 50))
    tell("copy to an appender", lambda: copy(20, 0, 0, os.O_WRONLY | os.O_APPEND))
    tell("copy to a reader", lambda: copy(20, 0, 0, os.O_RDONLY))
    tell("copy from behind the end", lambda: copy(20, 99999, 0))
    file = os.open("big", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(file, b"end", 5 << 30)
    tell("5 GiB", lambda: (os.pread(file, 5, (5 << 30) - 1), os.fstat(file).st_size))
    tell("too large", lambda: os.truncate("big", 1 << 60))
    os.unlink("big")


def names():
    odd = b"\xff\xfe" * 127 + b"\x80"
    create = os.O_CREAT | os.O_RDWR
    tell("255 bytes", lambda: (os.close(os.open(odd, create)), odd in os.listdir(b"."), os.unlink(odd)))
    tell("256 bytes", lambda: os.open(b"n" * 256, create))
    tell("newline", lambda: (os.mkdir("a\nb\\ "), "a\nb\\ " in os.listdir("."), os.rmdir("a\nb\\ ")))
    os.symlink("t" * 4095, "long")
    tell("long symlink", lambda: (len(os.readlink("long")), os.lstat("long").st_size))
    tell("too long symlink", lambda: os.symlink("t" * 4096, "longer"))
    os.symlink("loop", "loop")
    tell("loop", lambda: os.stat("loop"))
    tell("chown of a symlink", lambda: (os.lchown("loop", 5, 6), look("loop")))
    fresh("r1")
    os.mkdir("rd")
    move = lambda old, new, flags: call(libc.renameat2(-100, old, -100, new, flags))
    tell("exchange", lambda: (move(b"r1", b"rd", 2), os.path.isdir("r1"), move(b"r1", b"rd", 2)))
    tell("whiteout", lambda: (move(b"r1", b"r2", 4), oct(os.lstat("r1").st_mode)))
    tell("unknown flag", lambda: move(b"r2", b"r3", 8))
    tell("exclusive exchange", lambda: move(b"r2", b"r3", 3))
    tell("into itself", lambda: os.rename("rd", "rd/x"))
    tell("directory over file", lambda: os.rename("rd", "r2"))
    tell("link of a directory", lambda: os.link("rd", "rd2"))
    tell("link of a symlink", lambda: (os.link("loop", "loop2", follow_symlinks=False), look("loop2")))

    def unlinked():
        file = os.open("u", create, 0o644)
        os.unlink("u")
        os.write(file, b"abc")
        os.ftruncate(file, 2)
        os.fchmod(file, 0o600)
        os.fchown(file, 3, 4)
        os.setxattr(file, "user.q", b"1")
        found = os.fstat(file)
        again = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
        return found.st_nlink, found.st_size, found.st_uid, os.getxattr(file, "user.q"), os.read(again, 9)

    def renamed_over():
        fresh("old", data=b"old")
        fresh("new", data=b"new")
        file = os.open("old", os.O_RDWR)
        os.rename("new", "old")
        os.pwrite(file, b"OLD", 0)
        return os.pread(file, 9, 0), content("old"), os.fstat(file).st_nlink

    def removed_directory():
        os.mkdir("gone")
        directory = os.open("gone", os.O_RDONLY)
        os.rmdir("gone")
        return os.listdir(directory), os.open("x", create, dir_fd=directory)

    tell("unlinked and open", unlinked)
    tell("renamed over and open", renamed_over)
    tell("removed and open", removed_directory)
    fs = os.statvfs(".")
    tell("statvfs", lambda: (fs.f_bsize, fs.f_frsize, fs.f_blocks, fs.f_files, fs.f_namemax, fs.f_flag))


def memory():
    fresh("m", data=b"0123456789" * 1000)
    map_ = lambda mode, **how: mmap.mmap(os.open("m", mode), 100, **how)
    tell("to run", lambda: map_(os.O_RDONLY, prot=mmap.PROT_READ | mmap.PROT_EXEC)[:3])
    tell("shared, not readable", lambda: map_(os.O_WRONLY))
    tell("shared, not writable", lambda: map_(os.O_RDONLY))

    def private():
        page = map_(os.O_RDONLY, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        page[0] = 90
        return page[:3], content("m")[:3]

    tell("private", private)
    send = lambda: os.sendfile(os.open("m2", os.O_CREAT | os.O_WRONLY), os.open("m", os.O_RDONLY), 0, 500)
    tell("sendfile", send)
    direct = os.open("m3", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    block = mmap.mmap(-1, 8192)
    tell("O_DIRECT", lambda: (os.pwritev(direct, [block], 0), os.preadv(direct, [block], 4096)))


os.chdir(ROOT)
os.umask(0o022)
for part in (
    setid_bits, setid_while_open, capabilities, extended_attributes, access_control_lists,
    new_files, appending, special_files, times, touched, space, names, memory,
):
    part()
