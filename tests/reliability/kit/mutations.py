"""Damage to CSV files: bytes as disks and transfers spoil them, and marks that readers stumble over."""

from __future__ import annotations

import random

TOKENS = (
    *(b",", b";", b'"', b"'", b"\n", b"\r", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xc2\xa0", b"\t", b" ", b"-"),
    *(
        b"nan",
        b"NA",
        b"inf",
        b"1e400",
        b"1e31",
        b"1_0",
        b"0x1",
        b"\xd9\xa3",
        b"1,5",
        b"T",
        b"Z",
        b"+01:00",
        b".",
        b"..",
        b"e9",
    ),
    *(
        b"2021-02-30",
        b"20210301",
        b"9999-12-31",
        b"0001-01-01",
        b"00",
        b'""',
        b'","',
        b"#",
        b"\x1a",
        b"\x0b",
        b"\xe2\x80\xa8",
    ),
)


def mutated(content: bytes, moment: random.Random) -> bytes:
    """``content`` after one to three small accidents."""
    for _ in range(moment.choice((1, 1, 1, 2, 3))):
        content = moment.choice(ACCIDENTS)(content, moment)
    return content


def _flip(content: bytes, moment: random.Random) -> bytes:
    place = moment.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << moment.randrange(8))]) + content[place + 1 :]


def _insert(content: bytes, moment: random.Random) -> bytes:
    place = moment.randrange(len(content) + 1)
    return content[:place] + moment.choice(TOKENS) + content[place:]


def _replace(content: bytes, moment: random.Random) -> bytes:
    place = moment.randrange(len(content))
    return content[:place] + moment.choice(TOKENS) + content[place + moment.randrange(1, 4) :]


def _delete(content: bytes, moment: random.Random) -> bytes:
    place = moment.randrange(len(content))
    return content[:place] + content[place + moment.randrange(1, 9) :] or content


def _cut(content: bytes, moment: random.Random) -> bytes:
    return content[: moment.randrange(1, len(content) + 1)]


def _double(content: bytes, moment: random.Random) -> bytes:
    first, last = sorted((moment.randrange(len(content)), moment.randrange(len(content))))
    return content[:last] + content[first:last][:64] + content[last:]


def _swap_lines(content: bytes, moment: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    one, other = moment.randrange(len(lines)), moment.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


ACCIDENTS = (_flip, _insert, _insert, _replace, _replace, _delete, _cut, _double, _swap_lines)
