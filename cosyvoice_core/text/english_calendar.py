"""Dates, clock times and telephone numbers in English texts. Knows nothing of quantities."""

from __future__ import annotations

import re

from cosyvoice_core.text.english_words import cardinal, ordinal, pair, plural, spell, year

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH_OF = {name: name for name in _MONTHS} | {name[:3]: name for name in _MONTHS} | {"Sept": "September"}
_MONTH = "|".join(sorted(_MONTH_OF, key=len, reverse=True))

_ISO_DATE = re.compile(r"(?<![\d./-])([12]\d{3})([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])(?![\d/-]|\.\d)")
_SLASH_DATE = re.compile(r"(?<![\d./-])(\d{1,2})([-/.])(\d{1,2})\2([12]\d{3})(?![\d/-]|\.\d)")
_DAY = r"(0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_IN_YEAR = r"(?:,? ([12]\d{3})\b(?![:.,]\d))?"
_MONTH_DAY = re.compile(rf"\b({_MONTH})\b\.? {_DAY}\b(?:\s?[-—]\s?{_DAY}\b)?(?![:.,]\d|%){_IN_YEAR}")
_DAY_MONTH = re.compile(rf"(?<![\d.,:])\b(?:the )?{_DAY}(?: of)? ({_MONTH})\b\.?{_IN_YEAR}")
_DATE_TIME = re.compile(r"(?<=\d)T(?=\d\d:\d)")
_CLOCK_RANGE = re.compile(
    r"(?<![\d:.,-])(\d{1,2}(?::\d\d)?(?:\s?[AaPp]\.?[Mm]\.?)?)\s?[-—~]\s?(?=\d{1,2}(?::\d\d|\s?[AaPp]\.?[Mm]\b))"
)
_CLOCK = re.compile(
    r"(?<![\d:.,])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?:\.\d+)?(?![\d:])(?:\s?([AaPp])\.?[Mm]\b\.?)?(?:(?<=\d)Z\b)?"
)
_HOUR = re.compile(r"(?<![\d:.,$€£])(1[0-2]|0?[1-9])\s?([AaPp])\.?[Mm]\b\.?(?!\w)")
_DECADE = re.compile(r"(?<![\w.,])(?:'(\d0)|([12]\d)?(\d0))'?s\b")
_ROUND_THE_CLOCK = re.compile(r"(?<![\d/])24/7(?![\d/])")

_PHONES = (
    re.compile(r"(?<![\w+])\+\d{1,3}(?:[ -]?\(?\d{1,5}\)?){1,5}(?![\w-])"),
    re.compile(r"(?<!\w)\(\d{3}\) ?\d{3}-\d{4}(?![\w-])"),
    re.compile(r"(?<![\w-])(?:\d-)?\d{3}-\d{3,4}-\d{4}(?![\w-])"),
    re.compile(r"(?<![\w$€£-])\d{3}-\d{4}(?![\w-]|[.,]\d)"),
)


def read_calendar(text: str) -> str:
    """`text` with telephone numbers, dates, times and decades in words."""
    for phone in _PHONES:
        text = phone.sub(_say_phone, text)
    text = _DATE_TIME.sub(" ", text)
    text = _ISO_DATE.sub(lambda m: _say_date(int(m[1]), int(m[3]), int(m[4])), text)
    text = _SLASH_DATE.sub(_say_slash_date, text)
    text = _DAY_MONTH.sub(_say_day_month, text)
    text = _MONTH_DAY.sub(_say_month_day, text)
    text = _CLOCK_RANGE.sub(r"\1 to ", text)
    text = _CLOCK.sub(_say_clock, text)
    text = _HOUR.sub(lambda m: f"{cardinal(int(m[1]))} {m[2].upper()}M", text)
    text = _ROUND_THE_CLOCK.sub("twenty-four seven", text)
    return _DECADE.sub(_say_decade, text)


def _say_phone(match: re.Match[str]) -> str:
    groups = ", ".join(spell(group) for group in re.findall(r"\d+", match.group()))
    return f"plus {groups}" if match.group().startswith("+") else groups


def _say_date(number: int, month: int, day: int) -> str:
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(number)}"


def _say_slash_date(match: re.Match[str]) -> str:
    """Month first, as Americans write, unless only the other order is a date."""
    first, second, number = int(match[1]), int(match[3]), int(match[4])
    if 1 <= first <= 12 and 1 <= second <= 31:
        return _say_date(number, first, second)
    if 1 <= second <= 12 and 1 <= first <= 31:
        return _say_date(number, second, first)
    return match.group()


def _say_month_day(match: re.Match[str]) -> str:
    said = f"{_MONTH_OF[match[1]]} {ordinal(int(match[2]))}"
    if match[3]:
        said += f" to {ordinal(int(match[3]))}"
    return f"{said}, {year(int(match[4]))}" if match[4] else said


def _say_day_month(match: re.Match[str]) -> str:
    said = f"the {ordinal(int(match[1]))} of {_MONTH_OF[match[2]]}"
    return f"{said}, {year(int(match[3]))}" if match[3] else said


def _say_clock(match: re.Match[str]) -> str:
    hour, minute, half = int(match[1]), int(match[2]), match[4]
    said = cardinal(hour)
    if minute or match[3]:
        said += f" {pair(minute)}" if minute else " hundred"
    elif not half:
        said += " o'clock"
    if match[3] and int(match[3]):
        seconds = int(match[3])
        said += f" and {cardinal(seconds)} second{'s' if seconds != 1 else ''}"
    return f"{said} {half.upper()}M" if half else said


def _say_decade(match: re.Match[str]) -> str:
    """ "1990s", "'90s", "90s"; also "100s" and "20s", as the plural of a number."""
    short, century, tens = match[1], match[2], match[3]
    if century is None:
        number = int(short or tens)
        return plural(cardinal(number)) if number else match.group()
    if tens == "00":
        return f"{year(int(century) * 100)}s"
    return f"{cardinal(int(century))} {plural(cardinal(int(tens)))}"
