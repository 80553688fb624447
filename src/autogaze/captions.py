"""Words in pictures: the font, and numbers and names as it can draw them."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import cast

from PIL import ImageFont


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which needs no file."""
    return cast("ImageFont.FreeTypeFont", ImageFont.load_default(size_px))


def drawable(words: str) -> str:
    """The words on one line, without accents, and with a question mark for every letter that the font lacks."""
    letters = [letter for letter in unicodedata.normalize("NFKD", words) if not unicodedata.combining(letter)]
    return "".join(letter if _has(letter) else "?" for letter in letters)


def shortened(words: str, *, size_px: int, width_px: int) -> str:
    """As many of the words, from their start, as fit in a width; an ellipsis tells that some are gone."""
    if font(size_px).getlength(words) <= width_px:
        return words
    while words and font(size_px).getlength(f"{words}...") > width_px:
        words = words[:-1]
    return f"{words.rstrip()}..."


def percent(share: float) -> str:
    """A share as text: one decimal, two below one per cent."""
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"


def clock(seconds: float) -> str:
    """A time as minutes, seconds and hundredths; with hours where there are any."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(abs(hundredths), 6000)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if hundredths < 0 else ""
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{sign}{start}:{rest // 100:02d}.{rest % 100:02d}"


def _has(letter: str) -> bool:
    return letter == " " or (letter.isprintable() and _shape(letter) != _shape("\uffff"))


@cache
def _shape(letter: str) -> bytes:
    return bytes(font(16).getmask(letter))
