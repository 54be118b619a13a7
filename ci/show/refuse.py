"""Runs a command in which io_uring_setup fails with a chosen error, as sandboxes make it.

    refuse.py EPERM|ENOSYS COMMAND...

Installs a seccomp filter on itself and becomes the command. Standard library only, Linux only.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
BPF_LOAD_WORD_ABSOLUTE, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
IO_URING_SETUP = 425  # the same on x86_64 and aarch64
OFFSET_OF_NUMBER = 0  # in struct seccomp_data


def instruction(code, jump_true, jump_false, constant):
    return struct.pack("HBBI", code, jump_true, jump_false, constant)


def main():
    if len(sys.argv) < 3 or not hasattr(errno, sys.argv[1]):
        sys.exit(__doc__)
    if platform.machine() not in ("x86_64", "aarch64"):
        sys.exit(f"refuse.py knows no system call numbers of {platform.machine()}")
    program = b"".join([
        instruction(BPF_LOAD_WORD_ABSOLUTE, 0, 0, OFFSET_OF_NUMBER),
        instruction(BPF_JUMP_EQUAL, 0, 1, IO_URING_SETUP),
        instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | getattr(errno, sys.argv[1])),
        instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ])
    instructions = ctypes.create_string_buffer(program)
    header = struct.pack("HL", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header), 0, 0),
    ]:
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


main()
