"""The vocabularies of OpenAI's models, from the library tiktoken."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from recorder.core.installation import INSTALL_TIKTOKEN
from recorder.core.late_imports import late_imports
from recorder.errors import ConfigError, MissingExtra

#: How the names of models begin that tiktoken may not know yet, and their encoding: LangChain's list.
_NEW_MODELS = ("gpt-4o", "gpt-4.1", "gpt-5", "gpt-6")
_NEW_ENCODING = "o200k_base"
#: The file of each encoding, with its SHA-256, as in `tiktoken_ext.openai_public`.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_FILES = {
    "cl100k_base": ("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
    "o200k_harmony": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
}


def encoding_of(model: str) -> Any:
    """The encoding of a model, whose vocabulary is downloaded at first use.

    Raises `MissingExtra`, and `ConfigError` for a model that tiktoken does not know.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtra(f"Counting tokens needs tiktoken; run: {INSTALL_TIKTOKEN}") from error
    name = _name_of(model)
    if name is None:
        raise ConfigError(
            f"tiktoken does not know how {model!r} counts tokens; pass tiktoken_model_name=, an OpenAI model that "
            "counts alike"
        )
    return tiktoken.get_encoding(name)


def local_encoding_of(model: str) -> Any:
    """The same without a download; None for another model, without tiktoken, and without the vocabulary's file."""
    with late_imports():
        name = _local_name_of(model)
        if name is None:
            return None
        import tiktoken

        return tiktoken.get_encoding(name)  # imports what describes the encodings


def has_local_encoding(model: str) -> bool:
    """Whether `local_encoding_of` finds one. Loads no vocabulary, and not even tiktoken where it has no cache."""
    if "tiktoken" not in sys.modules and not os.path.isdir(_cache_folder()):
        return False
    with late_imports():
        return _local_name_of(model) is not None


def _local_name_of(model: str) -> str | None:
    try:
        from tiktoken import registry
    except ImportError:
        return None
    name = _name_of(model)
    is_here = name is not None and (name in registry.ENCODINGS or _has_file(name))
    return name if is_here else None


def _name_of(model: str) -> str | None:
    import tiktoken

    try:
        return tiktoken.encoding_name_for_model(model)
    except KeyError:
        return _NEW_ENCODING if model.lower().startswith(_NEW_MODELS) else None


def _has_file(name: str) -> bool:
    """Whether tiktoken finds the right file in its cache. It would delete a wrong one, and download it again."""
    known = _FILES.get(name)
    folder = _cache_folder()
    if known is None or not folder:
        return False
    file, expected = known
    path = Path(folder, hashlib.sha1(_ADDRESS.format(file).encode()).hexdigest())
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        return False


def _cache_folder() -> str:
    """Where `tiktoken.load` looks; "" if its cache is turned off."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return os.environ[variable]
    return os.path.join(tempfile.gettempdir(), "data-gym-cache")
