"""English number words. Knows numbers, not texts."""

from __future__ import annotations

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
# Longer runs are codes, not quantities.
_MAX_DIGITS = 15


def cardinal(number: int) -> str:
    """1234 -> "one thousand two hundred thirty-four"; below 10**15."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    unit, name = next(scale for scale in _SCALES if number >= scale[0])
    count, rest = divmod(number, unit)
    return f"{cardinal(count)} {name}" + (f" {cardinal(rest)}" if rest else "")


def ordinal(number: int) -> str:
    """21 -> "twenty-first"."""
    words = cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last in _IRREGULAR_ORDINALS:
        return words[:cut] + _IRREGULAR_ORDINALS[last]
    return words[:-1] + "ieth" if words.endswith("y") else words + "th"


def spell(digits: str) -> str:
    """ "007" -> "zero zero seven"."""
    return " ".join(_ONES[int(digit)] for digit in digits)


def quantity(number: str) -> str:
    """A plain number such as "1,234", "3.14", ".5" or "007" in words."""
    whole, point, fraction = number.replace(",", "").partition(".")
    spoken = integer(whole) if whole else "zero"
    return f"{spoken} point {spell(fraction)}" if point and fraction else spoken


def integer(digits: str) -> str:
    """Digits as a number, or one by one when they are a code: a leading zero, or too many of them."""
    if len(digits) > _MAX_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return spell(digits)
    return cardinal(int(digits))


def year(number: int) -> str:
    """1999 -> "nineteen ninety-nine", 2008 -> "two thousand eight", 1905 -> "nineteen oh five"."""
    century, rest = divmod(number, 100)
    if not 1000 <= number <= 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {pair(rest)}"


def pair(number: int) -> str:
    """The last two digits of a year or a clock: 5 -> "oh five", 30 -> "thirty"."""
    return f"oh {cardinal(number)}" if number < 10 else cardinal(number)


def plural(word: str) -> str:
    """ "ninety" -> "nineties", "quarter" -> "quarters"."""
    if word.endswith("y"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith("x") else "s")
