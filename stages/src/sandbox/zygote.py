"""The fork server: a warm interpreter that forks one restricted child a job.

It reads no job and keeps no timer. The supervisor sends it one byte and two or three descriptors (the job's socket, the
pipe for its output, a link to another server's child or memory shared with the supervisor); it forks, says the child's
pid, waits, and says how the child ended. The child reads its job from its own socket, so that nothing of one candidate
is in memory when the next one is forked. The child stays unreaped until the next command: meanwhile its pid can't be
taken by another process, and the supervisor may kill it.

Jobs may write in the current folder, if there is one for them. What one left is removed before the supervisor hears of
its end; where that fails, the server says so and is replaced.
"""

import _ctypes
import _socket
import builtins
import gc
import os
import resource
import sys

# `random` and `threading` would repair themselves in each child, at a seventh of a small job's time. Nothing is broken: the
# server has one thread, and the child seeds.
register_at_fork, os.register_at_fork = os.register_at_fork, lambda **hooks: None

# What candidates import most; a child that needs more pays for its import.
import ast, bisect, collections, functools, heapq, io, itertools, math, operator, random, re, string, tokenize, typing

JOB, CONTROL, LINK = 3, 4, 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SIGKILL = 1, 4, 38, 22, 2, 9
HEADROOM = 32 << 20  # what a report may need once the candidate has used up its memory


class Long(_ctypes._SimpleCData):
    _type_ = "l"


class Byte(_ctypes._SimpleCData):
    _type_ = "B"


class Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL
    _restype_ = Long


IS_LINUX = sys.platform == "linux"
prctl = Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")) if IS_LINUX else lambda *arguments: 0


def read_frame(descriptor, read=os.read, length=len, number=int.from_bytes):
    """A list of byte strings: a length, then each with its length; all lengths are 32 bits, little endian.

    The other end sends one frame and waits. EOFError if it is gone, ValueError if it sends more."""
    frame, end = b"", 4
    while length(frame) < end:
        part = read(descriptor, max(end, 1 << 16))
        if not part:
            raise EOFError("the other end is closed")
        frame += part
        if length(frame) >= 4:
            end = 4 + number(frame[:4], "little")
    fields, at = [], 4
    while at < end:
        start = at + 4
        at = start + number(frame[at:start], "little")
        fields.append(frame[start:at])
    if at != length(frame):
        raise ValueError("more than a frame")
    return fields


def frame_writer(descriptor, write=os.write, length=len, to_bytes=int.to_bytes, join=b"".join):
    def send(*fields):
        body = join([part for field in fields for part in (to_bytes(length(field), 4, "little"), field)])
        data = to_bytes(length(body), 4, "little") + body
        while data:
            data = data[write(descriptor, data) :]

    return send


def buffer_of(data):
    return (Byte * len(data)).from_buffer_copy(data)


def limit_resources(memory_bytes, file_bytes):
    for name, soft, hard in (
        ("RLIMIT_AS", memory_bytes, memory_bytes + HEADROOM),
        ("RLIMIT_FSIZE", file_bytes, file_bytes),
        ("RLIMIT_NOFILE", 64, 64),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_STACK", 8 << 20, 8 << 20),
        ("RLIMIT_MSGQUEUE", 0, 0),
        ("RLIMIT_MEMLOCK", 0, 0),
    ):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        try:
            resource.setrlimit(kind, (soft, hard))
        except ValueError:
            if IS_LINUX:  # macOS refuses a limit of memory
                raise


def look_at(folder):
    """What changes when something in it, or it itself, is changed; its size counts its entries."""
    found = os.stat(folder)
    return found.st_mode, found.st_size, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns


def empty(folder, mode):
    """Removes all that is in it; whether it is as it was made."""
    folders = [folder]
    try:
        for place in folders:
            if place is not folder:
                os.chmod(place, 0o700)
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)
        for place in reversed(folders[1:]):
            os.rmdir(place)
        os.utime(folder)
        return os.stat(folder).st_mode == mode and not os.listdir(folder)
    except OSError:  # a path longer than the kernel takes, say
        return False


def warm_up(modules):
    for module in modules:
        try:
            __import__(module)
        except BaseException as error:
            text = type(error).__name__ + ": " + str(error)
            frame_writer(JOB)(b"warm", module.encode(), text.encode("utf-8", "backslashreplace"))
            raise SystemExit(1)


def serve():
    os.dup2(0, CONTROL)
    os.dup2(1, JOB)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > CONTROL:
        os.close(null)
    prctl(PR_SET_PDEATHSIG, Long(SIGKILL), Long(0), Long(0), Long(0))
    prctl(PR_SET_NO_NEW_PRIVS, Long(1), Long(0), Long(0), Long(0))
    prctl(PR_SET_DUMPABLE, Long(0), Long(0), Long(0), Long(0))  # no process of the same user may look into it
    memory_bytes, scratch, scratch_bytes, packages, warm, filters, *scripts = read_frame(JOB)
    if scratch:
        os.chdir(scratch)
    limit_resources(int(memory_bytes), int(scratch_bytes))
    if packages:
        sys.path.append(os.fsdecode(packages))
    programs, keep = [], []
    while filters:
        count = int.from_bytes(filters[:2], "little")
        instructions = buffer_of(filters[2 : 2 + 8 * count])
        address = _ctypes.addressof(instructions).to_bytes(8, sys.byteorder)
        program = buffer_of(count.to_bytes(2, sys.byteorder) + bytes(6) + address)
        keep.append(instructions)
        programs.append(program)
        filters = filters[2 + 8 * count :]
    addresses = [Long(_ctypes.addressof(program)) for program in programs]
    runners = {b"frames": {"read": lambda: read_frame(LINK), "send": frame_writer(LINK), "LINK": LINK}}
    own = dict(vars(builtins))  # a program that replaces `len` replaces it for itself
    for name, source in zip(scripts[::2], scripts[1::2]):
        space = {"__name__": "tracetune_" + name.decode(), "shared": runners, "__builtins__": own}
        exec(compile(source, "<tracetune " + name.decode() + ">", "exec", dont_inherit=True), space)
        runners[name] = space
    os.register_at_fork = register_at_fork
    warm_up(warm.decode().split())
    if scratch:
        empty(scratch, 0)
        fresh = look_at(scratch)
    seeds = [random.seed]
    if "numpy.random" in sys.modules:
        seeds.append(sys.modules["numpy.random"].seed)
    frame_writer(JOB)(b"ready")
    os.close(JOB)
    control = _socket.socket(fileno=CONTROL)
    gc.collect()
    gc.freeze()
    gc.disable()
    previous = 0
    while True:
        command, ancillary, _, _ = control.recvmsg(1, 64)
        if previous:
            os.waitpid(previous, 0)
        if not command:
            return
        descriptors = memoryview(ancillary[0][2]).cast("i").tolist()
        previous = os.fork()
        if not previous:
            child(descriptors, addresses, runners, seeds)
        control.sendall(b"P" + previous.to_bytes(8, "little"))
        for descriptor in descriptors:
            os.close(descriptor)
        if IS_LINUX:
            info = os.waitid(os.P_PID, previous, os.WEXITED | os.WNOWAIT)
            exited, status = info.si_code == os.CLD_EXITED, info.si_status
        else:  # can't wait without reaping
            status = os.waitstatus_to_exitcode(os.waitpid(previous, 0)[1])
            previous, exited, status = 0, status >= 0, abs(status)
        letter = b"X" if exited else b"S"
        if scratch and look_at(scratch) != fresh:
            letter = letter if empty(scratch, fresh[0]) else letter.lower()
            fresh = look_at(scratch)
        control.sendall(letter + status.to_bytes(8, "little"))


def child(descriptors, filters, runners, seeds):
    leave = os._exit
    try:
        job, output, *link = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(job, JOB)
        for descriptor in link:
            os.dup2(descriptor, LINK)
        os.closerange(LINK + len(link), 64)
        prctl(PR_SET_PDEATHSIG, Long(SIGKILL), Long(0), Long(0), Long(0))
        runner, cpu_limit_s, *fields = read_frame(JOB)
        cpu_limit_s = int(cpu_limit_s)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit_s, cpu_limit_s + 1))
        for program in filters:
            if prctl(PR_SET_SECCOMP, Long(SECCOMP_MODE_FILTER), program, Long(0), Long(0)):
                leave(98)
        for seed in seeds:
            seed(0)
        gc.enable()
        runners[runner]["run"](fields, frame_writer(JOB))
        leave(0)
    finally:
        leave(99)


serve()
