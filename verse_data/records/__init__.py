"""Pydantic models of rows and files, the parser of file names, and git-annex keys."""
