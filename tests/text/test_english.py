"""How English sentences are read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.text.english import read_english
from cosyvoice_core.text.english_words import cardinal, ordinal, quantity, year
from cosyvoice_core.text.frontend import TextFrontEnd


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234", "one thousand two hundred thirty-four"),
        ("3.14", "three point one four"),
        ("0.05", "zero point zero five"),
        (".5", "zero point five"),
        ("007", "zero zero seven"),
        ("12345678901234567", "one two three four five six seven eight nine zero one two three four five six seven"),
        ("1st, 22nd and 103rd", "first, twenty-second and one hundred third"),
        ("1/2, 3/4 and 2 1/3", "one half, three quarters and two and a third"),
        ("24/7", "twenty-four seven"),
        ("50%", "fifty percent"),
        ("-5°C", "minus five degrees Celsius"),
        ("10km at 65 mph", "ten kilometers at sixty-five miles per hour"),
        ("1 kg", "one kilogram"),
        ("100-200 people", "one hundred to two hundred people"),
        ("5'10\"", "five foot ten"),
        ("2^10", "two to the power of ten"),
        ("3+5=8", "three plus five equals eight"),
        ("10 - 3 = 7", "ten minus three equals seven"),
        ("x² plus y³", "x squared plus y cubed"),
        ("1e-5", "one times ten to the minus five"),
        ("A4, B2B, COVID-19 and a 3-year-old", "A four, B two B, COVID nineteen and a three-year-old"),
        ("#1 and No. 5", "number one and number five"),
        ("1920x1080", "one thousand nine hundred twenty by one thousand eighty"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert read_english(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$5.20", "five dollars and twenty cents"),
        ("$1", "one dollar"),
        ("$0.99", "ninety-nine cents"),
        ("$.50", "fifty cents"),
        ("£9.99", "nine pounds and ninety-nine pence"),
        ("$1,234.56", "one thousand two hundred thirty-four dollars and fifty-six cents"),
        ("$1.5 million", "one point five million dollars"),
        ("$5m", "five million dollars"),
        ("-$5", "minus five dollars"),
        ("100€", "one hundred euros"),
        ("¥500", "five hundred yen"),
    ],
)
def test_money(text: str, expected: str) -> None:
    assert read_english(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10:30", "ten thirty"),
        ("10:05 a.m.", "ten oh five AM"),
        ("12:00", "twelve o'clock"),
        ("5pm", "five PM"),
        ("10:30:01", "ten thirty and one second"),
        ("9-5pm", "nine to five PM"),
        ("10:30-11:00", "ten thirty to eleven o'clock"),
        ("2024-05-01", "May first, twenty twenty-four"),
        ("2024-05-01T10:30:00Z", "May first, twenty twenty-four ten thirty"),
        ("5/6/2024", "May sixth, twenty twenty-four"),
        ("25/12/2024", "December twenty-fifth, twenty twenty-four"),
        ("October 5, 2024", "October fifth, twenty twenty-four"),
        ("Oct. 3-5", "October third to fifth"),
        ("the 5th of May", "the fifth of May"),
        ("1999 and 2008", "nineteen ninety-nine and two thousand eight"),
        ("in 1066", "in ten sixty-six"),
        ("1990s, '90s and 80s", "nineteen nineties, nineties and eighties"),
        ("555-1234", "five five five, one two three four"),
        ("+86 138-0013-8000", "plus eight six, one three eight, zero zero one three, eight zero zero zero"),
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
    ],
)
def test_calendar(text: str, expected: str) -> None:
    assert read_english(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v2.0.1", "Version two point zero point one."),
        ("Section 3.2.1", "Section three point two point one."),
        ("192.168.1.1", "One nine two dot one six eight dot one dot one."),
        ("https://example.com/a", "Example dot com slash a."),
        ("See www.example.com, please.", "See W W W dot example dot com, please."),
        ("Mail bob.smith@example.com.", "Mail bob dot smith at example dot com."),
        ("node.js", "Node dot js."),
        ("C# and C++ at AT&T", "C sharp and C plus plus at AT and T."),
        ("Dr. Smith met Mr. Jones, e.g. on Monday.", "Doctor Smith met Mister Jones, for example on Monday."),
        ("J. K. Rowling in the U.S.", "J K Rowling in the US."),
        ("St. Mary's on Main St.", "Saint Mary's on Main Street."),
        ("٣ books, １２ pens", "Three books, twelve pens."),
        ("½ cup", "One half cup."),
        ("H₂O at 10⁶", "H two O at ten to the power of six."),
    ],
)
def test_names_and_addresses(front_end: TextFrontEnd, text: str, expected: str) -> None:
    assert front_end.normalise(text) == expected


def test_long_addresses_are_cut_to_their_host(front_end: TextFrontEnd) -> None:
    assert front_end.normalise("https://example.com/" + "path/" * 30) == "Example dot com."


def words_to_number(words: str) -> int:
    """An independent reading of number words, back to the number."""
    small = {cardinal(number): number for number in range(20)} | {cardinal(ten): ten for ten in range(20, 100, 10)}
    total = current = 0
    for word in re.split(r"[ -]", words):
        if word == "hundred":
            current *= 100
        elif word in ("thousand", "million", "billion", "trillion"):
            total += current * {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}[word]
            current = 0
        else:
            current += small[word]
    return total + current


@given(st.integers(0, 10**15 - 1))
def test_cardinals_mean_their_number(number: int) -> None:
    assert words_to_number(cardinal(number)) == number
    assert quantity(f"{number:,}") == cardinal(number)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((1, "first"), (2, "second"), (3, "third"), (5, "fifth"), (8, "eighth"), (9, "ninth"), (12, "twelfth")),
        *((20, "twentieth"), (21, "twenty-first"), (100, "one hundredth"), (113, "one hundred thirteenth")),
    ],
)
def test_ordinals(number: int, expected: str) -> None:
    assert ordinal(number) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((1900, "nineteen hundred"), (1905, "nineteen oh five"), (2000, "two thousand"), (2010, "twenty ten")),
        *((2007, "two thousand seven"), (1066, "ten sixty-six"), (476, "four hundred seventy-six")),
    ],
)
def test_years(number: int, expected: str) -> None:
    assert year(number) == expected


@given(st.text(alphabet=st.sampled_from("0123456789.,:/-+$%x^'#() aAv°²e=T"), max_size=40))
def test_no_digit_is_left(text: str) -> None:
    assert not re.search(r"[0-9]", read_english(text))
