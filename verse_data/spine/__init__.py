"""The words of the spine (levels, labels) and the arithmetic of its images. Pure, NumPy only."""
