"""The checks behind a pattern: what looks like a card, an IBAN, a phone number or an address, and what is one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

#: Digits of a card number, by ISO/IEC 7812 and the issuers' own rules.
_CARD_DIGITS = range(13, 20)
#: Characters of an IBAN without its spaces, by ISO 13616: from Norway's to the longest that is allowed.
_IBAN_LENGTHS = range(15, 35)
#: Digits of a phone number with its country code, by E.164, and the fewest that are one.
_PHONE_DIGITS = range(8, 16)


def card_length(text: str) -> int:
    """How many of these characters, from the first one, are a card number; 0 for none."""
    for end in _ends(text):
        digits = [int(each) for each in text[:end] if each.isdecimal()]
        if len(digits) in _CARD_DIGITS and is_luhn(digits):
            return end
    return 0


def is_luhn(digits: list[int]) -> bool:
    """Whether the last digit is the check digit of the others (Luhn, ISO/IEC 7812)."""
    doubled = sum(sum(divmod(2 * each, 10)) for each in digits[-2::-2])
    return (doubled + sum(digits[::-2])) % 10 == 0


def iban_length(text: str) -> int:
    """How many of these characters, from the first one, are an IBAN; 0 for none."""
    for end in _ends(text):
        plain = "".join(text[:end].split())
        if len(plain) in _IBAN_LENGTHS and is_iban(plain):
            return end
    return 0


def is_iban(plain: str) -> bool:
    """Whether the check digits fit (ISO 7064, mod 97). Letters count from 10."""
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1


def phone_length(text: str) -> int:
    """How many of these characters, from the first one, have as many digits as a phone number; 0 for none."""
    for end in _ends(text):
        if sum(map(str.isdecimal, text[:end])) in _PHONE_DIGITS:
            return end
    return 0


def ip_length(text: str) -> int:
    """All of these characters if they are an address; else 0. `de::ad` is one, but has no digit: it may be a name."""
    address = text.rstrip(":") if not text.endswith("::") else text
    try:
        ip_address(address)
    except ValueError:
        return 0
    return len(address) if any(map(str.isdecimal, address)) else 0


def _ends(text: str) -> Iterator[int]:
    """Where a number that begins here may end: after all characters, or before a later space or hyphen."""
    yield len(text)
    for end in range(len(text) - 1, 0, -1):
        if text[end] in " -" and text[end - 1] not in " -":
            yield end
