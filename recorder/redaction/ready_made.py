"""The patterns that have a name: keys of providers, e-mail addresses, cards, phone numbers, IBANs and IP addresses.

Each match has at most `LONGEST` characters, and consists of characters of one of two classes. So the part of a text
that may still become a match is found by its characters alone, which takes a fraction of a search.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from recorder.redaction.checksums import card_length, iban_length, ip_length, phone_length

#: Characters. No match of a pattern with a name is longer, with what it looks at behind it.
LONGEST = 4_000
#: The same of one with spaces between its groups.
_LONGEST_GROUPED = 70
#: Letters. A match without digits, signs and spaces has more.
SHORT_WORD = 15
#: Characters that are in no match, but for the space.
BETWEEN_WORDS = ' ,;!?"\n'

#: Letters of names in addresses: Latin, Greek and Cyrillic.
_LETTERS = r"A-Za-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff"
_WORD = rf"{_LETTERS}0-9_"
#: What a match without spaces consists of, and what one with spaces between groups consists of.
_UNSPACED = rf"[{_WORD}.%+'@:()/-]"
_GROUPED = r"[A-Z0-9+().\- \u00a0/]"

_KEY_BODIES = (
    r"sk-[A-Za-z0-9_-]{16,250}",  # OpenAI, Anthropic, DeepSeek, OpenRouter, LiteLLM
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,250}",  # Stripe
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",  # Amazon
    r"xai-[A-Za-z0-9]{20,200}",
    r"gsk_[A-Za-z0-9]{20,200}",  # Groq
    r"csk-[A-Za-z0-9]{20,200}",  # Cerebras
    r"pplx-[A-Za-z0-9]{20,200}",  # Perplexity
    r"nvapi-[A-Za-z0-9_-]{20,200}",
    r"fw_[A-Za-z0-9]{20,200}",  # Fireworks
    r"tgp_v1_[A-Za-z0-9_-]{20,200}",  # Together
    r"r8_[A-Za-z0-9]{20,200}",  # Replicate
    r"hf_[A-Za-z0-9]{20,200}",  # Hugging Face
    r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{20,200}",  # LangSmith
    r"tvly-[A-Za-z0-9_-]{16,200}",  # Tavily
    r"dapi[a-f0-9]{32}",  # Databricks
    r"gh[oprsu]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_-]{20,200}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,250}",
    r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"eyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,900}",  # JSON Web Token
)
#: How a key begins. A text without any of these has none.
_KEY_STARTS = (
    r"sk-|[srp]k_|AIza|A[KS]IA|xai-|gsk_|csk-|pplx-|nvapi-|fw_|tgp_v1_|r8_|hf_|lsv2_|tvly-|dapi|gh[oprsu]_|github_pat_|"
    r"glpat-|xox|npm_|pypi-|SG\.|eyJ"
)
_KEY = rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_KEY_BODIES)})(?![A-Za-z0-9_-])"
#: Characters of the part of an address before its `@`, at most so many, and the part behind it.
_USER, _LONGEST_USER = rf"[{_WORD}.+%'-]", 64
_HOST = re.compile(
    rf"(?:[{_WORD}](?:[{_WORD}-]{{0,61}}[{_WORD}])?\.){{1,8}}[{_LETTERS}]{{2,24}}(?![{_WORD}-])"
)
_ISSUER = r"(?=4|5[0-9]|6[0-9]|3[04-9]|2[2-7])"
_CARD = (
    rf"(?<![{_WORD}]){_ISSUER}(?:[0-9]{{13,19}}|[0-9]{{4}}(?:[ -][0-9]{{4}}){{3}}(?:[ -][0-9]{{1,3}})?"
    rf"|[0-9]{{4}}[ -][0-9]{{6}}[ -][0-9]{{4,5}})(?![{_WORD}])"
)
_IBAN = rf"(?<![{_WORD}])[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?(?![{_WORD}])"
_PHONE = (
    rf"(?<![{_WORD}+])(?:(?:\+|00)[1-9][0-9]{{0,2}}(?:[ \u00a0./-]?\(?(?!00[1-9])[0-9]{{1,5}}\)?){{2,6}}"
    rf"|(?:\([2-9][0-9]{{2}}\)[ \u00a0]?|[2-9][0-9]{{2}}[.-])[0-9]{{3}}[.-][0-9]{{4}})(?![{_WORD}])"
)
_V4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_IP = (
    rf"(?<![{_WORD}.:])(?:{_V4}|[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{1,6}}:{_V4}"
    rf"|[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}})(?![{_WORD}]|[.:][0-9A-Fa-f])"
)

_DIGIT = re.compile("[0-9]")
_AT = re.compile("@|%40")
_CARD_SIGN = re.compile("[0-9]{4}[ -]?[0-9]{4}")
_PHONE_SIGN = re.compile(r"(?:\+|00)[1-9]|[0-9]{3}[).-]")
_IBAN_SIGN = re.compile("[A-Z]{2}[0-9]{2}")
_IP_SIGN = re.compile(r"[0-9]\.[0-9]|:[0-9A-Fa-f]{0,4}:")
#: The trailing characters of one class: whether all are, and where they begin. All may belong to one match.
_UNSPACED_END, _GROUPED_END, _USER_END = (
    (re.compile(rf"{each}+\Z"), re.compile(rf"(?<!{each}){each}+\Z")) for each in (_UNSPACED, _GROUPED, _USER)
)
#: A text without any of these has no match.
_SUSPECT = re.compile(rf"[0-9@]|{_KEY_STARTS}")
#: Characters. A longer end of a text is searched for its exact begin.
_SHORT_END = 24


@dataclass(frozen=True)
class ReadyMade:
    """A pattern with a name."""

    #: What replaces a match, in brackets, and the name in the counts.
    name: str
    pattern: re.Pattern[str]
    #: Something that each match has; how far before the first one a match may begin, and how far behind it it may end.
    sign: re.Pattern[str]
    before: int
    behind: int
    #: How many characters of a match of the pattern are really one; None for all.
    length_of: Callable[[str], int] | None = None

    def find(self, text: str, start: int) -> tuple[int, int] | None:
        """The first match at or after `start`: its begin and its end; None if there is none."""
        look = self.pattern.search if self.before else self.pattern.match
        while (sign := self.sign.search(text, start)) is not None:
            at = sign.start()
            found = look(text, max(start, at - self.before), at + self.behind)
            if found is None or found.start() > at:  # a match that begins later has a later sign
                start = at + 1
            elif self.length_of is None:
                return found.span()
            elif length := self.length_of(found[0]):
                return found.start(), found.start() + length
            else:
                start = found.start() + 1
        return None


class Email:
    """Addresses of e-mail, with the methods of `ReadyMade`. Of a text of many `@` each is looked at once."""

    name = "email"

    def find(self, text: str, start: int) -> tuple[int, int] | None:
        """As `ReadyMade.find`."""
        while (at := _AT.search(text, start)) is not None:
            host = _HOST.match(text, at.end())
            if host is not None:
                begin = _run_at_end(_USER_END, text, max(start, at.start() - _LONGEST_USER), at.start())
                if begin < at.start():
                    return begin, host.end()
            start = at.end()
        return None


#: The name in the option -> the pattern.
READY_MADE: dict[str, ReadyMade | Email] = {
    "keys": ReadyMade("key", re.compile(_KEY), re.compile(_KEY_STARTS), 0, LONGEST),
    "email": Email(),
    "card": ReadyMade("card", re.compile(_CARD), _CARD_SIGN, 0, _LONGEST_GROUPED, card_length),
    "phone": ReadyMade("phone", re.compile(_PHONE), _PHONE_SIGN, 1, _LONGEST_GROUPED, phone_length),
    "iban": ReadyMade("iban", re.compile(_IBAN), _IBAN_SIGN, 0, _LONGEST_GROUPED, iban_length),
    "ip": ReadyMade("ip", re.compile(_IP), _IP_SIGN, 4, _LONGEST_GROUPED, ip_length),
}


def may_match(text: str, start: int) -> bool:
    """A fast check whether any of these patterns may match at or after `start`."""
    return _SUSPECT.search(text, start) is not None


def undecided_from(text: str, start: int) -> int:
    """Where the first match may begin, at or after `start`, that depends on the characters after this text."""
    end = len(text)
    start = max(start, end - LONGEST)
    found = max(start, text.rfind(" ", start) + 1)
    if end - found > _SHORT_END:
        found = _run_at_end(_UNSPACED_END, text, found)
    start = max(start, end - _LONGEST_GROUPED)
    if start < found and _DIGIT.search(text, start) is not None:
        grouped = _run_at_end(_GROUPED_END, text, start)
        if grouped < found and _DIGIT.search(text, grouped) is not None:
            return grouped
    return found


def _run_at_end(
    ends: tuple[re.Pattern[str], re.Pattern[str]], text: str, start: int, end: int | None = None
) -> int:
    """Where the trailing characters of one class begin, at or after `start`; `end` if there are none."""
    end = len(text) if end is None else end
    all_, run = ends
    if all_.match(text, start, end) is not None:
        return start
    found = run.search(text, start, end)
    return found.start() if found is not None else end
