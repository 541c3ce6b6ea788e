"""Named definitions that a ``where=`` expression may use as a condition.

Papers on VerSe'19 do not mean the same by "fractured". A name with its source says which one is
meant, and keeps the cut-off in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One named condition: its expression, its meaning, and who uses the same cut-off."""

    name: str
    expression: str  # in the same query language
    meaning: str  # with what happens to vertebrae without a grade
    used_by: tuple[str, ...]  # published work, or public code


_BY_NAME = (
    Definition(
        name="fracture.any",
        expression="grade >= 1",
        meaning=(
            "Genant grade 1, 2 or 3: a loss of height of 20 % or more. Vertebrae without a grade "
            "(not assessed, foreign material) are neither this nor its opposite."
        ),
        used_by=(
            (
                "Löffler et al. 2020, Radiology: AI 2(4):e190138, doi 10.1148/ryai.2020190138: "
                "the 289 fractures of its table (142 mild, 96 moderate, 51 severe)"
            ),
            "github.com/aashikmathew: binary target of a fracture detector",
        ),
    ),
    Definition(
        name="fracture.moderate",
        expression="grade >= 2",
        meaning=(
            "Genant grade 2 or 3: a loss of height of 25 % or more. Mild deformities, the hardest "
            "to tell from normal variants, count as not fractured; vertebrae without a grade as "
            "neither."
        ),
        used_by=(
            (
                "Löffler et al. 2020, whose table counts moderate and severe fractures apart "
                "(96 + 51 of 289)"
            ),
            (
                "public code that trains a binary target of grade 2 and up on VerSe'19, beside "
                "others with grade 1 and up or the ordinal 0 to 3; we know of no paper that names it"
            ),
        ),
    ),
)
DEFINITIONS: Final = {definition.name: definition for definition in _BY_NAME}
