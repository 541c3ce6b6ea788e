"""What works on this machine, what does not, and what to type next."""

from __future__ import annotations

from verse_data.doctor.check import Check
from verse_data.doctor.examination import examine, exit_code

__all__ = ["Check", "examine", "exit_code"]
