"""Web and mail addresses: where they stand in a text, and how they are said. Knows two languages' sign names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cosyvoice_core.text.script import Language

# Endings that make "name.ending" an address even without scheme or "www".
_ENDINGS = "com|org|net|edu|gov|mil|int|io|ai|dev|app|co|info|biz|me|tv|cn|jp|kr|uk|de|fr|eu|us|ca|ru|in|tw|hk|xyz"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}\.){{1,6}}[A-Za-z]{{2,24}}"
_PATH = r"(?::\d{1,5})?(?:[/?#][A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?"
# Signs at the end belong to the sentence.
_NO_SIGN = r"(?<![.,;:!?'()\[\]])"
ADDRESS = re.compile(
    rf"(?<![A-Za-z0-9@./_-])(?:"
    rf"(?P<mail>[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}@{_HOST})"
    rf"|(?P<url>[A-Za-z][A-Za-z0-9+.-]{{1,10}}://[A-Za-z0-9\-.]+{_PATH})"
    rf"|(?P<www>www\.{_HOST}{_PATH})"
    rf"|(?P<bare>(?:{_LABEL}\.){{1,6}}(?:{_ENDINGS})(?![A-Za-z0-9_-]){_PATH})"
    rf"){_NO_SIGN}",
    re.IGNORECASE,
)

_TOKEN = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z0-9]")
# Past this an address is a burden to the listener: only its host is said.
_MAX_SPOKEN = 60


@dataclass(frozen=True, slots=True)
class _SignNames:
    names: dict[str, str]
    between: str

    def say(self, address: str) -> str:
        words = (self.names.get(token, token) for token in _TOKEN.findall(address))
        return self.between.join(word for word in words if word.strip())


_ENGLISH = _SignNames(
    {
        "www": "W W W",
        ".": "dot",
        "/": "slash",
        "@": "at",
        "-": "dash",
        "_": "underscore",
        "?": "question mark",
        "=": "equals",
        "&": "and",
        "#": "hash",
        ":": "colon",
        "%": "percent",
        "+": "plus",
        "~": "tilde",
        ",": "comma",
        **dict.fromkeys("[]()!$'*;", ""),
    },
    " ",
)
_CHINESE = _SignNames(
    {
        ".": "点",
        "/": "斜杠",
        "@": "艾特",
        "-": "杠",
        "_": "下划线",
        "?": "问号",
        "=": "等于",
        "&": "和",
        "#": "井号",
        ":": "冒号",
        "%": "百分号",
        "+": "加",
        "~": "波浪号",
        ",": "逗号",
        **dict.fromkeys("[]()!$'*;", ""),
    },
    "",
)


def say_addresses(text: str, language: Language) -> str:
    """`text` with every address as words: no scheme, signs by name, digits left for the number rules.

    In languages whose sign names are not known here addresses stay as they are.
    """
    if language is Language.OTHER or language is Language.JAPANESE:
        return text
    signs = _CHINESE if language is Language.CHINESE else _ENGLISH

    def say(match: re.Match[str]) -> str:
        address = match.group()
        if not match.group("mail"):
            address = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", address).rstrip("/")
        if len(address) > _MAX_SPOKEN:
            address = re.split(r"[/?#]", address, maxsplit=1)[0]
        spoken = signs.say(address)
        return spoken if language is Language.CHINESE else f" {spoken} "

    return ADDRESS.sub(say, text)
