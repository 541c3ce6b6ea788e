"""From NIfTI to a verified Zarr store, and out of it again."""
