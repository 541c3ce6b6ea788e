"""The text of a query: its words, its limits, and errors that point at a position.

A query comes from users, scripts and configuration files, so its text is checked against an
allow-list of words before Python's own parser sees it. That also keeps that parser away from
inputs on which it warns, recurses deeply or backtracks.
"""

from __future__ import annotations

import difflib
import keyword
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from verse_data.errors import QueryRefused

MAX_LENGTH: Final = 4000
"""Characters of a query: a list of all 160 series of VerSe'19 fits."""

MAX_NODES: Final = 400
"""Columns, values and conditions of a query, counted after definitions are put in."""

MAX_DEPTH: Final = 20
"""Brackets open at once, and ``not`` or ``-`` in a row."""

WORDS: Final = frozenset({"and", "or", "not", "in", "True", "False"})

_INSTEAD: Final = {
    **dict.fromkeys(["===", "="], "Write == to compare."),
    **dict.fromkeys(["!==", "<>", "=!", "\u2260"], "Write !=."),
    **dict.fromkeys(["=>", "> =", "\u2265"], "Write >=."),
    **dict.fromkeys(["=<", "< =", "\u2264"], "Write <=."),
    **dict.fromkeys(["&&", "&"], "Write and."),
    **dict.fromkeys(["||", "|"], "Write or."),
    "~": "Write not.",
    "!": "Write not, or != to compare.",
    "#": "A query has no comments.",
    "\\": "Texts in a query have no escapes.",
}
"""What other languages say, and what is meant."""

_ELSEWHERE: Final = re.compile(
    "|".join(
        re.escape(sign) + ("(?!=)" if sign in {"!", "="} else "")  # not the start of != and ==
        for sign in sorted(_INSTEAD, key=len, reverse=True)
    )
)
_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<string>'[^'\\\r\n]*'|"[^"\\\r\n]*")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<operator>[=!<>]=|[<>()\[\],-])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a query."""

    start: int
    end: int


class QueryText:
    """The text of one query.

    Parameters
    ----------
    text : str
        As the user wrote it. Line breaks and tabs count as blanks.

    Raises
    ------
    QueryRefused
        If it is empty, too long, too deeply nested, or holds anything but the words of the
        query language.
    """

    def __init__(self, text: object) -> None:
        if not isinstance(text, str):
            message = f"A query is a text such as 'grade >= 2', not {type(text).__name__}."
            raise QueryRefused(message)
        self.text = text
        if len(text) > MAX_LENGTH:
            message = (
                f"The query has {len(text):,} characters; the limit is {MAX_LENGTH:,}. "
                f"Select in two steps, or filter the table that comes back."
            )
            raise QueryRefused(message)
        if not text.strip():
            message = "The query is empty. Leave it out to select every row, or write a condition such as 'grade >= 2'."
            raise QueryRefused(message)
        self._check_words()
        # From here on one line, with each blank where one was: positions stay the user's.
        self.text = re.sub(r"[\t\r\n]", " ", text)

    def refuse(self, span: Span, problem: str) -> NoReturn:
        """Raise :class:`QueryRefused` with `problem` and a line that points at `span`."""
        # What is not printable could steer the terminal that shows the error.
        line = re.sub(r"[\t\r\n]", " ", self.text)
        shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
        first, last = max(span.start - 60, 0), min(span.end + 60, len(shown))
        caret = " " * (span.start - first) + "^" * max(min(span.end, last) - span.start, 1)
        message = (
            f"Query refused at character {span.start + 1}: {problem}\n"
            f"    {shown[first:last]}\n    {caret}"
        )
        raise QueryRefused(message)

    def _check_words(self) -> None:
        place, depth, run, before = 0, 0, 0, ""
        while place < len(self.text):
            if sign := _ELSEWHERE.match(self.text, place):
                problem = (
                    f"{sign.group()!r} is not part of the query language. {_INSTEAD[sign.group()]}"
                )
                self.refuse(Span(*sign.span()), problem)
            match = _TOKEN.match(self.text, place)
            if match is None:
                self._refuse_character(place)
            kind, word, span = str(match.lastgroup), match.group(), Span(*match.span())
            place = match.end()
            if kind == "blank":
                continue
            self._check_word(kind, word, span, before)
            depth += (word in {"(", "["}) - (word in {")", "]"})
            run = run + 1 if word in {"not", "-"} else 0
            if depth > MAX_DEPTH or run > MAX_DEPTH:
                self.refuse(span, f"more than {MAX_DEPTH} levels of nesting.")
            before = kind

    def _check_word(self, kind: str, word: str, span: Span, before: str) -> None:
        after = self.text[span.end : span.end + 1]
        if kind == "number" and (after.isalnum() or after in {"_", "."}) and after:
            self.refuse(span, "a number that runs on into letters; texts stand in quotes.")
        if kind == "name" and after in {"'", '"'} and after:
            self.refuse(span, f"{word!r} stands before a text; write the text alone, in quotes.")
        if kind == "string" and not word.isprintable():
            self.refuse(span, "a text with characters that cannot be printed.")
        if kind == before == "string":
            self.refuse(span, "two texts without a comma between them.")
        if kind == "name" and word.lower() in WORDS - {"True", "False"} and word not in WORDS:
            self.refuse(span, f"write {word.lower()} in small letters.")
        if kind == "name" and word in {"None", "is"}:
            self.refuse(span, "write missing(column) to ask whether a value is missing.")
        if kind == "name" and keyword.iskeyword(word) and word not in WORDS:
            self.refuse(span, f"{word!r} is not a word of the query language.")

    def _refuse_character(self, place: int) -> NoReturn:
        character = self.text[place]
        span = Span(place, place + 1)
        if character in {"'", '"'}:
            self.refuse(
                Span(place, len(self.text)), "a text that does not end, or has a backslash."
            )
        if not character.isascii():
            name = unicodedata.name(character, "unnamed")
            problem = (
                f"U+{ord(character):04X} ({name}) outside quotes. Names are written in plain "
                f"ASCII letters; look-alikes of other alphabets are not the same name."
            )
            self.refuse(span, problem)
        problem = (
            f"{character!r} is not part of the query language. The words are columns, values, "
            f"== != < <= > >=, in, and, or, not, ( ), [ ] and missing()."
        )
        self.refuse(span, problem)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean …? "`` for the nearest of the `known` names, or nothing."""
    folded = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[found[0]]}? " if found else ""
