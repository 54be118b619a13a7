"""What the programs of ci/foreign/ in Python share: the messages, and the checks with their names."""

import random
import sys
import threading
import traceback

WAIT_S = 30
CROWD = 41
# Around the bounds of a frame's three lengths, and a large one.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]
LETTERS = "aé漢🎉"

CHECKS = []


def text_of(size):
    """So many bytes of UTF-8, with characters of each length."""
    text = LETTERS * (size // len(LETTERS.encode()))
    return text + "z" * (size - len(text.encode()))


def messages():
    """Each size as text and as bytes."""
    for size in SIZES:
        yield text_of(size)
        yield random.randbytes(size)


def fragments_of(message, count=100):
    """A message in so many pieces, some of them empty."""
    step = max(1, len(message) // (count - 1))
    pieces = [message[at : at + step] for at in range(0, len(message), step)]
    return pieces[:1] + [message[:0]] + pieces[1:]


def same(found, expected, of=""):
    if found != expected or type(found) is not type(expected):
        raise AssertionError(f"{of}: {short(found)}, not {short(expected)}")


def short(value):
    said = repr(value)
    return said if len(said) < 80 else f"{said[:60]}... of {len(value)}"


def check(function):
    CHECKS.append(function)
    return function


def crowd(act):
    """So many at once; what one of them raises is raised."""
    raised = []

    def one():
        try:
            act()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=one) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def run_checks(*arguments):
    """Runs all, says which fail, and exits accordingly."""
    failed = 0
    for function in CHECKS:
        try:
            function(*arguments)
        except Exception:
            failed += 1
            print(f"DIFFERS: {function.__name__}")
            traceback.print_exc(limit=-2, file=sys.stdout)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    sys.exit(1 if failed else 0)
