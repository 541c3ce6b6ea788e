"""`EvaluatedScans`: predictions of a model are scored against the scans of one release or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from verse_data.collection import ScanCollection
from verse_data.errors import UsageError, counted
from verse_data.files import write_file
from verse_data.progress import Progress

if TYPE_CHECKING:
    from verse_data.metrics.fractures import GradingScores
    from verse_data.metrics.identification import Hit
    from verse_data.metrics.scores import Evaluation, Unmatched


class EvaluatedScans(ScanCollection):
    """Scans that predicted masks, centroids and fracture grades are scored against."""

    @property
    def _identity(self) -> dict[str, str]:
        """What scores are of."""
        own = {"release": self.name, "version": self.version, "lock": self.pin}
        return {**own, **self._overlay_facts}

    def evaluate(
        self,
        predictions: str | os.PathLike[str],
        *,
        scan_ids: Iterable[str] | None = None,
        hit: Hit = "lt20",
        missing: Unmatched = "zero",
        additional: Unmatched = "skip",
        official_code: bool = False,
        seed: int = 0,
        draws: int = 2000,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score predicted masks and centroids against those here.

        See ``docs/metrics.md`` for each figure. Nothing is resampled and nothing is fetched.

        Parameters
        ----------
        predictions : path
            Folder with ``SCAN.nii.gz`` (labels of VerSe, on the scan's own grid), ``SCAN.json``
            (centroids in VerSe's form), or both, for each scan.
        scan_ids : iterable of str, optional
            Scans that must all have a prediction. Default: those that have one.
        hit : {"lt20", "le20"}
            Whether a centroid at exactly 20 mm misses, or hits.
        missing : {"zero", "skip"}
            Whether a vertebra that was not predicted counts with Dice 0, or is left out of it.
        additional : {"skip", "zero"}
            Whether a predicted vertebra that the truth lacks is left out of Dice, or counts with 0.
        official_code : bool
            Also give what the challenge's published notebook gives, to compare with old numbers.
        seed, draws : int
            Of the intervals: the same seed gives the same, from so many draws of all patients.
        progress : Progress, optional
            As in :meth:`Release.fetch`.

        Returns
        -------
        Evaluation
            Tables of vertebrae (with their grades), scans, means and groups.

        Raises
        ------
        UsageError
            If there is no prediction, one is named after no scan, or one of `scan_ids` has none.
        ValidationFailed
            If a prediction is on another grid, or breaks another rule of its format.
        ContentMissing
            If a mask or centroid file of these scans is not on this machine.
        """
        from verse_data.metrics import scores
        from verse_data.metrics.predicted import score_folder

        scores.check_conventions(hit, missing, additional, seed, draws)
        scored = score_folder(
            Path(predictions),
            self.series,
            lambda scan_id: self.home(scan_id).stores.source_file,
            scan_ids=None if scan_ids is None else self.known_scans(scan_ids),
            withheld=self.withheld,
            hit=hit,
            official_code=official_code,
            derived=self.members[0].config.derived,
            progress=progress or self.progress,
        )
        for one in self.members:
            if one.workbook.was_published and not one.workbook.is_here:
                self._warn_once(one.workbook.absence())
        rows = self.vertebrae_of(scored.predicted)
        made = scores.summarise(
            scores.with_grades(scored.vertebrae, rows),
            scored.scans,
            missing=missing,
            additional=additional,
            seed=seed,
            draws=draws,
        )
        how = {"hit": hit, "missing": missing, "additional": additional}
        about = {**self._identity, **how, "seed": seed, "draws": draws}
        return replace(made, about=about, notes=scored.notes)

    def write_worst(
        self,
        scores: Evaluation,
        predictions: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        most: int = 10,
    ) -> Path:
        """Write a page of the worst scans of an evaluation: truth and prediction side by side.

        By identification rate, then by Dice. Scans are fetched and converted if needed.

        Parameters
        ----------
        scores : Evaluation
            What :meth:`evaluate` returned.
        predictions : path
            The folder that was evaluated.
        path : path
            The page, such as ``worst.html``, which loads nothing; a file that is there is replaced.
        most : int
            How many scans are shown.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        UsageError
            If the scores are of another lock or other overlays, or a prediction is not there any more.
        ContentMissing
            If a CT cannot be fetched; a scan that has none in the lock is shown without a picture.
        """
        from verse_data.metrics import worst
        from verse_data.metrics.predicted import choose, find_predictions
        from verse_data.views.report import catalogued, check_page

        own = self._identity
        if any(scores.about.get(name) != own.get(name) for name in ("lock", "overlays")):
            raise UsageError(
                f"These scores are not of {self.name} {self._named_version}: evaluate anew."
            )
        page = check_page(Path(path))
        ids, folder = worst.worst_first(scores.scans)[:most], Path(predictions)
        found, _ = find_predictions(folder, self.series, self.withheld)
        found = choose(found, ids, self.series, folder)
        drawable = [name for name in ids if "ct" in self.series[name].files]
        pictures = {}
        with self.progress("Drawing scans", len(drawable), "items") as advance:
            for name, subject in self.to_draw(drawable, fill=False).items():
                pictures[name] = worst.picture(subject, found[name], self.grid(name))
                advance(1)
        about = catalogued(self.catalog)
        if self.catalog:
            about["licence"] = " + ".join(dict.fromkeys(map(self.licence_of, ids)))
        write_file(page, worst.make(scores, pictures, ids, about).encode())
        return page

    def evaluate_grades(
        self,
        scores: str | os.PathLike[str],
        *,
        thresholds: Sequence[float] = (0.5,),
        seed: int = 0,
        draws: int = 2000,
    ) -> GradingScores:
        """Compare predicted fracture scores or grades with the Genant grades here.

        Parameters
        ----------
        scores : path
            CSV with ``scan_id``, ``level``, and ``score`` (higher is worse) or ``grade`` (0 to 3).
        thresholds, seed, draws : optional
            As in :func:`verse_data.metrics.score_grades`.

        Returns
        -------
        GradingScores
            AUC, sensitivity, specificity and kappa with intervals over patients.

        Raises
        ------
        UsageError
            If there is no such file, or none of its vertebrae has a grade.
        ValidationFailed
            If its rows are broken, double, or of vertebrae that there are not.
        ContentMissing
            If the grading workbook is not on this machine.
        """
        from verse_data.metrics import fractures

        rows = fractures.read_scores(Path(scores))
        self._require(["grade"], asked="Scoring fracture grades")
        chosen = set(rows["scan_id"]) & self.series.keys()
        table = self.vertebrae_of(chosen)
        joined = fractures.join_grades(rows, table, name=str(scores))
        made = fractures.score_grades(joined, thresholds=thresholds, seed=seed, draws=draws)
        graded = int((table["scan_id"].isin(chosen) & table["grade"].notna()).sum())
        unscored = graded - int(joined["grade"].notna().sum())
        word = counted(unscored, "graded vertebra", "graded vertebrae")
        notes = (*made.notes, *([f"not in the file: {word} of these scans"] if unscored else []))
        about = {**self._identity, "seed": seed, "draws": draws}
        return replace(made, about=about, notes=notes)
