"""Locks, DataLad datasets, sources and transfers: from a listing to a verified file."""
