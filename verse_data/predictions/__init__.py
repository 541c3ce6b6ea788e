"""Predictions back on the grid of their scan, with VerSe's labels.

A model sees scans turned, resampled, cropped or in patches, and its labels may be consecutive.
:func:`to_native` undoes all of this for what was predicted from samples of this package, and
:func:`import_predictions` for a folder of files.
"""

from verse_data.predictions.imported import Imported, ImportedScan, import_predictions
from verse_data.predictions.native import NativePrediction, to_native

__all__ = ["Imported", "ImportedScan", "NativePrediction", "import_predictions", "to_native"]
