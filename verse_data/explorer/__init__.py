"""The explorer: tables of a release beside its scans in a browser, served or written to disk."""
