"""The collector of the tests here."""

from __future__ import annotations

from tests.collector import collecting_process as collecting_process
from tests.collector import collector as collector
