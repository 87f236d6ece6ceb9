"""Money, percentages, units, fractions, ranges, arithmetic and plain numbers in English texts.

Knows nothing of dates and telephone numbers, which are read before (`english_calendar`).
"""

from __future__ import annotations

import re

from cosyvoice_core.text.english_words import cardinal, integer, ordinal, quantity, spell, year

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_ALONE = r"(?<![\d.,])"

# Sign: one, many, hundredth part (one, many).
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₺": ("lira", "lira", "kurush", "kurush"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_SIGNS = "".join(_CURRENCIES)
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_SCALE = r"(?:\s?(thousand|million|billion|trillion)\b|(bn|mn|tn|[kKmMbB])\b)?"
_MONEY = re.compile(rf"(?:\b(?:US|A|C|HK))?([{_SIGNS}])\s?({_NUMBER}){_SCALE}")
_MONEY_BEHIND = re.compile(rf"{_ALONE}({_NUMBER})\s?([{_SIGNS}])")

# Written: one, many.
_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "mph": ("mile per hour", "miles per hour"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "cm²": ("square centimeter", "square centimeters"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "nm": ("nanometer", "nanometers"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "lbs": ("pounds", "pounds"),
    "lb": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "GHz": ("gigahertz", "gigahertz"),
    "MHz": ("megahertz", "megahertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "Hz": ("hertz", "hertz"),
    "kB": ("kilobyte", "kilobytes"),
    "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "ms": ("millisecond", "milliseconds"),
    "dB": ("decibel", "decibels"),
    "min": ("minute", "minutes"),
    "hrs": ("hours", "hours"),
    "hr": ("hour", "hours"),
    "kcal": ("kilocalorie", "kilocalories"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "%": ("percent", "percent"),
    "‰": ("per mille", "per mille"),
    "m": ("meter", "meters"),
    "g": ("gram", "grams"),
}
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_MEASURE = re.compile(rf"{_ALONE}({_NUMBER})\s?({_UNIT})(?![\w²³])")

_NUMBER_SIGN = re.compile(r"(?:#|\bNos?\.)\s?(?=\d)")
_FEET_AND_INCHES = re.compile(r"(?<![\w'])(\d)'\s?(1[01]|\d)\b(?:''|\")?")
_INNER_APOSTROPHE = re.compile(r"(?<=\d)'(?=\w)")
_VERSION = re.compile(r"(?<![\w.])([vV]\.?\s?)?(\d+(?:\.\d+){2,})(?![\w])|(?<![\w.])[vV](\d+(?:\.\d+)?)(?![\w.])")
_POWER_OF_TEN = re.compile(rf"{_ALONE}({_NUMBER})[eE]([+-]?)(\d{{1,3}})(?!\w)")
_RANGE = re.compile(rf"(?<=[\d%°CF])\s?[-—~]\s?(?=[{_SIGNS}]?\d)")
_SPACED_MINUS = re.compile(r"(?<=\d) - (?=\d)")
_MINUS = re.compile(rf"(?<![\w.)%])-(?=[{_SIGNS}]?\.?\d)")
_ABOUT = re.compile(r"[~≈]\s?(?=[$€£]?\d)")
_MIXED_FRACTION = re.compile(r"(?<![\d.,/])(\d+) ([1-9]\d?)/([1-9]\d?)(?![\d/]|\.\d)")
_FRACTION = re.compile(r"(?<![\d.,/])(\d{1,3})/(\d{1,3})(?![\d/]|\.\d)")
_SCORE = re.compile(r"(?<![\d:])(\d{1,3}):(\d{1,3})(?![\d:])")
_ORDINAL = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b")
_YEAR = re.compile(r"(?<![\w.,$€£])(20\d\d|19\d\d)(?![\w%]|[.,]\d| by \d)")
_EARLY_YEAR = re.compile(
    r"(?i)(?<=\b)(in|since|until|from|before|after|year|around|circa) (1[0-8]\d\d)(?![\w%]|[.,]\d)"
)
_PLAIN = re.compile(_NUMBER)

_OPERATORS = (
    (re.compile(r"(?<=[\d)])\s?[×*]\s?(?=[\d(])"), " times "),
    (re.compile(r"(?<=\d)x(?=\d)|(?<=\d) x (?=\d)"), " by "),
    (re.compile(r"(?<=[\w)²³])\s?÷\s?(?=[\w(])"), " divided by "),
    (re.compile(r"(?<=[\d)²³])\s?\+\s?(?=[\w(])|(?<=\w) \+ (?=[\w(])"), " plus "),
    (re.compile(r"\s?±\s?"), " plus or minus "),
    (re.compile(r"(?<=[\w)²³%])\s?(?:=|==)\s?(?=[\w(\-])"), " equals "),
    (re.compile(r"(?<=[\w)²³%])\s?≠\s?"), " is not "),
    (re.compile(r"\s?(?:≤|<=)\s?(?=[\w(\-])"), " at most "),
    (re.compile(r"\s?(?:≥|>=)\s?(?=[\w(\-])"), " at least "),
    (re.compile(r"(?<=[\w)²³%]) ?< ?(?=[\d(\-])"), " is less than "),
    (re.compile(r"(?<=[\w)²³%]) ?> ?(?=[\d(\-])"), " is more than "),
    (re.compile(r"\s?→\s?"), " to "),
)
_POWER = re.compile(r"(?<=[\w)])\^(-?)(\d{1,3})(?!\d)")

# A digit next to a letter: "A4", "B2B", "COVID-19", "mp3"; but "3-year" keeps its hyphen.
_LETTER_DIGIT = re.compile(r"(?<=[^\W\d_])[-_]?(?=\d)")
_DIGIT_LETTER = re.compile(r"(?<=\d)_?(?=[^\W\d_])")


def read_quantities(text: str) -> str:
    """`text` with all that is left of digits in words; none remain."""
    text = _NUMBER_SIGN.sub("number ", text)
    text = _INNER_APOSTROPHE.sub(" ", _FEET_AND_INCHES.sub(r"\1 foot \2", text))
    text = _VERSION.sub(_say_version, text)
    text = _POWER_OF_TEN.sub(_say_power_of_ten, text)
    if "=" in text:
        text = _SPACED_MINUS.sub(" minus ", text)
    for pattern, word in _OPERATORS:
        text = pattern.sub(word, text)
    text = _POWER.sub(_say_power, text)
    text = _RANGE.sub(" to ", text)
    text = _MINUS.sub("minus ", text)
    text = _ABOUT.sub("about ", text)
    text = _MONEY.sub(_say_money, text)
    text = _MONEY_BEHIND.sub(lambda m: _amount(m[1], m[2]), text)
    text = _MEASURE.sub(_say_measure, text)
    text = text.replace("²", " squared").replace("³", " cubed")
    text = _MIXED_FRACTION.sub(_say_mixed_fraction, text)
    text = _FRACTION.sub(_say_fraction, text)
    text = _SCORE.sub(r"\1 to \2", text)
    text = _ORDINAL.sub(_say_ordinal, text)
    text = _YEAR.sub(lambda m: year(int(m[1])), text)
    text = _EARLY_YEAR.sub(lambda m: f"{m[1]} {year(int(m[2]))}", text)
    text = _LETTER_DIGIT.sub(" ", text)
    return _PLAIN.sub(lambda m: quantity(m.group()), _DIGIT_LETTER.sub(" ", text))


def _say_version(match: re.Match[str]) -> str:
    parts = (match[2] or match[3]).split(".")
    if len(parts) == 4 and not match[1] and all(int(part[:4]) < 256 for part in parts):
        return " dot ".join(spell(part) for part in parts)
    said = " point ".join(integer(part) for part in parts)
    return f"version {said}" if match[1] or match[3] else said


def _say_power_of_ten(match: re.Match[str]) -> str:
    minus = "minus " if match[2] == "-" else ""
    return f"{quantity(match[1])} times ten to the {minus}{integer(match[3])}"


def _say_power(match: re.Match[str]) -> str:
    if not match[1] and match[2] in ("2", "3"):
        return " squared" if match[2] == "2" else " cubed"
    return f" to the power of {'minus ' if match[1] else ''}{integer(match[2])}"


def _say_money(match: re.Match[str]) -> str:
    scale = match[3] or _SCALES.get((match[4] or "").lower())
    if scale is None:
        return _amount(match[2], match[1])
    return f"{quantity(match[2])} {scale} {_CURRENCIES[match[1]][1]}"


def _amount(number: str, sign: str) -> str:
    one, many, cent, cents = _CURRENCIES[sign]
    whole, _, fraction = number.replace(",", "").partition(".")
    whole = whole or "0"
    if not cent or len(fraction) != 2:
        return f"{quantity(number)} {one if number == '1' else many}"
    said = f"{integer(whole)} {one if whole == '1' else many}"
    hundredths = int(fraction)
    if not hundredths:
        return said
    part = f"{cardinal(hundredths)} {cent if hundredths == 1 else cents}"
    return part if whole.strip("0") == "" else f"{said} and {part}"


def _say_measure(match: re.Match[str]) -> str:
    one, many = _UNITS[match[2]]
    return f"{quantity(match[1])} {one if match[1] == '1' else many}"


def _part(number: int, parts: int) -> str:
    if parts == 2:
        return "half" if number == 1 else "halves"
    name = "quarter" if parts == 4 else ordinal(parts)
    return name if number == 1 else f"{name}s"


def _say_mixed_fraction(match: re.Match[str]) -> str:
    number, parts = int(match[2]), int(match[3])
    if parts == 1 or number >= parts:
        return match.group()
    article = "a" if number == 1 else cardinal(number)
    return f"{integer(match[1])} and {article} {_part(number, parts)}"


def _say_fraction(match: re.Match[str]) -> str:
    number, parts = int(match[1]), int(match[2])
    if not 0 < number < parts <= 100:
        return f"{integer(match[1])} slash {integer(match[2])}"
    return f"{cardinal(number)} {_part(number, parts)}"


def _say_ordinal(match: re.Match[str]) -> str:
    digits = match[1].replace(",", "")
    return ordinal(int(digits)) if len(digits) <= 15 else spell(digits)
