"""Strangers' text, from checkpoints and other files, as it may reach a terminal or a page."""

from __future__ import annotations


def printable(text: object) -> str:
    """`text` with each character that a terminal or a page might take for a command written as an escape; lines stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))


def short(value: object) -> str:
    """One line of at most 120 characters, all of them printable."""
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= 120 else f"{text[:117]}..."
