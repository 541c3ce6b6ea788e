"""Vertebral levels and labels, and the geometry of voxel grids. NumPy only, no I/O."""
