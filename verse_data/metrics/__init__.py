"""Predictions against the truth: the challenge's metrics with every convention named, and grading.

``Release.evaluate`` scores a folder of predictions; the functions here take arrays and tables.
See ``docs/metrics.md``.
"""

from __future__ import annotations

from verse_data.metrics.bootstrap import Interval, mean_interval
from verse_data.metrics.fractures import GradingScores, score_grades
from verse_data.metrics.identification import Identified, identify
from verse_data.metrics.official import OfficialScores, Side, official_scores
from verse_data.metrics.overlap import Overlap, hausdorff, overlap
from verse_data.metrics.scores import Evaluation, ScanScores, score_scan, summarise

__all__ = [
    "Evaluation",
    "GradingScores",
    "Identified",
    "Interval",
    "OfficialScores",
    "Overlap",
    "ScanScores",
    "Side",
    "hausdorff",
    "identify",
    "mean_interval",
    "official_scores",
    "overlap",
    "score_grades",
    "score_scan",
    "summarise",
]
